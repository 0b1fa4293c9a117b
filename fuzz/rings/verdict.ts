// What must become of every chain in the hostile TX ring, worked out from the ring as it lies there,
// before the device looks: written from the specification and sharing nothing with the datapath.

import * as D from '../../src/abi/drops.ts';
import { MAX_FRAME, MAX_SEGMENTS, MIN_FRAME, RINGF_INDIRECT } from '../../src/abi/layout.ts';
import * as V from '../../src/abi/virtio.ts';
import { has } from '../../src/virtio/features.ts';
import type { Memory } from '../memory.ts';
import type { GuestMemory, Range } from './guest-memory.ts';
import { advance, type HostileRing, LAP } from './hostile-ring.ts';

/** What `chain` returns for a frame that may go on. */
const FINE = -1;
/** Virtio header and the part of the frame that decides. */
const HEAD = V.HDR_LEN + 16;

export class Verdict {
  /** Chains; of these by reason; and bytes of the frames that may go on. */
  chains = 0;
  bytes = 0;
  readonly drops = new Int32Array(D.DROP_REASONS);
  /** Whether the ring can be judged: else it lies over itself, or is to be latched. */
  sure = false;
  readonly #memory: Memory;
  readonly #ring: HostileRing;
  readonly #guest: GuestMemory;
  readonly #features: bigint;
  readonly #headerLength: number;
  readonly #head = new Uint8Array(HEAD);
  /** Copies of tables: what a descriptor is read from. */
  readonly #table = new Int32Array(MAX_SEGMENTS * 4);
  #have = 0;
  #length = 0;
  #absent = false;

  constructor(
    memory: Memory,
    ring: HostileRing,
    guest: GuestMemory,
    features: bigint,
    headerLength: number,
  ) {
    this.#memory = memory;
    this.#ring = ring;
    this.#guest = guest;
    this.#features = features;
    this.#headerLength = headerLength;
  }

  judge(): void {
    this.chains = 0;
    this.bytes = 0;
    this.drops.fill(0);
    this.sure = true;
    if (this.#ring.packed) this.#packed();
    else this.#split();
  }

  #split(): void {
    const { u16 } = this.#memory;
    const { queue, size, taken } = this.#ring;
    const n = (u16[(queue.avail + 2) >>> 1]! - taken) & 0xffff;
    this.sure = n <= size;
    for (let i = 0; this.sure && i < n; i++) {
      const head = u16[(queue.avail + 4) / 2 + ((taken + i) & (size - 1))]!;
      if (head >= size) this.sure = false;
      else this.#count(this.#chain(head, Math.min(size, MAX_SEGMENTS), 1));
    }
  }

