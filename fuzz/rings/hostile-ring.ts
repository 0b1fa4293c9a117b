// A ring of the hostile guest: chains written as a valid driver would, fast, and where each field of them
// lies, so that it can be changed before the device looks.

import {
  RING_LAST_AVAIL,
  RING_REASON,
  RING_RUNNING,
  RING_SIGNALLED,
  RING_STATE,
  RING_USED_IDX,
  RINGF_PACKED,
} from '../../src/abi/layout.ts';
import {
  DESC_F_AVAIL,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_USED,
  DESC_F_WRITE,
  WRAP,
} from '../../src/abi/virtio.ts';
import { ringAddress } from '../../src/memory/control.ts';
import type { TestQueue } from '../../test/datapath/queue.ts';
import type { Memory } from '../memory.ts';

export const LAP = DESC_F_AVAIL | DESC_F_USED;
const SLOT = WRAP - 1;

/** Addresses of what was written in a round. */
export class Places {
  readonly at = new Int32Array(1 << 14);
  count = 0;

  add(at: number): void {
    if (this.count < this.at.length) this.at[this.count++] = at;
  }
}

/** The buffers of the chain to be posted next. */
export class Parts {
  readonly lo = new Int32Array(2048);
  readonly hi = new Int32Array(2048);
  readonly length = new Int32Array(2048);
  count = 0;

  add(lo: number, hi: number, length: number): void {
    this.lo[this.count] = lo;
    this.hi[this.count] = hi;
    this.length[this.count++] = length;
  }
}

/** Position `by` slots on in a packed ring. */
export function advance(position: number, by: number, size: number): number {
  const slot = (position & SLOT) + by;
  return slot < size ? slot | (position & WRAP) : (slot - size) | ((position & WRAP) ^ WRAP);
}

export class HostileRing {
  readonly queue: TestQueue;
  readonly packed: boolean;
  readonly size: number;
  readonly block: number;
  /** Descriptors in the ring, and in tables, of the chains posted last. */
  readonly direct = new Places();
  readonly inner = new Places();
  /** Where the next chain goes. */
  next = 0;
  readonly #memory: Memory;
  readonly #writable: number;
  readonly #start: number;
  #free = 0;
  #index = 0;
  #id = 0;

  constructor(queue: TestQueue, memory: Memory, writable: boolean, start: number) {
    this.queue = queue;
    this.#memory = memory;
    this.packed = (queue.flags & RINGF_PACKED) !== 0;
    this.size = queue.size;
    this.block = ringAddress(queue.index);
    this.#writable = writable ? DESC_F_WRITE : 0;
    this.#start = this.packed ? ((start & SLOT) % this.size) | (start & WRAP) : start & 0xffff;
  }

  field(offset: number): number {
    return this.#memory.u32[(this.block + offset) >>> 2]!;
  }

  /** The position up to which the device has taken chains. */
  get taken(): number {
    return this.field(RING_LAST_AVAIL);
  }

