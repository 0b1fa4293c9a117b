// Valid chains: frames to send from where they lie in guest memory, and buffers to receive into.

import { HDR_LEN } from '../../src/abi/virtio.ts';
import type { TestPort } from '../../test/datapath/rig.ts';
import type { Memory } from '../memory.ts';
import type { Random } from '../random.ts';
import { FRAMES, type GuestMemory, LARGE, ODD, type Range, TABLES } from './guest-memory.ts';
import { type HostileRing, Parts, Places } from './hostile-ring.ts';
import { HOSTILE, LONG } from './samples.ts';

const SHORT = HOSTILE.length - LONG;
const COPIES = 3;
const SLAB = 0x800;
const LONG_SLAB = 0x11000;
/** Of TABLES; before them ends the frame that begins at the end of FRAMES. */
const TABLE_AT = 0x800;
const TABLE = 128;
/** More than a round posts. */
const TABLE_COUNT = 480;
const ENTRIES = TABLE / 16;
// Of LARGE, behind the long frames.
const LONG_TABLE = LONG * LONG_SLAB;
const LONG_ENTRIES = 1024;
const RX_TABLE = LONG_TABLE + LONG_ENTRIES * 16;
const BUFFERS_AT = 0x50000;
const STRADDLE = 0x300;
const LENGTHS = [1, 12, 16, 64, 128, 256, 1526, 2048, 2048, 2048, 4096];

/** A frame in guest memory: its virtio header ends, and its bytes begin, HDR_LEN behind this. */
interface Slab {
  linear: number;
  lo: number;
  hi: number;
  sample: number;
}

export class Poster {
  readonly #memory: Memory;
  readonly #random: Random;
  readonly #guest: GuestMemory;
  readonly #headerLength: number;
  readonly #indirect: boolean;
  readonly #offloads: boolean;
  /** Linear addresses of the virtio headers posted in this round. */
  readonly headers = new Places();
  readonly #slabs: Slab[] = [];
  readonly #parts = new Parts();
  readonly #headerSlots: Range;
  readonly #tables: Range;
  readonly #large: Range;
  #table = 0;
  #slot = 0;
  /** Bytes of the long table as it was written in this round, or 0. */
  #long = 0;
  /** Whether chains of this round repeat it: more segments than a burst has room for. */
  #repeat = false;
  /** The same for what is received into, which is then scattered over two bytes at a time. */
  #scattered = 0;
  #scattering = false;

  constructor(
    port: TestPort,
    memory: Memory,
    guest: GuestMemory,
    random: Random,
    how: { indirect: boolean; offloads: boolean },
  ) {
    this.#memory = memory;
    this.#random = random;
    this.#guest = guest;
    this.#headerLength = port.headerLength;
    this.#indirect = how.indirect;
    this.#offloads = how.offloads;
    this.#headerSlots = guest.range(ODD);
    this.#tables = guest.range(TABLES);
    this.#large = guest.range(LARGE);
    const frames = guest.range(FRAMES);
    for (let i = 0; i < SHORT * COPIES; i++) this.#lay(frames, i * SLAB, i % SHORT);
    for (let i = 0; i < LONG; i++) this.#lay(this.#large, i * LONG_SLAB, SHORT + i);
    this.#straddle(frames);
  }

