// What of the control area nobody may write while frames fly: all that main alone writes, blocks of rings,
// ports and workers that are not there, and what lies before and behind.

import {
  PAGE,
  PAGER_BASE,
  PAGER_LOCK,
  RING_BASE,
  RING_LOCK,
  RING_SIZE,
  RING_STRIDE,
  RINGS_PER_PORT,
  SCRATCH_BASE,
  SCRATCH_STRIDE,
  SLOT_STAMPS,
  SWITCH_BASE,
  SWITCH_FDB_COUNT,
  TABLES_BASE,
  WORKER_BASE,
  WORKER_STRIDE,
} from '../../src/abi/layout.ts';
import type { World } from './world.ts';

/** Behind this one's scratch: the next worker's, as much as an overrun would reach first. */
const NEXT = 0x1_0000;

export class ControlArea {
  readonly #buffer: ArrayBuffer;
  readonly #kept: { at: number; bytes: Buffer }[] = [];

  /** Takes note of it as it is now. */
  constructor({ bench }: World) {
    this.#buffer = bench.memory.u8.buffer as ArrayBuffer;
    this.#keep(0, PAGE);
    this.#keep(SWITCH_BASE, SWITCH_FDB_COUNT);
    this.#keep(PAGER_BASE, PAGER_LOCK);
    this.#keep(PAGER_BASE + PAGE, WORKER_BASE);
    // Other workers, ports, regions.
    this.#keep(WORKER_BASE + WORKER_STRIDE, SLOT_STAMPS);
    let from = RING_BASE;
    for (const { index } of bench.rig.ports) {
      for (const ring of [index * RINGS_PER_PORT, index * RINGS_PER_PORT + 1]) {
        const block = RING_BASE + ring * RING_STRIDE;
        if (block > from) this.#keep(from, block);
        this.#keep(block + RING_SIZE, block + RING_LOCK);
        from = block + RING_STRIDE;
      }
    }
    this.#keep(from, from + 16 * PAGE);
    this.#keep(SCRATCH_BASE + SCRATCH_STRIDE, SCRATCH_BASE + SCRATCH_STRIDE + NEXT);
    this.#keep(TABLES_BASE, TABLES_BASE + PAGE);
  }

  #keep(from: number, to: number): void {
    this.#kept.push({ at: from, bytes: Buffer.from(this.#now(from, to - from)) });
  }

  #now(at: number, length: number): Buffer {
    return Buffer.from(this.#buffer, at, length);
  }

  /** Linear address from which on it is not as it was, or -1. */
  changed(): number {
    for (const { at, bytes } of this.#kept) {
      const now = this.#now(at, bytes.length);
      if (!now.equals(bytes)) return at + now.findIndex((byte, i) => byte !== bytes[i]);
    }
    return -1;
  }
}
