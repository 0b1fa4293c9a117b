// One virtqueue as the control plane keeps it: what the front end said, and whether it runs.

import {
  BROKEN_AVAIL_JUMP,
  BROKEN_HEAD,
  BROKEN_NONE,
  BROKEN_TRAP,
  RING_ARMED,
  RING_AVAIL,
  RING_BROKEN,
  RING_CALL_FD,
  RING_DESC,
  RING_DISCARD,
  RING_EMPTY,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_LOCK,
  RING_PORT,
  RING_REASON,
  RING_RUNNING,
  RING_SIGNALLED,
  RING_SIZE,
  RING_STATE,
  RING_STOPPED,
  RING_USED,
  RING_USED_IDX,
  RING_WORKER,
  RINGF_EVENT_IDX,
  RINGF_POLLED,
} from '../abi/layout.ts';
import { DESC_SIZE, USED_F_NO_NOTIFY } from '../abi/virtio.ts';
import { type Control, ringAddress } from '../memory/control.ts';

/** Front-end virtual addresses of the three parts (virtio 1.2 §2.7). */
export interface RingParts {
  desc: bigint;
  avail: bigint;
  used: bigint;
}

export const BROKEN_REASONS: Record<number, string> = {
  [BROKEN_AVAIL_JUMP]: 'the avail index is further ahead than the ring is long',
  [BROKEN_HEAD]: 'the avail ring names a descriptor outside the table',
  [BROKEN_TRAP]: 'the datapath trapped on it',
};

export class Ring {
  readonly index: number;
  readonly queue: number;
  readonly #control: Control;
  readonly #at: number;
  size = 0;
  parts: RingParts | undefined;
  base = 0;
  enabled = false;
  /** SET_VRING_KICK came and no GET_VRING_BASE since. */
  started = false;
  /** Indices have been taken up; cleared by a stop, so that the next start reads them anew. */
  live = false;
  /** Disabled for longer than the grace: what the guest sends is consumed and counted. */
  discards = false;
  kickFd = -1;
  callFd = -1;
  errFd = -1;
  /** The latch was reported. */
  reported = false;

  constructor(control: Control, index: number, queue: number) {
    this.#control = control;
    this.index = index;
    this.queue = queue;
    this.#at = ringAddress(index);
  }

  get isTx(): boolean {
    return (this.queue & 1) === 1;
  }

  get(field: number): number {
    return this.#control.get(this.#at + field);
  }

  set(field: number, value: number): void {
    this.#control.set(this.#at + field, value);
  }

  counter(field: number): number {
    return this.#control.counter(this.#at + field);
  }

  get state(): number {
    return this.get(RING_STATE);
  }

  get broken(): string | undefined {
    return this.state === RING_BROKEN ? BROKEN_REASONS[this.get(RING_REASON)] : undefined;
  }

  /** Length in bytes of each part, event fields included. */
  partSizes(): { desc: number; avail: number; used: number } {
    return { desc: this.size * DESC_SIZE, avail: 6 + this.size * 2, used: 6 + this.size * 8 };
  }

  /**
   * Publishes addresses and, on a fresh start, indices: from the base the front end gave, or from
   * the used index in memory where the two differ (a back end that went away knows no better).
   */
  load(linear: { desc: number; avail: number; used: number }, port: number, flags: number): void {
    this.set(RING_SIZE, this.size);
    this.set(RING_DESC, linear.desc);
    this.set(RING_AVAIL, linear.avail);
    this.set(RING_USED, linear.used);
    this.set(RING_PORT, port);
    this.set(RING_FLAGS, flags | (this.kickFd < 0 ? RINGF_POLLED : 0));
    if (this.live) return;
    const used = this.#control.get16(linear.used + 2);
    this.base = used;
    this.set(RING_LAST_AVAIL, used);
    this.set(RING_USED_IDX, used);
    this.set(RING_SIGNALLED, 0x1_0000);
    this.set(RING_ARMED, 0);
    this.set(RING_EMPTY, 0);
    this.set(RING_LOCK, 0);
    this.set(RING_REASON, BROKEN_NONE);
    this.reported = false;
    // Kicks that nobody waits for: EVENT_IDX keeps its stale event.
    if (!(flags & RINGF_EVENT_IDX)) this.#control.bytes[linear.used] = USED_F_NO_NOTIFY;
    this.live = true;
  }

  run(): void {
    this.set(RING_STATE, RING_RUNNING);
  }

  discard(): void {
    this.set(RING_STATE, RING_DISCARD);
  }

  /** Takes the ring from the workers; a latch stays until the next start. Quiesce before more. */
  halt(): void {
    if (this.state !== RING_BROKEN) this.set(RING_STATE, RING_STOPPED);
  }

  setCallFd(fd: number): void {
    this.callFd = fd;
    this.set(RING_CALL_FD, fd);
  }

  setWorker(id: number): void {
    this.set(RING_WORKER, id);
  }

  /** Next avail index: what GET_VRING_BASE answers. */
  get position(): number {
    return this.live ? this.get(RING_LAST_AVAIL) : this.base;
  }
}
