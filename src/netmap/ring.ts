// A netmap ring as its application holds it: cursors and slots in linear memory (abi/netmap.ts).

import {
  KIND_QUEUE,
  KR_ARMED,
  KR_BAD_SLOTS,
  KR_BUF_COUNT,
  KR_BUF_SIZE,
  KR_BUFS,
  KR_BYTES,
  KR_COPIED,
  KR_DRV,
  KR_EXCESS,
  KR_FD,
  KR_FLAGS,
  KR_FRAMES,
  KR_FULL,
  KR_HDR_LEN,
  KR_HEADER,
  KR_HEADROOM,
  KR_HWCUR,
  KR_HWTAIL,
  KR_KIND,
  KR_LOST,
  KR_PEER,
  KR_RECORDS,
  KR_RING,
  KR_SLOTS,
  KR_STAGE,
  KR_STATE,
  KR_SYNCS,
  KR_WANTED,
  KRF_RX,
  NM_SLOT,
  NMR_CUR,
  NMR_FIRST,
  NMR_HEAD,
  NMR_SLOTS,
  NMR_TAIL,
  NMS_BUF,
  NMS_FLAGS,
  NMS_LEN,
  NMS_OFFSET,
} from '../abi/netmap.ts';
import { roundUp } from '../memory/spans.ts';
import type { BufferMemory } from './memory.ts';
import { NetmapError, type NetmapRing, type RingCounters } from './types.ts';

export interface RingShape {
  direction: 'tx' | 'rx';
  id: number;
  host: boolean;
  slots: number;
  headroom: number;
}

/** What is behind a ring, as KR_ fields; what is left out is 0. */
export interface Behind {
  kind: number;
  /** KIND_QUEUE: driver block. */
  drv?: number;
  fd?: number;
  /** Linear address of the shared header. */
  header?: number;
  headerLength?: number;
  flags?: number;
  /** A pipe's other end. */
  peer?: number;
}

export class Ring implements NetmapRing {
  readonly direction: 'tx' | 'rx';
  readonly id: number;
  readonly host: boolean;
  readonly slots: number;
  readonly bufferSize: number;
  readonly memory: BufferMemory;
  /** Linear address of the kring. */
  readonly kring: number;
  readonly #headroom: number;
  readonly #words: Uint32Array;
  /** Index of the ring's words, and of its first slot's. */
  readonly #at: number;
  readonly #slot: number;
  readonly #first: number;
  readonly #length: number;
  #open = true;

