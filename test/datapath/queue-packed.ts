// The tests' driver of a packed ring (virtio 1.2 §2.8).
//
// Positions are slot | wrap counter << 15. Buffer ids are below the size and in no order, so that nobody
// takes one for a slot; descriptors whose id means nothing hold junk, and so do fields of indirect tables.
//
// What the ring must look like is kept beside it: after used() has taken what came back, any other
// byte that the device changed throws.

import {
  DESC_F_AVAIL,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_USED,
  DESC_F_WRITE,
  EVENT_F_DESC,
  EVENT_F_DISABLE,
  EVENT_F_ENABLE,
  WRAP,
} from '../../src/abi/virtio.ts';
import { random } from './frames.ts';
import { type Descriptor, type Part, type QueueSpec, TestQueue, type Used } from './queue.ts';
import type { TestPort } from './rig.ts';

const LAP = DESC_F_AVAIL | DESC_F_USED;

/** The numbers below `size`, in another order. */
function shuffled(size: number): number[] {
  const next = random(size);
  return Array.from({ length: size }, (_, i) => ({ i, key: next() }))
    .sort((a, b) => a.key - b.key)
    .map(({ i }) => i);
}

/** The position `by` slots after `position`, or before it. */
export function later(position: number, by: number, size: number): number {
  const laps = 2 * size;
  const from = (position & (WRAP - 1)) + (position & WRAP ? 0 : size);
  const to = (((from + by) % laps) + laps) % laps;
  return to < size ? to | WRAP : to - size;
}

/** Whether one of the `count` positions from `from` on is `event`: virtio 1.2 §2.8.10, slot by slot. */
export function passes(event: number, from: number, count: number, size: number): boolean {
  for (let i = 0; i < count; i++) if (later(from, i, size) === event) return true;
  return false;
}

export class PackedQueue extends TestQueue {
  /** Chains in the order in which they were added, from the oldest not taken back. */
  readonly #chains: { id: number; slots: number[] }[] = [];
  readonly #ids: number[];
  /** Head descriptors written but for their flags. */
  readonly #withheld: { slot: number; flags: number }[] = [];
  readonly #image: Buffer;
  #free: number;
  #next: number;
  #used: number;
  #published: number;
  #added = 0;
  #taken = 0;
  #junk = 1;

  constructor(port: TestPort, queue: number, spec: QueueSpec) {
    const { size = 256, start = WRAP } = spec;
    const position = ((start & (WRAP - 1)) % size) | (start & WRAP);
    super(port, queue, spec, [4, 4], position);
    this.#free = size;
    this.#ids = shuffled(size);
    this.#next = this.#used = this.#published = position;
    this.#image = Buffer.alloc(size * 16);
    // As after laps of use: what lies behind was used in this one, what lies ahead in the last.
    const wrap = position & WRAP;
    for (let slot = 0; slot < size; slot++) {
      const used = slot < (position & (WRAP - 1)) ? wrap : wrap ^ WRAP;
      this.descriptor(this.desc + slot * 16, { flags: used ? LAP : 0 });
    }
  }

  override get free(): number {
    return this.#free;
  }

