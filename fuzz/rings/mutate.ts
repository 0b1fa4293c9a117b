// One field changed: of a descriptor, a table, the avail ring, what the device writes, or a virtio
// header. Border values first of all.

import { DESC_F_AVAIL, DESC_F_USED } from '../../src/abi/virtio.ts';
import type { Memory } from '../memory.ts';
import type { Random } from '../random.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { HostileRing, Places } from './hostile-ring.ts';

export const FIELDS = [
  'desc addr',
  'desc len',
  'desc flags',
  'desc next/id',
  'table addr',
  'table len',
  'table flags',
  'table next/id',
  'wrap bits',
  'header',
  'avail idx',
  'avail entry',
  'avail flags/used_event',
  'used idx',
  'used entry',
  'used flags/avail_event',
  'driver event',
  'device event',
] as const;
export type Field = (typeof FIELDS)[number];

/** How often each field is changed, of 128; what takes a whole ring along is rare. */
const SHARES: Record<Field, number> = {
  'desc addr': 20,
  'desc len': 20,
  'desc flags': 10,
  'desc next/id': 10,
  'table addr': 10,
  'table len': 10,
  'table flags': 6,
  'table next/id': 6,
  'wrap bits': 2,
  header: 20,
  'avail idx': 1,
  'avail entry': 3,
  'avail flags/used_event': 2,
  'used idx': 1,
  'used entry': 2,
  'used flags/avail_event': 2,
  'driver event': 2,
  'device event': 1,
};
const DRAW = FIELDS.flatMap((field, i) => Array<number>(SHARES[field]).fill(i));
const LENGTHS = Int32Array.of(
  ...[0, 1, 2, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 23, 24, 25, 26, 27, 28, 29, 31, 32, 48, 64],
  ...[160, 255, 256, 272, 1514, 1526, 2048, 4096, 0x3ff0, 0x4000, 0x4010, 0x8000, 0xffff],
  ...[0x10000, 0x10001, 65557, 65569, 65570, 0x20000, 0x80000, 0x1fffff, 0x200000, 0x7fffffff],
  ...[0x80000000, 0xfffff000, 0xfffffff0, 0xfffffff4, 0xffffffff],
);
const NEAR = [-0x10001, -4096, -2048, -64, -17, -16, -13, -12, -2, -1, 0, 1, 2, 12, 16];
const HEADER_WORDS = Uint16Array.of(0, 1, 5, 6, 13, 14, 15, 16, 20, 34, 40, 54, 60, 1448, 0x7fff);
const HEADER_BYTES = Uint8Array.of(0, 1, 2, 3, 4, 5, 0x80, 0x81, 0x84, 0x85, 0xff);

export interface Change {
  field: Field;
  at: number;
  was: number;
  is: number;
}

export class Mutator {
  /** Changes so far. */
  done = 0;
  /** Number of the next change: of the round, and in it. */
  number = 0;
  /** When set, only the changes of these numbers are made. */
  only: ReadonlySet<number> | undefined;
  /** When set, takes note of each change, by number. */
  log: Map<number, Change> | undefined;
  readonly counts = new Float64Array(FIELDS.length);
  readonly #memory: Memory;
  readonly #random: Random;
  readonly #lo: Int32Array;
  readonly #hi: Int32Array;

  constructor(memory: Memory, random: Random, guest: GuestMemory, foreign: readonly bigint[]) {
    this.#memory = memory;
    this.#random = random;
    const top = 1n << 64n;
    const borders = [0n, 1n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 63n, top - 1n, top - 8n, top - 16n];
    for (const { lo, hi, size } of guest.ranges) {
      const start = BigInt(lo) | (BigInt(hi) << 32n);
      for (const edge of [start, start + BigInt(size)]) {
        for (const by of NEAR) borders.push(edge + BigInt(by));
      }
    }
    borders.push(...foreign);
    this.#lo = Int32Array.from(borders, (n) => Number(BigInt.asIntN(32, n)));
    this.#hi = Int32Array.from(borders, (n) => Number(BigInt.asIntN(32, n >> 32n)));
  }

  /** Changes one field of one of the rings, of what was posted in this round. */
  mutate(ring: HostileRing, headers: Places): void {
    const random = this.#random;
    const field = DRAW[random.next() & 127]!;
    if (field < 4) this.#descriptor(ring, ring.direct, field, field);
    else if (field < 8) this.#descriptor(ring, ring.inner, field, field - 4);
    else if (FIELDS[field] === 'wrap bits') this.#wrapBits(ring, field);
    else if (FIELDS[field] === 'header') this.#header(headers, field);
    else if (ring.packed) this.#events(ring);
    else this.#splitRing(ring, field);
  }

