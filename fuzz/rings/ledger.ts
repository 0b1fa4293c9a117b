// Counters of a ring from one look to the next. Whole worlds count to less than 2^31.

import { DROP_REASONS, DROP_RX_BAD_CHAIN } from '../../src/abi/drops.ts';
import {
  RING_BYTES,
  RING_DROPS,
  RING_FRAMES,
  RING_SEGMENTED,
  RING_SEGMENTS,
} from '../../src/abi/layout.ts';
import { ringAddress } from '../../src/memory/control.ts';
import type { Memory } from '../memory.ts';

export class Ledger {
  frames = 0;
  bytes = 0;
  /** All drops, and those of bad receive buffers. */
  dropped = 0;
  bad = 0;
  /** Frames that cutting added. */
  more = 0;
  /** By drop reason. */
  readonly drops = new Int32Array(DROP_REASONS);
  /** Bit by drop reason, of those that were counted. */
  reasons = 0;
  readonly #u32: Int32Array;
  readonly #at: number;
  readonly #seen = new Int32Array(DROP_REASONS + 4);

  constructor(memory: Memory, ring: number) {
    this.#u32 = memory.u32;
    this.#at = ringAddress(ring);
  }

  #since(i: number, field: number): number {
    const now = this.#u32[(this.#at + field) >>> 2]!;
    const by = now - this.#seen[i]!;
    this.#seen[i] = now;
    return by;
  }

  /** What was counted since the last call. */
  look(): void {
    this.dropped = 0;
    this.reasons = 0;
    for (let reason = 0; reason < DROP_REASONS; reason++) {
      const by = this.#since(reason, RING_DROPS + reason * 8);
      this.drops[reason] = by;
      if (by === 0) continue;
      this.dropped += by;
      this.reasons |= 1 << reason;
    }
    this.bad = this.drops[DROP_RX_BAD_CHAIN]!;
    this.frames = this.#since(DROP_REASONS, RING_FRAMES);
    this.bytes = this.#since(DROP_REASONS + 1, RING_BYTES);
    this.more =
      this.#since(DROP_REASONS + 2, RING_SEGMENTS) - this.#since(DROP_REASONS + 3, RING_SEGMENTED);
  }
}
