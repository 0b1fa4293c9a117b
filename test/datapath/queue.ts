// The driver of one ring, written for tests: it can lay out any chain, legal or not, and checks what
// comes back. Here is what both formats have in common; queue-split.ts and queue-packed.ts know them.

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
  RING_LOG_DESC,
  RING_LOG_USED,
  RING_PORT,
  RING_RUNNING,
  RING_SIGNALLED,
  RING_SIZE,
  RING_STATE,
  RING_USED,
  RING_USED_IDX,
  RINGF_EVENT_IDX,
  RINGF_LOG,
  RINGF_LOG_RING,
  RINGF_PACKED,
} from '../../src/abi/layout.ts';
import { ringAddress, ringIndex } from '../../src/memory/control.ts';
import { DROP_NAMES } from '../../src/observe/drops.ts';
import { ringFlags } from '../../src/virtio/features.ts';
import type { TestPort } from './rig.ts';

export interface QueueSpec {
  size?: number;
  /**
   * Where the ring starts, 0-0xffff. Split: the index of avail and used. Packed: bit 15 is the wrap
   * counter, the rest the slot, modulo the size. Default: where a fresh ring does.
   */
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
  /** Split only. */
  next?: number;
  /** Packed only; in a chain the last one's counts, the others default to junk. */
  id?: number;
}

export interface Used {
  /** What add() returned. */
  head: number;
  len: number;
}

export abstract class TestQueue {
  readonly port: TestPort;
  readonly index: number;
  readonly size: number;
  readonly flags: number;
  readonly eventIdx: boolean;
  /** The three parts, linear addresses; of a packed ring the latter two are the event areas. */
  readonly desc: number;
  readonly avail: number;
  readonly usedRing: number;
  /** Chains the device has not given back: what add() returned, to descriptors or slots. */
  readonly outstanding = new Map<number, number[]>();
  /** Linear address and length of each part of this driver's rings that the device may write. */
  readonly written: [number, number][];
  /** The same of the buffers posted here; by who posts them. */
  buffers: () => [number, number][] = () => [];
  readonly #block: number;

  /** `availSize` and `usedSize` are bytes; `start` is what the ring block holds. */
  constructor(port: TestPort, queue: number, spec: QueueSpec, parts: number[], start: number) {
    const { size = 256, flags = ringFlags(port.features) } = spec;
    const [availSize, usedSize] = parts as [number, number];
    this.port = port;
    this.size = size;
    this.flags = flags;
    this.index = ringIndex(port.index, queue);
    this.eventIdx = (flags & RINGF_EVENT_IDX) !== 0;
    this.desc = port.alloc(size * 16, 16);
    this.avail = port.alloc(availSize, 4);
    this.usedRing = port.alloc(usedSize, 4);
    this.written = [[this.usedRing, usedSize]];
    if (flags & RINGF_PACKED) this.written.push([this.desc, size * 16]);
    port.rig.bytes.fill(0, this.desc, this.usedRing + usedSize);
    this.#block = ringAddress(this.index);
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

  protected get view(): DataView {
    return this.port.rig.view;
  }

  get(field: number): number {
    return this.port.rig.control.get(this.#block + field);
  }

  set(field: number, value: number): void {
    this.port.rig.control.set(this.#block + field, value);
  }

  /** What is written into buffers and ring is marked in the port's dirty log. */
  keepLog(): void {
    const { port } = this;
    port.rig.control.set64(this.#block + RING_LOG_USED, port.gpa(this.usedRing));
    port.rig.control.set64(this.#block + RING_LOG_DESC, port.gpa(this.desc));
    this.set(RING_FLAGS, this.get(RING_FLAGS) | RINGF_LOG | RINGF_LOG_RING);
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

  /** Descriptors that can be added. */
  abstract get free(): number;

  /** Writes a descriptor of this format at a linear address. */
  abstract descriptor(at: number, descriptor: Descriptor): void;

  /** A table of descriptors in this port's memory, linear. */
  table(entries: Descriptor[]): number {
    const at = this.port.alloc(entries.length * 16, 16);
    for (const [i, entry] of entries.entries()) this.descriptor(at + i * 16, entry);
    return at;
  }

  /**
   * Adds a chain; the parts from `inner` on lie in an indirect table, all of them on a packed ring,
   * which has no chains that end in one. Not visible before publish(). Returns what names it in
   * used(), or -1 without enough descriptors.
   */
  abstract add(parts: Part[], inner?: number): number;

  /** Adds a chain of descriptors written as they are. On a split ring they begin at `first`. */
  abstract addRaw(descriptors: Descriptor[], first?: number): number;

  /** Makes what was added visible; true when the device asked for a kick. */
  abstract publish(): boolean;

  /** Descriptors are taken in ascending order again; for chains written as they are. */
  abstract sortFree(): void;

  /** Chains the device has given back since the start. */
  abstract get completed(): number;

  /** Takes used entries back; throws on one that cannot be. */
  abstract used(): Used[];

  /** The used position `by` entries (packed: slots) after what used() took. */
  abstract position(by: number): number;

  /** Asks for a call at used position `event` (EVENT_IDX), or for calls at all. */
  abstract askCall(on: boolean, event?: number): void;
}

/** A block of our own driver (datapath/driver.ts) on the ring of `queue`; `start`: of a split one. */
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
  // A packed ring is reset to where each begins.
  if (flags & RINGF_PACKED) return drv;
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
