// A driver written for tests: it can lay out any chain, legal or not, and checks what comes back.
//
// Descriptors are taken from a free list in the order in which they came back, so that chains soon
// lie in no order at all. A used entry that names no outstanding chain throws.

import * as driver from '../../src/abi/driver.ts';
import { DRV_HEAD, DRV_HEADS } from '../../src/abi/driver.ts';
import {
  RING_AVAIL,
  RING_BYTES,
  RING_CALL_FD,
  RING_DESC,
  RING_DROPS,
  RING_FLAGS,
  RING_FRAMES,
  RING_LAST_AVAIL,
  RING_PORT,
  RING_RUNNING,
  RING_SIGNALLED,
  RING_SIZE,
  RING_STATE,
  RING_USED,
  RING_USED_IDX,
  RINGF_PACKED,
} from '../../src/abi/layout.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, WRAP } from '../../src/abi/virtio.ts';
import { ringAddress, ringIndex } from '../../src/memory/control.ts';
import { DROP_NAMES } from '../../src/observe/drops.ts';
import { ringFlags } from '../../src/virtio/features.ts';
import type { TestPort } from './rig.ts';

export interface QueueSpec {
  size?: number;
  /** Index at which avail and used start. */
  start?: number;
  /** RINGF_*; default: from the port's features. */
  flags?: number;
}

/** One buffer of a chain, guest-physical. */
export interface Part {
  addr: bigint;
  len: number;
  write?: boolean;
}

export interface Descriptor {
  addr?: bigint;
  len?: number;
  flags?: number;
  next?: number;
}

export interface Used {
  head: number;
  len: number;
}

export class TestQueue {
  readonly port: TestPort;
  readonly index: number;
  readonly size: number;
  readonly eventIdx: boolean;
  /** Linear addresses. */
  readonly desc: number;
  readonly avail: number;
  readonly usedRing: number;
  /** Chains the device has not given back: head to descriptors. */
  readonly outstanding = new Map<number, number[]>();
  readonly #free: number[];
  readonly #block: number;
  #availIdx: number;
  #lastUsed: number;
  #kicked: number;

  constructor(port: TestPort, queue: number, spec: QueueSpec) {
    const { size = 256, start = 0, flags = ringFlags(port.features) } = spec;
    this.port = port;
    this.size = size;
    this.index = ringIndex(port.index, queue);
    this.eventIdx = (flags & 1) !== 0;
    this.desc = port.alloc(size * 16, 16);
    this.avail = port.alloc(6 + size * 2, 4);
    this.usedRing = port.alloc(6 + size * 8, 4);
    port.rig.bytes.fill(0, this.desc, this.usedRing + 6 + size * 8);
    this.#block = ringAddress(this.index);
    this.#free = Array.from({ length: size }, (_, i) => i);
    this.#availIdx = this.#lastUsed = this.#kicked = start;
    this.view.setUint16(this.avail + 2, start, true);
    this.view.setUint16(this.usedRing + 2, start, true);
    this.set(RING_SIZE, size);
    this.set(RING_DESC, this.desc);
    this.set(RING_AVAIL, this.avail);
    this.set(RING_USED, this.usedRing);
    this.set(RING_FLAGS, flags);
    this.set(RING_PORT, port.index);
    this.set(RING_CALL_FD, 0);
    this.set(RING_LAST_AVAIL, start);
    this.set(RING_USED_IDX, start);
    this.set(RING_SIGNALLED, 0x1_0000);
    this.set(RING_STATE, RING_RUNNING);
  }

  private get view(): DataView {
    return this.port.rig.view;
  }

