// What a round gave back on a hostile ring, held against what lay in it when the device began to look:
// every head in order, none left out, none invented.

import { DESC_F_NEXT, DESC_F_WRITE, WRAP } from '../../src/abi/virtio.ts';
import type { Memory } from '../memory.ts';
import { advance, type HostileRing, LAP } from './hostile-ring.ts';

export class Returned {
  /** Chains, and the bytes their used entries say were written. */
  chains = 0;
  written = 0;
  /** Whether they are known. */
  counted = false;
  readonly #memory: Memory;
  readonly #ring: HostileRing;
  readonly #before: Int32Array;
  #from = 0;

  constructor(memory: Memory, ring: HostileRing) {
    this.#memory = memory;
    this.#ring = ring;
    this.#before = new Int32Array(ring.size * (ring.packed ? 4 : 1));
  }

  /** The device is about to look. */
  begin(): void {
    const { u32, u16 } = this.#memory;
    const { queue, packed, size, taken } = this.#ring;
    this.#from = taken;
    const before = this.#before;
    if (packed) before.set(u32.subarray(queue.desc >>> 2, (queue.desc >>> 2) + size * 4));
    else before.set(u16.subarray((queue.avail + 4) >>> 1, (queue.avail + 4 + size * 2) >>> 1));
  }

  /**
   * What is wrong with what came back, or undefined. `all`: none may be left. `batches`: one entry
   * stands for several. `overwritten`: frames may lie over the ring.
   */
  check(all: boolean, batches: boolean, overwritten: boolean): string | undefined {
    this.chains = 0;
    this.written = 0;
    this.counted = false;
    return this.#ring.packed
      ? this.#packed(all, batches, overwritten)
      : this.#split(all, batches, overwritten);
  }

  #split(all: boolean, batches: boolean, overwritten: boolean): string | undefined {
    const { u32, u16 } = this.#memory;
    const { queue, size, taken } = this.#ring;
    const n = (taken - this.#from) & 0xffff;
    if (n > size) return `${n} chains came back of a ring of ${size}`;
    this.chains = n;
    for (let i = 0; i < n; i++) {
      const head = this.#before[(this.#from + i) & (size - 1)]!;
      if (head >= size) return `head ${head} of a ring of ${size} was taken`;
    }
    if (overwritten) return undefined;
    const idx = u16[(queue.avail + 2) >>> 1]!;
    if (all && idx !== taken) return `heads left: avail index ${idx}, taken ${taken}`;
    const shown = u16[(queue.usedRing + 2) >>> 1]!;
    if (n > 0 && shown !== taken) return `used index ${shown} after ${taken} were taken`;
    if (batches) return undefined;
    for (let i = 0; i < n; i++) {
      const slot = (this.#from + i) & (size - 1);
      const at = (queue.usedRing + 4 + slot * 8) >>> 2;
      const head = this.#before[slot]!;
      if (u32[at] !== head) return `used entry ${slot} names ${u32[at]}, posted was ${head}`;
      this.written += u32[at + 1]!;
    }
    this.counted = true;
    return undefined;
  }

  #packed(all: boolean, batches: boolean, overwritten: boolean): string | undefined {
    const { u32 } = this.#memory;
    const { queue, size, taken } = this.#ring;
    if (overwritten) return undefined;
    const now = queue.desc >>> 2;
    let slots = 0;
    let position = this.#from;
    while (position !== taken) {
      const slot = position & (WRAP - 1);
      const span = this.#span(slot);
      const id = this.#before[((slot + span - 1) % size) * 4 + 3]! & 0xffff;
      if (slots + span <= size && id >= size) return `id ${id} of a ring of ${size} was taken`;
      slots += span;
      // Longer than what was in the ring at first: laid over what came back meanwhile.
      if (slots > size) return undefined;
      this.chains++;
      if (!batches) {
        const wrong = this.#usedAt(now + slot * 4, slot, span, position);
        if (wrong !== undefined) return wrong;
        this.written += u32[now + slot * 4 + 2]!;
      }
      position = advance(position, span, size);
    }
    this.counted = !batches;
    if (!all) return undefined;
    const flags = u32[now + (taken & (WRAP - 1)) * 4 + 3]! >>> 16;
    const available = (flags & LAP) === (taken & WRAP ? 0x80 : 0x8000);
    return available ? `heads left: slot ${taken & (WRAP - 1)} is available` : undefined;
  }

  #span(slot: number): number {
    const { size } = this.#ring;
    let span = 1;
    while (span < size && (this.#before[slot * 4 + 3]! >>> 16) & DESC_F_NEXT) {
      span++;
      slot = slot + 1 < size ? slot + 1 : 0;
    }
    return span;
  }

  #usedAt(at: number, slot: number, span: number, position: number): string | undefined {
    const { u32 } = this.#memory;
    const { size } = this.#ring;
    const last = (slot + span - 1) % size;
    const id = this.#before[last * 4 + 3]! & 0xffff;
    const word = u32[at + 3]!;
    if ((word & 0xffff) !== id) return `slot ${slot} names ${word & 0xffff}, posted was ${id}`;
    const flags = (position & WRAP ? LAP : 0) | (u32[at + 2] !== 0 ? DESC_F_WRITE : 0);
    return word >>> 16 === flags
      ? undefined
      : `slot ${slot} has flags ${word >>> 16}, not ${flags}`;
  }
}