  override descriptor(at: number, descriptor: Descriptor): void {
    const { addr = 0n, len = 0, flags = 0, id = this.#random() } = descriptor;
    this.view.setBigUint64(at, addr, true);
    this.view.setUint32(at + 8, len, true);
    this.view.setUint16(at + 12, id, true);
    this.view.setUint16(at + 14, flags, true);
    const offset = at - this.desc;
    if (offset < 0 || offset >= this.size * 16) return;
    this.#image.set(this.port.rig.bytes.subarray(at, at + 16), offset);
  }

  override add(parts: Part[], inner = parts.length): number {
    const chain = parts.map(({ addr, len, write }, i) => ({
      addr,
      len,
      flags: (write ? DESC_F_WRITE : 0) | (i + 1 < parts.length ? DESC_F_NEXT : 0),
    }));
    if (inner >= parts.length) return chain.length > this.#free ? -1 : this.addRaw(chain);
    if (this.#free === 0) return -1;
    // WRITE is the only flag that means something in a table (virtio 1.2 §2.8.7).
    const meaningless = () => this.#random() & (LAP | DESC_F_NEXT);
    const table = this.table(
      chain.map((one) => ({ ...one, flags: (one.flags & DESC_F_WRITE) | meaningless() })),
    );
    return this.addRaw([
      { addr: this.port.gpa(table), len: chain.length * 16, flags: DESC_F_INDIRECT },
    ]);
  }

  /**
   * Adds a chain of descriptors written as they are, but for the flags that make them available and
   * ids not given. All are one chain, whatever NEXT says.
   */
  override addRaw(descriptors: Descriptor[]): number {
    const last = descriptors[descriptors.length - 1]!;
    const id = last.id ?? this.#ids.shift()!;
    const slots = descriptors.map((_, i) => later(this.#next, i, this.size));
    for (const [i, descriptor] of descriptors.entries()) {
      const position = slots[i]!;
      const lap = position & WRAP ? DESC_F_AVAIL : DESC_F_USED;
      const flags = (descriptor.flags ?? 0) | lap;
      const at = this.at(position);
      const stale = this.view.getUint16(at + 14, true);
      const made = descriptor === last ? { ...descriptor, id } : descriptor;
      this.descriptor(at, { ...made, flags: i === 0 ? stale : flags });
      if (i === 0) this.#withheld.push({ slot: position, flags });
    }
    this.#chains.push({ id, slots });
    this.outstanding.set(id, slots);
    this.#next = later(this.#next, slots.length, this.size);
    this.#free -= slots.length;
    this.#added += slots.length;
    return id;
  }

  /** Linear address of the descriptor at a position. */
  at(position: number): number {
    return this.desc + (position & (WRAP - 1)) * 16;
  }

  /** Where the next chain will begin. */
  get next(): number {
    return this.#next;
  }

  override publish(): boolean {
    for (const { slot, flags } of this.#withheld.splice(0)) this.setFlags(slot, flags);
    const from = this.#published;
    const count = this.#added;
    this.#published = this.#next;
    this.#added = 0;
    const flags = this.view.getUint16(this.usedRing + 2, true);
    if (flags !== EVENT_F_DESC) return flags === EVENT_F_ENABLE;
    return passes(this.view.getUint16(this.usedRing, true), from, count, this.size);
  }

  /** Writes the flags at a position, whatever they were. */
  setFlags(position: number, flags: number): void {
    const at = this.at(position);
    this.view.setUint16(at + 14, flags, true);
    this.#image.writeUInt16LE(flags, at - this.desc + 14);
  }

  /** Slots are taken round the ring anyway. */
  override sortFree(): void {}

  /** Whether the descriptor at a position is used. */
  #isUsed(position: number): boolean {
    const lap = this.view.getUint16(this.at(position) + 14, true) & LAP;
    return lap === (position & WRAP ? LAP : 0);
  }

  override get completed(): number {
    const back = this.#chains.findIndex(({ slots }) => !this.#isUsed(slots[0]!));
    return this.#taken + (back < 0 ? this.#chains.length : back);
  }

  override used(): Used[] {
    const found: Used[] = [];
    while (this.#chains.length > 0 && this.#isUsed(this.#used)) {
      const { id, slots } = this.#chains.shift()!;
      const at = this.at(this.#used);
      const head = this.view.getUint16(at + 12, true);
      const len = this.view.getUint32(at + 8, true);
      const flags = this.view.getUint16(at + 14, true);
      if (head !== id || slots[0] !== this.#used) {
        throw new Error(`ring ${this.index}: used id ${head} at ${this.#used}, expected ${id}`);
      }
      const expected = (this.#used & WRAP ? LAP : 0) | (len > 0 ? DESC_F_WRITE : 0);
      if (flags !== expected) {
        throw new Error(`ring ${this.index}: used flags ${flags}, expected ${expected}`);
      }
      // The device may write id, len and flags, here and nowhere else.
      this.#image.writeUInt32LE(len, at - this.desc + 8);
      this.#image.writeUInt16LE(id, at - this.desc + 12);
      this.#image.writeUInt16LE(flags, at - this.desc + 14);
      this.outstanding.delete(id);
      this.#ids.push(id);
      this.#free += slots.length;
      this.#used = later(this.#used, slots.length, this.size);
      this.#taken++;
      found.push({ head, len });
    }
    this.checkUntouched();
    return found;
  }

  /** Throws when the device wrote anything to the ring but what used() took. */
  checkUntouched(): void {
    const { buffer, byteOffset } = this.port.rig.bytes;
    const now = Buffer.from(buffer, byteOffset + this.desc, this.size * 16);
    if (now.equals(this.#image)) return;
    const where = now.findIndex((byte, i) => byte !== this.#image[i]);
    throw new Error(`ring ${this.index}: byte ${where % 16} of slot ${where >> 4} written`);
  }

  override position(by: number): number {
    return later(this.#used, by, this.size);
  }

  override askCall(on: boolean, event?: number): void {
    if (on && this.eventIdx) this.ask(EVENT_F_DESC, event ?? this.#used);
    else this.ask(on ? EVENT_F_ENABLE : EVENT_F_DISABLE, 0);
  }

  /** Writes the driver event area. */
  ask(flags: number, offWrap: number): void {
    this.view.setUint16(this.avail, offWrap, true);
    this.view.setUint16(this.avail + 2, flags, true);
  }

  #random(): number {
    this.#junk = (Math.imul(this.#junk, 1664525) + 1013904223) >>> 0;
    return this.#junk >>> 16;
  }
}