  #packed(): void {
    const { u32 } = this.#memory;
    const { queue, size, taken } = this.#ring;
    let position = taken;
    for (let slots = 0; ; ) {
      const slot = position & (V.WRAP - 1);
      const flags = (i: number) => u32[(queue.desc + i * 16 + 12) >>> 2]! >>> 16;
      const available = position & V.WRAP ? V.DESC_F_AVAIL : V.DESC_F_USED;
      if ((flags(slot) & LAP) !== available) return;
      let span = 1;
      while (flags((slot + span - 1) % size) & V.DESC_F_NEXT && span <= size) span++;
      slots += span;
      const id = u32[(queue.desc + ((slot + span - 1) % size) * 16 + 12) >>> 2]! & 0xffff;
      // What was used meanwhile would be looked at again.
      if (slots > size || span > MAX_SEGMENTS || id >= size) {
        this.sure = false;
        return;
      }
      this.#count(this.#chain(slot, span, span));
      position = advance(position, span, size);
    }
  }

  #count(verdict: number): void {
    this.chains++;
    if (verdict === FINE) this.bytes += this.#length;
    else this.drops[verdict]!++;
  }

  /** The reason for which this chain is dropped, or FINE. */
  #chain(head: number, left: number, span: number): number {
    this.#have = 0;
    this.#absent = false;
    this.#length = 0;
    const wrong = this.#walk(head, left, span);
    if (wrong !== FINE) return this.#absent ? D.DROP_TX_PAGING : wrong;
    this.#length -= this.#headerLength;
    if (this.#length < MIN_FRAME) return D.DROP_TX_TOO_SHORT;
    if (this.#length > MAX_FRAME) return D.DROP_TX_TOO_LONG;
    return this.#header() ? FINE : D.DROP_TX_BAD_HEADER;
  }

  #walk(head: number, left: number, span: number): number {
    const { packed, queue, size } = this.#ring;
    let words: Int32Array = this.#memory.u32;
    let base = queue.desc >>> 2;
    let entries = size;
    let table = false;
    for (let i = head; left > 0; ) {
      left--;
      const at = base + i * 4;
      const length = words[at + 2]! >>> 0;
      const last = words[at + 3]!;
      const flags = packed ? last >>> 16 : last & 0xffff;
      if (flags & V.DESC_F_INDIRECT) {
        const chained = packed ? span > 1 : (flags & V.DESC_F_NEXT) !== 0;
        const odd = length === 0 || length % 16 !== 0 || length > MAX_SEGMENTS * 16;
        const known = (queue.flags & RINGF_INDIRECT) !== 0;
        if (table || chained || odd || !known) return D.DROP_TX_BAD_INDIRECT;
        if (!this.#copy(words[at]!, words[at + 1]!, length)) return D.DROP_TX_BAD_ADDRESS;
        [words, base, i, table] = [this.#table, 0, 0, true];
        entries = left = length / 16;
        continue;
      }
      if (flags & V.DESC_F_WRITE) return D.DROP_TX_WRITABLE;
      if (!this.#read(words[at]!, words[at + 1]!, length)) return D.DROP_TX_BAD_ADDRESS;
      this.#length += length;
      if (packed) {
        if (left === 0) return FINE;
        i = (i + 1) % entries;
        continue;
      }
      if ((flags & V.DESC_F_NEXT) === 0) return FINE;
      i = last >>> 16;
      if (i >= entries) break;
    }
    return D.DROP_TX_BAD_CHAIN;
  }

  /** Calls `each` with the linear runs that `length` bytes lie in; false when some are not mapped. */
  #runs(lo: number, hi: number, length: number, each: (at: number, n: number) => void): boolean {
    lo >>>= 0;
    hi >>>= 0;
    while (length > 0) {
      const found = this.#guest.ranges.find((range) => within(range, lo, hi));
      if (found === undefined) {
        const { absent } = this.#guest;
        this.#absent ||= absent !== undefined && within(absent, lo, hi);
        return false;
      }
      const offset = lo - (found.lo >>> 0);
      const part = Math.min(length, found.size - offset);
      each(found.linear + offset, part);
      length -= part;
      lo += part;
      if (lo >= 2 ** 32) {
        lo -= 2 ** 32;
        // Past 2^64 there is nothing.
        if (++hi === 2 ** 32) return length === 0;
      }
    }
    return true;
  }

  /** Notes the first bytes of a chain. */
  #read(lo: number, hi: number, length: number): boolean {
    return this.#runs(lo, hi, length, (at, n) => {
      const { u8 } = this.#memory;
      for (let i = 0; i < n && this.#have < HEAD; i++) this.#head[this.#have++] = u8[at + i]!;
    });
  }

  #copy(lo: number, hi: number, length: number): boolean {
    const { u8 } = this.#memory;
    const to = new Uint8Array(this.#table.buffer);
    let done = 0;
    return this.#runs(lo, hi, length, (at, n) => {
      for (let i = 0; i < n; i++) to[done++] = u8[at + i]!;
    });
  }

  /** Whether the virtio header asks for what it may (virtio 1.2 §5.1.6.2). */
  #header(): boolean {
    const head = this.#head;
    const word = (at: number) => head[at]! | (head[at + 1]! << 8);
    const features = this.#features;
    const needs = (head[V.HDR_FLAGS]! & V.HDR_F_NEEDS_CSUM) !== 0;
    const start = word(V.HDR_CSUM_START);
    const offset = word(V.HDR_CSUM_OFFSET);
    if (needs) {
      if (!has(features, V.F_CSUM) || start < MIN_FRAME) return false;
      if (start + offset + 2 > this.#length) return false;
    }
    const gso = head[V.HDR_GSO_TYPE]!;
    if (gso === V.GSO_NONE) return true;
    const kind = gso & ~V.GSO_ECN;
    const asked = new Map([
      [V.GSO_TCPV4, V.F_HOST_TSO4],
      [V.GSO_TCPV6, V.F_HOST_TSO6],
      [V.GSO_UDP_L4, V.F_HOST_USO],
    ]).get(kind);
    if (asked === undefined || !has(features, asked) || !needs) return false;
    const udp = kind === V.GSO_UDP_L4;
    if (gso & V.GSO_ECN && (udp || !has(features, V.F_HOST_ECN))) return false;
    if (word(V.HDR_GSO_SIZE) === 0 || offset !== (udp ? 6 : 16)) return false;
    if (start + (udp ? 8 : 20) > this.#length) return false;
    const at = this.#headerLength + 12;
    const type = (head[at]! << 8) | head[at + 1]!;
    if (type === 0x8100 || type === 0x88a8) return true;
    return (type === 0x0800 && kind !== V.GSO_TCPV6) || (type === 0x86dd && kind !== V.GSO_TCPV4);
  }
}

function within(range: Range, lo: number, hi: number): boolean {
  return hi === range.hi && lo >= range.lo >>> 0 && lo - (range.lo >>> 0) < range.size;
}
