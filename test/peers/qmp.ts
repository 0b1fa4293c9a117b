// QEMU's machine protocol: one JSON object a line; a greeting, then answers in order, with events
// in between.

import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';

export interface QmpEvent {
  event: string;
  data?: Record<string, unknown>;
}

interface Answer {
  return?: unknown;
  error?: { class: string; desc: string };
}

export class Qmp {
  readonly events: QmpEvent[] = [];
  readonly #socket: Socket;
  readonly #waiting: { resolve(value: unknown): void; reject(error: Error): void; what: string }[] =
    [];
  readonly #ready: Promise<unknown>;
  #closed = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    const close = (): void => {
      this.#closed = true;
      for (const { reject, what } of this.#waiting.splice(0)) {
        reject(new Error(`QMP ${what}: QEMU is gone`));
      }
    };
    socket.on('error', close).on('close', close);
    createInterface({ input: socket })
      .on('error', close)
      .on('line', (line) => this.#take(line));
    this.#ready = this.#send('qmp_capabilities');
    this.#ready.catch(() => {});
  }

  /** Runs one command and returns its `return` value; rejects with QEMU's description. */
  async execute(command: string, args?: Record<string, unknown>): Promise<unknown> {
    await this.#ready;
    return this.#send(command, args);
  }

  #send(command: string, args?: Record<string, unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new Error(`QMP ${command}: QEMU is gone`));
      this.#waiting.push({ resolve, reject, what: command });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  #take(line: string): void {
    const message = JSON.parse(line) as Answer & Partial<QmpEvent>;
    if (message.event !== undefined) {
      this.events.push(message as QmpEvent);
    } else if ('return' in message || message.error) {
      const first = this.#waiting.shift();
      if (message.error) first?.reject(new Error(`QMP ${first.what}: ${message.error.desc}`));
      else first?.resolve(message.return);
    }
  }
}