  #descriptor(ring: HostileRing, places: Places, field: number, part: number): void {
    if (places.count === 0) return;
    const random = this.#random;
    const at = places.at[random.below(places.count)]!;
    const flags = at + (ring.packed ? 14 : 12);
    if (part === 0) this.#address(field, at);
    else if (part === 1) this.#length(field, at);
    else if (part === 2) this.#flags(field, flags);
    else this.#put16(field, at + (ring.packed ? 12 : 14), this.#index(ring, at));
  }

  #address(field: number, at: number): void {
    const { u32 } = this.#memory;
    const random = this.#random;
    const kind = random.below(8);
    let lo = u32[at >>> 2]!;
    let hi = u32[(at >>> 2) + 1]!;
    if (kind < 5) {
      const border = random.below(this.#lo.length);
      lo = this.#lo[border]!;
      hi = this.#hi[border]!;
    } else if (kind < 7) {
      lo = (lo + (random.below(8192) - 4096)) | 0;
    } else {
      const bit = random.below(64);
      if (bit < 32) lo ^= 1 << bit;
      else hi ^= 1 << (bit - 32);
    }
    if (!this.#may(field, at, lo)) return;
    u32[at >>> 2] = lo;
    u32[(at >>> 2) + 1] = hi;
  }

  #length(field: number, at: number): void {
    const { u32 } = this.#memory;
    const random = this.#random;
    const where = (at + 8) >>> 2;
    const value = random.once(4)
      ? (u32[where]! + random.below(33) - 16) | 0
      : LENGTHS[random.below(LENGTHS.length)]!;
    if (this.#may(field, at + 8, value)) u32[where] = value;
  }

  #flags(field: number, where: number): void {
    const bits = this.#memory.u16[where >>> 1]!;
    const bit = this.#random.below(12);
    // NEXT, WRITE and INDIRECT most of all; the rest mean nothing.
    this.#put16(field, where, bits ^ (bit < 10 ? 1 << (bit % 3) : 1 << this.#random.below(16)));
  }

  /** For `next` or `id`: itself, around the size, any. */
  #index(ring: HostileRing, at: number): number {
    const random = this.#random;
    const own = (at - ring.queue.desc) >>> 4;
    // An id past the size takes the whole ring along: rarely.
    if (ring.packed && random.below(16) > 0) return random.below(ring.size);
    switch (random.below(8)) {
      case 0:
        return own & 0xffff;
      case 1:
        return ring.size - 1 + random.below(3);
      case 2:
        return random.next() & 0xffff;
      case 3:
        return (own - 5) & 0xffff;
      default:
        return random.below(ring.size);
    }
  }

  #wrapBits(ring: HostileRing, field: number): void {
    if (!ring.packed || ring.direct.count === 0) return;
    const random = this.#random;
    const any = ring.queue.desc + random.below(ring.size) * 16;
    const at = random.once(2) ? any : ring.direct.at[random.below(ring.direct.count)]!;
    const flip = random.pick([DESC_F_AVAIL, DESC_F_USED, DESC_F_AVAIL | DESC_F_USED]);
    this.#put16(field, at + 14, this.#memory.u16[(at + 14) >>> 1]! ^ flip);
  }

  #header(headers: Places, field: number): void {
    if (headers.count === 0) return;
    const random = this.#random;
    const at = headers.at[random.below(headers.count)]!;
    const part = random.below(6);
    if (part < 2) {
      const value = HEADER_BYTES[random.below(HEADER_BYTES.length)]!;
      if (this.#may(field, at + part, value)) this.#memory.u8[at + part] = value;
      return;
    }
    const value = random.once(4)
      ? random.next() & 0xffff
      : HEADER_WORDS[random.below(HEADER_WORDS.length)]!;
    // hdr_len, gso_size, csum_start, csum_offset.
    this.#put16(field, at + (part - 1) * 2, value);
  }

  #splitRing(ring: HostileRing, field: number): void {
    const { u16 } = this.#memory;
    const random = this.#random;
    const { avail, usedRing } = ring.queue;
    const any = random.next() & 0xffff;
    // Mostly one that was posted just now.
    const back = random.below(Math.min(ring.size, 64)) + 1;
    const entry = (ring.next - back) & (ring.size - 1);
    const second = random.once(2);
    // A packed ring's event areas are nothing here: flags instead.
    let [at, value] = [avail, any & 1];
    switch (FIELDS[field]) {
      case 'avail idx':
        at = avail + 2;
        value = u16[at >>> 1]!;
        if (second) value--;
        else value += random.once(8) ? any : random.below(2 * ring.size + 3) - ring.size;
        break;
      case 'avail entry':
        at = avail + 4 + entry * 2;
        value = random.once(16) ? ring.size + random.below(3) : random.below(ring.size);
        if (random.once(64)) value = any;
        break;
      case 'avail flags/used_event':
        at = second ? avail : avail + 4 + ring.size * 2;
        value = any;
        break;
      case 'used idx':
        at = usedRing + 2;
        value = any;
        break;
      case 'used entry':
        at = usedRing + 4 + entry * 8 + random.below(4) * 2;
        value = any;
        break;
      case 'used flags/avail_event':
        at = second ? usedRing : usedRing + 4 + ring.size * 8;
        value = any;
    }
    this.#put16(field, at, value);
  }

  #events(ring: HostileRing): void {
    const random = this.#random;
    const device = random.once(3);
    const area = device ? ring.queue.usedRing : ring.queue.avail;
    const value = random.once(2) ? random.below(4) : random.next() & 0xffff;
    const field = FIELDS.indexOf(device ? 'device event' : 'driver event');
    this.#put16(field, area + random.below(2) * 2, value);
  }

  #put16(field: number, at: number, value: number): void {
    if (this.#may(field, at, value & 0xffff)) this.#memory.u16[at >>> 1] = value;
  }

  /** Counts a change; false when it is one of those left out. */
  #may(field: number, at: number, is: number): boolean {
    const number = this.number++;
    this.done++;
    this.counts[field]!++;
    if (this.only !== undefined && !this.only.has(number)) return false;
    if (this.log !== undefined) {
      const was = this.#memory.u16[at >>> 1]!;
      this.log.set(number, { field: FIELDS[field]!, at, was, is });
    }
    return true;
  }
}
