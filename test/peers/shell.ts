// The host's end of the guest's command port. The guest's end is `init` in initramfs.ts.

import type { Socket } from 'node:net';
import { waitFor } from './process.ts';

export interface RunOptions {
  /** 10 s by default. */
  timeoutMs?: number;
  /** false: hand back a non-zero status rather than throw. */
  ok?: boolean;
}

export interface RunResult {
  status: number;
  stdout: string;
}

export class GuestShell {
  ready = false;
  readonly #socket: Socket;
  readonly #name: string;
  readonly #trouble: () => string;
  #received = '';
  #nextId = 1;
  #last: Promise<unknown> = Promise.resolve();

  /** `trouble` tells an error message what the guest's console says. */
  constructor(socket: Socket, name: string, trouble: () => string) {
    this.#socket = socket;
    this.#name = name;
    this.#trouble = trouble;
    socket.on('error', () => {});
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.#received += text;
      if (!this.ready && this.#received.includes('\n@@ready:0@@\n')) this.assumeReady();
    });
  }

  /** Forgets the guest that was: its ready line must come again. */
  reset(): void {
    this.ready = false;
    this.#received = '';
  }

  /** For a guest that arrives by migration, its ready line long said. */
  assumeReady(): void {
    this.ready = true;
    this.#received = '';
  }

  run(command: string, options: RunOptions = {}): Promise<RunResult> {
    const result = this.#last.then(() => this.#run(command, options));
    this.#last = result.catch(() => {});
    return result;
  }

  async #run(command: string, { timeoutMs = 10_000, ok = true }: RunOptions): Promise<RunResult> {
    const id = `c${this.#nextId++}`;
    const end = new RegExp(`\\n@@${id}:(\\d+)@@\\n`);
    const what = `${this.#name}: ${command}`;
    this.#received = '';
    this.#socket.write(`${id} ${Buffer.from(command).toString('base64')}\n`);
    const ended = (): boolean => {
      if (this.#socket.destroyed) throw new Error(`${what}: QEMU is gone\n${this.#trouble()}`);
      return end.test(this.#received);
    };
    try {
      await waitFor(ended, timeoutMs, what, () => `${this.#received}\n${this.#trouble()}`);
    } catch (error) {
      this.#socket.write('kill\n');
      await waitFor(ended, 2000, what).catch(() => {});
      throw error;
    }
    const match = end.exec(this.#received);
    const result = {
      status: Number(match?.[1]),
      stdout: this.#received.slice(0, match?.index),
    };
    if (ok && result.status !== 0) {
      throw new Error(`${what}: exit ${result.status}\n${result.stdout}\n${this.#trouble()}`);
    }
    return result;
  }
}
