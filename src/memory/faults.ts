// Pages of guest memory that went away while they were mapped (linux/fault-guard.ts): a bit each, set
// by the thread that found out, looked at by main. A bit stays until its address is somebody else's:
// so long it can be asked whose it was.

import { FAULTS_BASE, FAULTS_SIZE, PAGE } from '../abi/layout.ts';
import type { Control } from './control.ts';

const BITS = 32;
const NONE = new Uint8Array(FAULTS_SIZE);

export class Faults {
  readonly #bytes: Uint8Array<ArrayBufferLike>;
  readonly #words: Int32Array<ArrayBufferLike>;

  constructor(control: Control) {
    this.#bytes = control.bytes.subarray(FAULTS_BASE, FAULTS_BASE + FAULTS_SIZE);
    this.#words = new Int32Array(control.memory.buffer, FAULTS_BASE, FAULTS_SIZE / 4);
  }

  /** Linear addresses of all pages that are marked. */
  pages(): number[] {
    // Asked for each ring that is latched: all but always there is none.
    if (Buffer.compare(this.#bytes, NONE) === 0) return [];
    const found: number[] = [];
    for (let i = 0; i < this.#words.length; i++) {
      const word = Atomics.load(this.#words, i);
      for (let bit = 0; word >>> bit !== 0 && bit < BITS; bit++) {
        if ((word >>> bit) & 1) found.push((i * BITS + bit) * PAGE);
      }
    }
    return found;
  }

  /** Forgets the pages in `length` bytes from linear address `start` on, both multiples of PAGE. */
  clear(start: number, length: number): void {
    const end = (start + length) / PAGE;
    for (let page = start / PAGE; page < end; ) {
      const i = Math.floor(page / BITS);
      const next = Math.min((i + 1) * BITS, end);
      // Handlers on other threads set bits of the same word.
      if (Atomics.load(this.#words, i) !== 0) {
        for (; page < next; page++) Atomics.and(this.#words, i, ~(1 << (page % BITS)));
      }
      page = next;
    }
  }
}