  /** As a driver that resets its device: an empty ring. */
  restart(state = RING_RUNNING): void {
    const { u32, u16 } = this.#memory;
    const { desc, avail, usedRing } = this.queue;
    const set = (offset: number, value: number) => {
      u32[(this.block + offset) >>> 2] = value;
    };
    set(RING_REASON, 0);
    set(RING_LAST_AVAIL, this.#start);
    set(RING_USED_IDX, this.#start);
    set(RING_SIGNALLED, 0x1_0000);
    set(RING_STATE, state);
    u32.fill(0, desc >>> 2, (desc + this.size * 16) >>> 2);
    if (this.packed) {
      const wrap = this.#start & WRAP;
      for (let slot = 0; slot < this.size; slot++) {
        const used = slot < (this.#start & SLOT) ? wrap : wrap ^ WRAP;
        u16[(desc + slot * 16 + 14) >>> 1] = used ? LAP : 0;
      }
      u32[avail >>> 2] = 0;
      u32[usedRing >>> 2] = 0;
    } else {
      u16.fill(0, avail >>> 1, (avail + 6 + this.size * 2) >>> 1);
      u16.fill(0, usedRing >>> 1, (usedRing + 6 + this.size * 8) >>> 1);
      u16[(avail + 2) >>> 1] = this.#start;
      u16[(usedRing + 2) >>> 1] = this.#start;
    }
    this.next = this.#start;
    this.begin();
  }

  /** A round begins: what the device has not taken stays posted. */
  begin(): void {
    this.direct.count = 0;
    this.inner.count = 0;
    const { taken, size } = this;
    if (this.packed) {
      const ahead = this.#distance(taken, this.next);
      if (ahead > size) this.next = taken;
      this.#free = ahead > size ? size : size - ahead;
    } else {
      const ahead = (this.next - taken) & 0xffff;
      if (ahead > size) this.next = taken;
      this.#free = ahead > size ? size : size - ahead;
    }
  }

  /** Slots from one position to another that lies less than two laps behind it. */
  #distance(from: number, to: number): number {
    const far = (to & SLOT) - (from & SLOT);
    if ((from ^ to) & WRAP) return far + this.size;
    return far < 0 ? far + 2 * this.size : far;
  }

  get free(): number {
    return this.#free;
  }

  /** Writes a descriptor of this format. */
  #descriptor(at: number, parts: Parts, i: number, flags: number, link: number): void {
    const { u32 } = this.#memory;
    const word = at >>> 2;
    u32[word] = parts.lo[i]!;
    u32[word + 1] = parts.hi[i]!;
    u32[word + 2] = parts.length[i]!;
    u32[word + 3] = this.packed ? link | (flags << 16) : flags | (link << 16);
  }

  /**
   * Posts a chain of `parts`; those from `inner` on lie in a table at `table`, which the guest knows as
   * `tableLo`, `tableHi`. False when the ring has no room for it.
   */
  post(parts: Parts, inner: number, table: number, tableLo: number, tableHi: number): boolean {
    const n = parts.count;
    const slots = inner < n ? inner + 1 : n;
    if (slots > this.#free || slots === 0) return false;
    if (inner < n) {
      for (let i = inner; i < n; i++) {
        const at = table + (i - inner) * 16;
        // A packed ring's tables have no links.
        const flags = this.#writable | (!this.packed && i + 1 < n ? DESC_F_NEXT : 0);
        this.#descriptor(at, parts, i, flags, i + 1 - inner);
        this.inner.add(at);
      }
      parts.lo[inner] = tableLo;
      parts.hi[inner] = tableHi;
      parts.length[inner] = (n - inner) * 16;
    }
    if (this.packed) this.#postPacked(parts, slots, inner < n);
    else this.#postSplit(parts, slots, inner < n);
    this.#free -= slots;
    return true;
  }

  /** Posts a chain that is a table written before, of `length` bytes. */
  postTable(parts: Parts, lo: number, hi: number, length: number): boolean {
    if (this.#free === 0) return false;
    parts.count = 0;
    parts.add(lo, hi, length);
    if (this.packed) this.#postPacked(parts, 1, true);
    else this.#postSplit(parts, 1, true);
    this.#free--;
    return true;
  }

  #postSplit(parts: Parts, slots: number, indirect: boolean): void {
    const mask = this.size - 1;
    const { desc, avail } = this.queue;
    // Not the order of the table: an odd step visits every descriptor.
    let index = this.#index;
    this.#memory.u16[(avail + 4 + (this.next & mask) * 2) >>> 1] = index;
    for (let i = 0; i < slots; i++) {
      const next = (index + 5) & mask;
      const last = i + 1 === slots;
      const flags = last
        ? indirect
          ? DESC_F_INDIRECT
          : this.#writable
        : this.#writable | DESC_F_NEXT;
      this.#descriptor(desc + index * 16, parts, i, flags, next);
      this.direct.add(desc + index * 16);
      index = next;
    }
    this.#index = index;
    this.next = (this.next + 1) & 0xffff;
  }

  #postPacked(parts: Parts, slots: number, indirect: boolean): void {
    const { desc } = this.queue;
    // Below the size, and in no order.
    this.#id = (this.#id + 0x9e35) % this.size;
    for (let i = 0; i < slots; i++) {
      const lap = this.next & WRAP ? DESC_F_AVAIL : DESC_F_USED;
      const last = i + 1 === slots;
      const kind = last && indirect ? DESC_F_INDIRECT : this.#writable;
      const at = desc + (this.next & SLOT) * 16;
      this.#descriptor(at, parts, i, lap | kind | (last ? 0 : DESC_F_NEXT), this.#id);
      this.direct.add(at);
      this.next = advance(this.next, 1, this.size);
    }
  }

  /** Shows what was posted. */
  publish(): void {
    if (!this.packed) this.#memory.u16[(this.queue.avail + 2) >>> 1] = this.next;
  }
}
