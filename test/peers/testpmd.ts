// DPDK's testpmd, driven through its prompt: as traffic generator (virtio-user front ends), and as
// the reference back end (vhost PMD).

import { rmSync } from 'node:fs';
import { Child, lastLines, waitFor } from './process.ts';
import { boundPath, type TestpmdOptions, testpmdArguments } from './testpmd-options.ts';

export interface PortStats {
  rxPackets: number;
  rxMissed: number;
  rxBytes: number;
  rxErrors: number;
  rxNoMbuf: number;
  txPackets: number;
  txErrors: number;
  txBytes: number;
  /** Packets a second since the previous stats(); 0 in the first. */
  rxPps: number;
  txPps: number;
}

/** What stop() tells of one port since start(). */
export interface ForwardStats {
  rxPackets: number;
  rxDropped: number;
  txPackets: number;
  txDropped: number;
}

const prompt = 'testpmd> ';

export class Testpmd {
  readonly name: string;
  readonly #child: Child;
  #read = 0;

  private constructor(name: string, child: Child) {
    this.name = name;
    this.#child = child;
  }

  /**
   * Starts testpmd and waits for its prompt. A virtio-user client needs its socket to be listening
   * already; a virtio-user server blocks its start until somebody connects.
   */
  static async start(options: TestpmdOptions): Promise<Testpmd> {
    const testpmd = Testpmd.launch(options);
    try {
      await testpmd.#prompt(options.timeoutMs ?? 20_000, 'start');
    } catch (error) {
      await testpmd.kill();
      throw error;
    }
    return testpmd;
  }

  /** Starts testpmd without waiting: for a virtio-user server; then `await started()`. */
  static launch(options: TestpmdOptions): Testpmd {
    // DPDK does not replace a stale socket: its bind fails, and only its log says so.
    for (const path of options.ports.map(boundPath)) if (path) rmSync(path, { force: true });
    // stdbuf: testpmd does not flush its answers into a pipe.
    const child = new Child('stdbuf', ['-oL', 'dpdk-testpmd', ...testpmdArguments(options)]);
    return new Testpmd(options.name, child);
  }

  started(ms = 20_000): Promise<void> {
    return this.#prompt(ms, 'start').then(() => {});
  }

  get pid(): number {
    return this.#child.pid;
  }

  get exited(): Promise<number | string> {
    return this.#child.exited;
  }

  /** Everything it has logged (EAL, vhost and virtio-user messages). */
  get log(): string {
    return this.#child.stderr;
  }

  /** Types a line and returns the answer, up to the next prompt. */
  async cmd(line: string, ms = 10_000): Promise<string> {
    this.#read = this.#child.stdout.length;
    this.#child.write(`${line}\n`);
    const answer = (await this.#prompt(ms, line)).replace(/^.*\r\n/, '');
    if (/^(Command not found|Bad arguments|Ambiguous command)/m.test(answer)) {
      throw new Error(`testpmd ${this.name}: ${line}: ${answer.trim()}`);
    }
    return answer;
  }

  /** Starts forwarding; `tx_first 32` first sends 32 bursts of 32 frames from every port. */
  start(how: '' | 'tx_first' | `tx_first ${number}` = ''): Promise<string> {
    return this.cmd(`start ${how}`.trim());
  }

  /** Stops forwarding; per port what was forwarded since start(). */
  async stop(): Promise<ForwardStats[]> {
    const text = await this.cmd('stop');
    return [...text.matchAll(/Forward statistics for port[\s\S]*?-----\n([\s\S]*?)\n *-----/g)].map(
      ([, part = '']) => ({
        rxPackets: field(part, 'RX-packets'),
        rxDropped: field(part, 'RX-dropped'),
        txPackets: field(part, 'TX-packets'),
        txDropped: field(part, 'TX-dropped'),
      }),
    );
  }

  /** Counters of every port since start or clearStats(), and rates since the last call. */
  async stats(): Promise<PortStats[]> {
    const text = await this.cmd('show port stats all');
    return text
      .split('NIC statistics for port')
      .slice(1)
      .map((part) => ({
        rxPackets: field(part, 'RX-packets'),
        rxMissed: field(part, 'RX-missed'),
        rxBytes: field(part, 'RX-bytes'),
        rxErrors: field(part, 'RX-errors'),
        rxNoMbuf: field(part, 'RX-nombuf'),
        txPackets: field(part, 'TX-packets'),
        txErrors: field(part, 'TX-errors'),
        txBytes: field(part, 'TX-bytes'),
        rxPps: field(part, 'Rx-pps'),
        txPps: field(part, 'Tx-pps'),
      }));
  }

  async clearStats(): Promise<void> {
    await this.cmd('clear port stats all');
  }

  /** Waits until every port's link is up: a vhost port's is once its front end is running. */
  async waitLinkUp(ms = 10_000): Promise<void> {
    let seen = '';
    const up = async (): Promise<boolean> => {
      seen = await this.cmd('show port summary all');
      return !/\bdown\b/i.test(seen);
    };
    await waitFor(up, ms, `testpmd ${this.name}: links up`, () => seen + this.#trouble());
  }

  /** Leaves in good order; kills it after 10 s. */
  async quit(): Promise<void> {
    this.#child.write('quit\n');
    await this.#child.finish(10_000).catch(() => {});
    await this.kill();
  }

  /** SIGKILL, as in a crash. */
  async kill(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
    rmSync(`/var/run/dpdk/${this.name}`, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exit === undefined) await this.quit();
  }

  /** Waits for the next prompt; returns the text before it. */
  async #prompt(ms: number, what: string): Promise<string> {
    let end = -1;
    const prompted = (): boolean => {
      // Link and queue events may be printed behind the prompt.
      end = this.#child.stdout.indexOf(prompt, this.#read);
      if (end >= 0) return true;
      if (this.#child.exit === undefined) return false;
      throw new Error(`testpmd ${this.name}: ${what}: it exited\n${this.#trouble()}`);
    };
    await waitFor(prompted, ms, `testpmd ${this.name}: ${what}`, () => this.#trouble());
    const text = this.#child.stdout.slice(this.#read, end);
    this.#read = end + prompt.length;
    return text;
  }

  #trouble(): string {
    const { exit, stdout, stderr } = this.#child;
    const state = exit === undefined ? 'running' : `exit ${exit}`;
    return `--- testpmd ${this.name} (${state})\n${lastLines(stdout, 15)}\n${lastLines(stderr, 15)}`;
  }
}

function field(text: string, name: string): number {
  return Number(new RegExp(`${name}: *(\\d+)`).exec(text)?.[1] ?? Number.NaN);
}
