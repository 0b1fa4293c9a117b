// A loop in the datapath that does not end cannot be left by its own thread: another one watches it.

import { Worker } from 'node:worker_threads';

/** Words that the two threads share. */
const BEATS = 0;
const WHAT = 1;
const WORDS = 4;

export class Watchdog {
  readonly #words = new Int32Array(new SharedArrayBuffer(4 * (WHAT + WORDS)));
  readonly #thread: Worker;

  /**
   * Ends the process, with what was last said to `beat`, when that is not called for `ms`. `told` is what
   * to print: `{0}` and so on are replaced by the numbers.
   */
  constructor(ms: number, told: string) {
    this.#thread = new Worker(new URL('watchdog-thread.ts', import.meta.url), {
      workerData: { words: this.#words.buffer, ms, told },
    });
    this.#thread.unref();
  }

  /** Still alive, and about to do what these numbers say (u32, four at most). */
  beat(...what: number[]): void {
    for (const [i, n] of what.entries()) this.#words[WHAT + i] = n;
    Atomics.add(this.#words, BEATS, 1);
  }

  async stop(): Promise<void> {
    await this.#thread.terminate();
  }
}