  #lay(range: Range, offset: number, sample: number): void {
    const { header, frame } = HOSTILE[sample]!;
    const linear = range.linear + offset;
    this.#memory.u8.set(header, linear);
    this.#memory.u8.set(frame, linear + HDR_LEN);
    this.#slabs.push({ linear, lo: range.lo + offset, hi: range.hi, sample });
  }

  /** One frame over the end of a region whose GPAs go on in another. */
  #straddle(frames: Range): void {
    const offset = frames.size - STRADDLE;
    const sample = HOSTILE.findIndex(({ frame }) => frame.length === 1514);
    const whole = Buffer.concat([HOSTILE[sample]!.header, HOSTILE[sample]!.frame]);
    this.#memory.u8.set(whole.subarray(0, STRADDLE), frames.linear + offset);
    this.#memory.u8.set(whole.subarray(STRADDLE), this.#tables.linear);
    this.#slabs.push({
      linear: frames.linear + offset,
      lo: frames.lo + offset,
      hi: frames.hi,
      sample,
    });
  }

  begin(): void {
    this.headers.count = 0;
    this.#long = 0;
    this.#repeat = this.#random.once(32);
    this.#scattered = 0;
    this.#scattering = this.#indirect && this.#random.once(64);
  }

  /** Posts one frame; false when the ring has no room. */
  send(ring: HostileRing): boolean {
    const random = this.#random;
    const parts = this.#parts;
    parts.count = 0;
    if (this.#repeat && this.#long > 0 && random.below(8) > 0) {
      const { lo, hi } = this.#large;
      return ring.postTable(parts, lo + LONG_TABLE, hi, this.#long);
    }
    // Long ones are rare: they are much work.
    const slab = random.below(64) === 0 ? random.pick(this.#slabs) : this.#shortSlab();
    const length = HOSTILE[slab.sample]!.frame.length;
    const hdr = this.#headerLength;
    const from = HDR_LEN - hdr;
    let pieces = random.once(2) ? 1 : 1 + random.below(5);
    // There is one long table.
    const many = this.#indirect && this.#long === 0 && (this.#repeat || random.once(512));
    if (many) pieces = LONG_ENTRIES;
    let header = slab.linear + from;
    let left = hdr + length;
    let lo = slab.lo + from;
    if (pieces > 1 && random.once(2)) {
      // The header apart from the frame.
      this.#slot = (this.#slot + 1) & 255;
      header = this.#headerSlots.linear + this.#slot * 16;
      parts.add(this.#headerSlots.lo + this.#slot * 16, this.#headerSlots.hi, hdr);
      left -= hdr;
      lo += hdr;
      pieces--;
    }
    this.#writeHeader(header, slab.sample);
    for (; pieces > 1 && left > 1; pieces--) {
      const part = 1 + random.below(Math.min(left - 1, many ? 2 : 600));
      parts.add(lo, slab.hi, part);
      lo += part;
      left -= part;
    }
    parts.add(lo, slab.hi, left);
    return this.#post(ring, many);
  }

  #shortSlab(): Slab {
    for (;;) {
      const slab = this.#random.pick(this.#slabs);
      if (slab.sample >= SHORT) continue;
      // Mostly what the guest may ask for.
      const [flags, gso] = HOSTILE[slab.sample]!.header;
      if (this.#offloads || (flags === 0 && gso === 0)) return slab;
    }
  }

  #writeHeader(at: number, sample: number): void {
    const { header } = HOSTILE[sample]!;
    const { u8 } = this.#memory;
    // One that was not negotiated is refused; sent all the same, now and then.
    const plain = !this.#offloads;
    for (let i = 0; i < this.#headerLength; i++) u8[at + i] = plain ? 0 : header[i]!;
    this.headers.add(at);
  }

  /** Posts a buffer in very many pieces: a table, the same one over and over. */
  #scatter(ring: HostileRing): boolean {
    const parts = this.#parts;
    const { linear, lo, hi } = this.#large;
    if (this.#scattered > 0) return ring.postTable(parts, lo + RX_TABLE, hi, this.#scattered);
    parts.count = 0;
    for (let i = 0; i < LONG_ENTRIES; i++) parts.add(lo + BUFFERS_AT + i * 2, hi, 2);
    this.#scattered = LONG_ENTRIES * 16;
    return ring.post(parts, 0, linear + RX_TABLE, lo + RX_TABLE, hi);
  }

  /** Posts one buffer to receive into; false when the ring has no room. */
  receive(ring: HostileRing): boolean {
    const random = this.#random;
    if (this.#scattering) return this.#scatter(ring);
    const parts = this.#parts;
    parts.count = 0;
    const pieces = random.below(4) > 0 ? 1 : 1 + random.below(5);
    for (let i = 0; i < pieces; i++) {
      const length = pieces === 1 ? 2048 : random.pick(LENGTHS);
      const where = random.below(16);
      if (where === 0) {
        const { lo, hi, size } = this.#large;
        parts.add(lo + size - length, hi, length);
      } else if (where === 1 && this.#guest.paged !== undefined) {
        // Also across the border of two pages.
        const { lo, hi } = this.#guest.paged;
        parts.add(lo + random.below(0x8000) - 0x1000, hi, length);
      } else {
        const offset = BUFFERS_AT + random.below(0x2f000 >>> 6) * 64;
        parts.add(this.#large.lo + offset, this.#large.hi, length);
      }
    }
    return this.#post(ring, false);
  }

  #post(ring: HostileRing, many: boolean): boolean {
    const parts = this.#parts;
    const n = parts.count;
    if (many) {
      const { linear, lo, hi } = this.#large;
      this.#long = n * 16;
      return ring.post(parts, 0, linear + LONG_TABLE, lo + LONG_TABLE, hi);
    }
    if (!this.#indirect || this.#random.once(2) || n > ENTRIES) {
      return ring.post(parts, n, 0, 0, 0);
    }
    // A packed ring has no chains that end in a table.
    const inner = ring.packed ? 0 : this.#random.below(n);
    this.#table = (this.#table + 1) % TABLE_COUNT;
    const at = TABLE_AT + this.#table * TABLE;
    return ring.post(parts, inner, this.#tables.linear + at, this.#tables.lo + at, this.#tables.hi);
  }
}