  constructor(memory: BufferMemory, shape: RingShape) {
    const { direction, id, host, slots, headroom } = shape;
    const { control, heap } = memory.home;
    this.memory = memory;
    this.direction = direction;
    this.id = id;
    this.host = host;
    this.slots = slots;
    this.bufferSize = memory.bufferSize;
    this.#headroom = headroom;
    this.#first = memory.first;
    const kring = roundUp(KR_RECORDS + slots * 4, 64);
    this.#length = kring + NMR_FIRST + slots * NM_SLOT;
    const at = heap.take(roundUp(this.#length, 64), 64);
    if (at === undefined) {
      throw new NetmapError('memory', 'no room is left for the state of rings: close a port');
    }
    this.kring = at;
    this.#words = new Uint32Array(control.memory.buffer);
    this.#at = (at + kring) >>> 2;
    this.#slot = (at + kring + NMR_FIRST) >>> 2;
    control.bytes.fill(0, at, at + this.#length);
    let buffers: number[];
    try {
      buffers = memory.takeBuffers(slots);
    } catch (error) {
      heap.give(at, roundUp(this.#length, 64));
      throw error;
    }
    for (const [i, buffer] of buffers.entries()) this.setBuffer(i, buffer);
    this.#set(NMR_SLOTS, slots);
  }

  #set(field: number, value: number): void {
    this.#words[this.#at + (field >> 2)] = value;
  }

  #kset(field: number, value: number): void {
    this.memory.home.control.set(this.kring + field, value);
  }

  kget(field: number): number {
    return this.memory.home.control.get(this.kring + field);
  }

  /** As after opening, on something fresh behind it; a slot that names no buffer gets one. */
  reset(behind: Behind): void {
    const { slots } = this;
    const rx = this.direction === 'rx';
    this.#kset(KR_RING, this.#at * 4);
    this.#kset(KR_KIND, behind.kind);
    this.#kset(KR_SLOTS, slots);
    this.#kset(KR_DRV, behind.drv ?? 0);
    this.#kset(KR_HWCUR, 0);
    this.#kset(KR_HWTAIL, rx ? 0 : slots - 1);
    this.#kset(KR_STAGE, 0);
    this.#kset(KR_WANTED, 0);
    this.#kset(KR_BUFS, this.#first);
    this.#kset(KR_BUF_SIZE, this.bufferSize);
    this.#kset(KR_BUF_COUNT, this.memory.buffers);
    this.#kset(KR_HEADER, behind.header ?? 0);
    this.#kset(KR_HDR_LEN, behind.headerLength ?? 0);
    this.#kset(KR_FLAGS, (behind.flags ?? 0) | (rx ? KRF_RX : 0));
    this.#kset(KR_FD, behind.fd ?? -1);
    this.#kset(KR_PEER, behind.peer ?? 0);
    this.#kset(KR_STATE, 0);
    this.#kset(KR_ARMED, 0);
    this.#kset(KR_EXCESS, 0);
    this.#kset(KR_HEADROOM, this.#headroom);
    this.memory.bytes.fill(0, this.kring + KR_RECORDS, this.kring + KR_RECORDS + slots * 4);
    this.#set(NMR_HEAD, 0);
    this.#set(NMR_CUR, 0);
    this.#set(NMR_TAIL, rx ? 0 : slots - 1);
    for (let i = 0; i < slots; i++) {
      if (this.buffer(i) >= this.memory.buffers) this.setBuffer(i, this.memory.takeBuffers(1)[0]!);
      this.setLength(i, 0);
      this.setOffset(i, this.#headroom);
      this.setFlags(i, 0);
    }
    const { datapath } = this.memory.home;
    // No calls until somebody sleeps: each is a system call for the device.
    datapath.nmDisarm(this.kring);
    if (behind.kind === KIND_QUEUE && rx) datapath.nmStart(this.kring);
  }

  /** Until then its kring is its own. */
  get open(): boolean {
    return this.#open;
  }

  get head(): number {
    return this.#words[this.#at + (NMR_HEAD >> 2)]!;
  }

  set head(i: number) {
    this.#words[this.#at + (NMR_HEAD >> 2)] = i;
  }

  get cur(): number {
    return this.#words[this.#at + (NMR_CUR >> 2)]!;
  }

  set cur(i: number) {
    this.#words[this.#at + (NMR_CUR >> 2)] = i;
  }

  get tail(): number {
    return this.#words[this.#at + (NMR_TAIL >> 2)]!;
  }

  get space(): number {
    const space = this.tail - this.head;
    return space >= 0 ? space : space + this.slots;
  }

  buffer(i: number): number {
    return this.#words[this.#slot + i * 4 + (NMS_BUF >> 2)]!;
  }

  setBuffer(i: number, index: number): void {
    this.#words[this.#slot + i * 4 + (NMS_BUF >> 2)] = index;
  }

  length(i: number): number {
    return this.#words[this.#slot + i * 4 + (NMS_LEN >> 2)]!;
  }

  setLength(i: number, bytes: number): void {
    this.#words[this.#slot + i * 4 + (NMS_LEN >> 2)] = bytes;
  }

  flags(i: number): number {
    return this.#words[this.#slot + i * 4 + (NMS_FLAGS >> 2)]!;
  }

  setFlags(i: number, flags: number): void {
    this.#words[this.#slot + i * 4 + (NMS_FLAGS >> 2)] = flags;
  }

  offset(i: number): number {
    return this.#words[this.#slot + i * 4 + (NMS_OFFSET >> 2)]!;
  }

  setOffset(i: number, bytes: number): void {
    this.#words[this.#slot + i * 4 + (NMS_OFFSET >> 2)] = bytes;
  }

  address(i: number): number {
    return this.#first + this.buffer(i) * this.bufferSize + this.offset(i);
  }

  bytes(i: number): Uint8Array {
    const at = this.address(i);
    return this.memory.bytes.subarray(at, at + this.length(i));
  }

  next(i: number): number {
    return i + 1 === this.slots ? 0 : i + 1;
  }

  get counters(): RingCounters {
    const { control } = this.memory.home;
    const count = (field: number) => control.counter(this.kring + field);
    return {
      frames: count(KR_FRAMES),
      bytes: count(KR_BYTES),
      syncs: count(KR_SYNCS),
      badSlots: count(KR_BAD_SLOTS),
      full: count(KR_FULL),
      copied: count(KR_COPIED),
      lost: count(KR_LOST),
    };
  }

  /** Buffers of all slots. Those that a device held are in them as well once it let go (`restock`). */
  buffersHeld(): number[] {
    return Array.from({ length: this.slots }, (_, i) => this.buffer(i));
  }

  /** The device is gone: `outstanding` are the buffers it had, of an RX ring; they go back into slots. */
  restock(outstanding: readonly number[]): void {
    if (this.direction === 'tx') return;
    // Slots that the device filled, whether shown yet or not, hold theirs; the others' are outstanding.
    const stage = this.kget(KR_STAGE);
    let at = stage;
    for (const buffer of outstanding) {
      this.setBuffer(at, buffer);
      at = this.next(at);
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.memory.reclaim(this.buffersHeld());
    this.memory.home.heap.give(this.kring, roundUp(this.#length, 64));
  }
}