  get(field: number): number {
    return this.port.rig.control.get(this.#block + field);
  }

  set(field: number, value: number): void {
    this.port.rig.control.set(this.#block + field, value);
  }

  get frames(): number {
    return this.port.rig.control.counter(this.#block + RING_FRAMES);
  }

  get bytes(): number {
    return this.port.rig.control.counter(this.#block + RING_BYTES);
  }

  /** Drop counters that are not zero, by name. */
  get drops(): Record<string, number> {
    const found: Record<string, number> = {};
    for (const [reason, name] of DROP_NAMES.entries()) {
      const n = this.port.rig.control.counter(this.#block + RING_DROPS + reason * 8);
      if (n > 0) found[name] = n;
    }
    return found;
  }

  get dropped(): number {
    return Object.values(this.drops).reduce((sum, n) => sum + n, 0);
  }

  // --- driver ------------------------------------------------------------------------------------

  get free(): number {
    return this.#free.length;
  }

  descriptor(at: number, { addr = 0n, len = 0, flags = 0, next = 0 }: Descriptor): void {
    this.view.setBigUint64(at, addr, true);
    this.view.setUint32(at + 8, len, true);
    this.view.setUint16(at + 12, flags, true);
    this.view.setUint16(at + 14, next, true);
  }

  /** A table of descriptors in this port's memory, linear. */
  table(entries: Descriptor[]): number {
    const at = this.port.alloc(entries.length * 16, 16);
    for (const [i, entry] of entries.entries()) this.descriptor(at + i * 16, entry);
    return at;
  }

  /**
   * Adds a chain; the parts from `inner` on lie in an indirect table. Not visible before publish().
   * Returns the head, or -1 without enough descriptors.
   */
  add(parts: Part[], inner = parts.length): number {
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

  /** Adds a chain of descriptors written as they are, free ones 0, 1, 2... on a fresh ring. */
  addRaw(descriptors: Descriptor[], first = this.#free[0]!): number {
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

  /** Makes what was added visible; true when the device asked for a kick. */
  publish(index = this.#availIdx): boolean {
    this.view.setUint16(this.avail + 2, index, true);
    const old = this.#kicked;
    this.#kicked = index;
    if (!this.eventIdx) return (this.view.getUint16(this.usedRing, true) & 1) === 0;
    const event = this.view.getUint16(this.usedRing + 4 + this.size * 8, true);
    return needEvent(event, index, old);
  }

  /** Descriptors are taken in ascending order again; for chains written as they are. */
  sortFree(): void {
    this.#free.sort((a, b) => a - b);
  }

  get usedIdx(): number {
    return this.view.getUint16(this.usedRing + 2, true);
  }

  /** Takes used entries back; throws on one that names nothing outstanding. */
  used(): Used[] {
    const found: Used[] = [];
    for (; this.#lastUsed !== this.usedIdx; this.#lastUsed = (this.#lastUsed + 1) & 0xffff) {
      const at = this.usedRing + 4 + (this.#lastUsed & (this.size - 1)) * 8;
      const head = this.view.getUint32(at, true);
      const chain = this.outstanding.get(head);
      if (!chain) throw new Error(`ring ${this.index}: used id ${head} is not outstanding`);
      this.outstanding.delete(head);
      this.#free.push(...chain);
      found.push({ head, len: this.view.getUint32(at + 4, true) });
    }
    return found;
  }

  /** Asks for a call at used index `event` (EVENT_IDX), or for calls at all. */
  askCall(on: boolean, event = this.#lastUsed): void {
    if (this.eventIdx) this.view.setUint16(this.avail + 4 + this.size * 2, event, true);
    else this.view.setUint16(this.avail, on ? 0 : 1, true);
  }
}

/** virtio 1.2 §2.7.10. */
export function needEvent(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);
}

/** A block of our own driver (datapath/driver.ts) on the ring of `queue`; of a split one from `start` on. */
export function driverOn(queue: TestQueue, start = 0): number {
  const { rig } = queue.port;
  const drv = rig.heap(DRV_HEADS + queue.size * DRV_HEAD);
  const set = (field: number, value: number) => rig.control.set(drv + field, value);
  const flags = queue.get(RING_FLAGS);
  set(driver.DRV_DESC, queue.desc);
  set(driver.DRV_AVAIL, queue.avail);
  set(driver.DRV_USED, queue.usedRing);
  set(driver.DRV_SIZE, queue.size);
  set(driver.DRV_FLAGS, flags);
  set(driver.DRV_TABLES, queue.port.alloc(queue.size * driver.DRV_TABLE * 16, 16));
  rig.control.set64(drv + driver.DRV_BIAS, BigInt.asUintN(64, queue.port.gpa(0)));
  rig.datapath.drvReset(drv);
  if (flags & RINGF_PACKED) {
    queue.set(RING_LAST_AVAIL, WRAP);
    queue.set(RING_USED_IDX, WRAP);
    return drv;
  }
  for (const field of [
    driver.DRV_AVAIL_IDX,
    driver.DRV_PUBLISHED,
    driver.DRV_LAST_USED,
    driver.DRV_KICKED,
  ]) {
    set(field, start);
  }
  rig.view.setUint16(queue.avail + 2, start, true);
  rig.view.setUint16(queue.usedRing + 2, start, true);
  return drv;
}
