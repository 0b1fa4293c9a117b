// The tests' driver of a split ring.
//
// Descriptors are taken from a free list in the order in which they came back, so that chains soon
// lie in no order at all.

import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../src/abi/virtio.ts';
import { type Descriptor, type Part, type QueueSpec, TestQueue, type Used } from './queue.ts';
import type { TestPort } from './rig.ts';

export class SplitQueue extends TestQueue {
  readonly #free: number[];
  #availIdx: number;
  #lastUsed: number;
  #kicked: number;
  #taken = 0;

  constructor(port: TestPort, queue: number, spec: QueueSpec) {
    const { size = 256, start = 0 } = spec;
    super(port, queue, spec, [6 + size * 2, 6 + size * 8], start);
    this.#free = Array.from({ length: size }, (_, i) => i);
    this.#availIdx = this.#lastUsed = this.#kicked = start;
    this.view.setUint16(this.avail + 2, start, true);
    this.view.setUint16(this.usedRing + 2, start, true);
  }

  override get free(): number {
    return this.#free.length;
  }

  override descriptor(at: number, { addr = 0n, len = 0, flags = 0, next = 0 }: Descriptor): void {
    this.view.setBigUint64(at, addr, true);
    this.view.setUint32(at + 8, len, true);
    this.view.setUint16(at + 12, flags, true);
    this.view.setUint16(at + 14, next, true);
  }

  override add(parts: Part[], inner = parts.length): number {
    const indirect = inner < parts.length;
    const count = inner + (indirect ? 1 : 0);
    if (count > this.#free.length) return -1;
    const chain = this.#free.splice(0, count);
    for (const [k, id] of chain.entries()) {
      const next = chain[k + 1];
      const flags = next === undefined ? 0 : DESC_F_NEXT;
      if (k < inner) {
        const { addr, len, write } = parts[k]!;
        const writable = write ? DESC_F_WRITE : 0;
        this.descriptor(this.desc + id * 16, { addr, len, flags: flags | writable, next });
      } else {
        const entries = parts.slice(inner).map(({ addr, len, write }, i, all) => ({
          addr,
          len,
          flags: (write ? DESC_F_WRITE : 0) | (i + 1 < all.length ? DESC_F_NEXT : 0),
          next: i + 1,
        }));
        const addr = this.port.gpa(this.table(entries));
        const len = entries.length * 16;
        this.descriptor(this.desc + id * 16, { addr, len, flags: DESC_F_INDIRECT });
      }
    }
    this.post(chain[0]!, chain);
    return chain[0]!;
  }

  override addRaw(descriptors: Descriptor[], first = this.#free[0]!): number {
    const chain = descriptors.map((_, i) => first + i);
    for (const [i, entry] of descriptors.entries()) {
      this.descriptor(this.desc + (first + i) * 16, entry);
    }
    for (const id of chain) this.#free.splice(this.#free.indexOf(id), 1);
    this.post(first, chain);
    return first;
  }

  /** Puts `head` into the avail ring, be it a descriptor or not. */
  post(head: number, chain: number[] = []): void {
    const slot = this.#availIdx & (this.size - 1);
    this.view.setUint16(this.avail + 4 + slot * 2, head, true);
    this.#availIdx = (this.#availIdx + 1) & 0xffff;
    this.outstanding.set(head, chain);
  }

  override publish(index = this.#availIdx): boolean {
    this.view.setUint16(this.avail + 2, index, true);
    const old = this.#kicked;
    this.#kicked = index;
    if (!this.eventIdx) return (this.view.getUint16(this.usedRing, true) & 1) === 0;
    const event = this.view.getUint16(this.usedRing + 4 + this.size * 8, true);
    return needEvent(event, index, old);
  }

  override sortFree(): void {
    this.#free.sort((a, b) => a - b);
  }

  get usedIdx(): number {
    return this.view.getUint16(this.usedRing + 2, true);
  }

  override get completed(): number {
    return this.#taken + ((this.usedIdx - this.#lastUsed) & 0xffff);
  }

  override used(): Used[] {
    const found: Used[] = [];
    for (; this.#lastUsed !== this.usedIdx; this.#lastUsed = this.position(1)) {
      const at = this.usedRing + 4 + (this.#lastUsed & (this.size - 1)) * 8;
      const head = this.view.getUint32(at, true);
      const chain = this.outstanding.get(head);
      if (!chain) throw new Error(`ring ${this.index}: used id ${head} is not outstanding`);
      this.outstanding.delete(head);
      this.#free.push(...chain);
      this.#taken++;
      found.push({ head, len: this.view.getUint32(at + 4, true) });
    }
    return found;
  }

  override position(by: number): number {
    return (this.#lastUsed + by) & 0xffff;
  }

  override askCall(on: boolean, event = this.#lastUsed): void {
    if (this.eventIdx) this.view.setUint16(this.avail + 4 + this.size * 2, event, true);
    else this.view.setUint16(this.avail, on ? 0 : 1, true);
  }
}

/** virtio 1.2 §2.7.10. */
export function needEvent(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);
}
