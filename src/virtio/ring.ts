// One virtqueue as the control plane keeps it: what the front end said, and whether it runs.

import {
  BROKEN_AVAIL_JUMP,
  BROKEN_CHAIN,
  BROKEN_HEAD,
  BROKEN_ID,
  BROKEN_NONE,
  BROKEN_TRAP,
  RING_ARMED,
  RING_AVAIL,
  RING_BACKOFF,
  RING_BROKEN,
  RING_CALL_FD,
  RING_DESC,
  RING_DISCARD,
  RING_EMPTY,
  RING_ENOUGH,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_LAST_BURST,
  RING_LOCK,
  RING_NEXT,
  RING_PORT,
  RING_REASON,
  RING_RETRY,
  RING_RUNNING,
  RING_SIGNALLED,
  RING_SINCE,
  RING_SIZE,
  RING_STATE,
  RING_STOPPED,
  RING_USED,
  RING_USED_IDX,
  RING_WORKER,
  RINGF_EVENT_IDX,
  RINGF_LOG,
  RINGF_LOG_RING,
  RINGF_PACKED,
  RINGF_POLLED,
} from '../abi/layout.ts';
import { DESC_SIZE, EVENT_F_DISABLE, EVENT_SIZE, USED_F_NO_NOTIFY } from '../abi/virtio.ts';
import { type Control, ringAddress } from '../memory/control.ts';
import { forgetPosition, resumePosition, savePosition } from './resume.ts';

/** What the worker remembers of a ring's bursts (datapath/patience.ts): nothing at a start. */
const OF_ITS_BURSTS = [
  RING_EMPTY,
  RING_LAST_BURST,
  RING_SINCE,
  RING_ENOUGH,
  RING_RETRY,
  RING_BACKOFF,
];

/**
 * Front-end virtual addresses of the three parts (virtio 1.2 §2.7); of a packed ring the descriptor
 * ring, the driver's event area and the device's (§2.8).
 */
export interface RingParts {
  desc: bigint;
  avail: bigint;
  used: bigint;
}

/** A number for each part: bytes, or a linear address. */
export interface PartNumbers {
  desc: number;
  avail: number;
  used: number;
}

export const BROKEN_REASONS: Record<number, string> = {
  [BROKEN_AVAIL_JUMP]: 'the avail index is further ahead than the ring is long',
  [BROKEN_HEAD]: 'the avail ring names a descriptor outside the table',
  [BROKEN_TRAP]: 'the datapath trapped on it',
  [BROKEN_CHAIN]: 'a chain of descriptors does not end',
  [BROKEN_ID]: 'a packed descriptor names a buffer id outside the ring',
};

export class Ring {
  readonly index: number;
  readonly queue: number;
  readonly #control: Control;
  readonly #at: number;
  size = 0;
  parts: RingParts | undefined;
  base = 0;
  /** GPA at which writes to its used part are logged (SET_VRING_ADDR); undefined: they are not. */
  logAt: bigint | undefined;
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

  set64(field: number, value: bigint): void {
    this.#control.set64(this.#at + field, value);
  }

  /** RINGF_LOG and RINGF_LOG_RING, whether it runs or not. */
  setLogging(flags: number): void {
    this.set(RING_FLAGS, (this.get(RING_FLAGS) & ~(RINGF_LOG | RINGF_LOG_RING)) | flags);
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
  partSizes(packed: boolean): PartNumbers {
    const desc = this.size * DESC_SIZE;
    return packed
      ? { desc, avail: EVENT_SIZE, used: EVENT_SIZE }
      : { desc, avail: 6 + this.size * 2, used: 6 + this.size * 8 };
  }

  /**
   * Publishes addresses and flags, and on a fresh start the position. Split: the used index in
   * memory, which is the front end's base or, where the two differ, knows better (a back end that
   * went away). Packed: the base's low half, unless we know better (resume.ts); all that was taken is
   * used, so the halves are equal.
   */
  load(linear: PartNumbers, port: number, flags: number): void {
    this.set(RING_SIZE, this.size);
    this.set(RING_DESC, linear.desc);
    this.set(RING_AVAIL, linear.avail);
    this.set(RING_USED, linear.used);
    this.set(RING_PORT, port);
    this.set(RING_FLAGS, flags | (this.kickFd < 0 ? RINGF_POLLED : 0));
    if (this.live) return;
    const packed = (flags & RINGF_PACKED) !== 0;
    const position = packed
      ? (resumePosition(this.#control, this.#at) ?? this.base & 0xffff)
      : this.#control.get16(linear.used + 2);
    this.set(RING_NEXT, position);
    this.set(RING_LAST_AVAIL, position);
    this.set(RING_USED_IDX, position);
    this.set(RING_SIGNALLED, 0x1_0000);
    this.set(RING_ARMED, 0);
    for (const field of OF_ITS_BURSTS) this.set(field, 0);
    this.set(RING_LOCK, 0);
    this.set(RING_REASON, BROKEN_NONE);
    this.reported = false;
    // Kicks that nobody waits for; split with EVENT_IDX keeps its stale event.
    if (packed) this.#control.bytes[linear.used + 2] = EVENT_F_DISABLE;
    else if (!(flags & RINGF_EVENT_IDX)) this.#control.bytes[linear.used] = USED_F_NO_NOTIFY;
    this.live = true;
    this.base = this.position;
  }

  /** Its front end has stopped it; the next start takes the indices up anew. Quiesced. */
  stop(): void {
    this.started = false;
    this.live = false;
    this.discards = false;
    this.set(RING_STATE, RING_STOPPED);
  }

  /** Its front end is gone, and with it what that said. Quiesced, descriptors closed. */
  reset(): void {
    this.stop();
    this.size = 0;
    this.parts = undefined;
    this.base = 0;
    this.logAt = undefined;
    this.enabled = false;
  }

  /** Before its front end is gone: where it goes on if the same one comes back. */
  save(): void {
    if (this.live) savePosition(this.#control, this.#at);
  }

  forget(): void {
    forgetPosition(this.#control, this.#at);
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

  get packed(): boolean {
    return (this.get(RING_FLAGS) & RINGF_PACKED) !== 0;
  }

  /** What GET_VRING_BASE answers: the next avail index, or a packed ring's two positions. */
  get position(): number {
    if (!this.live) return this.base;
    const position = this.get(RING_LAST_AVAIL);
    return this.packed ? (position | (position << 16)) >>> 0 : position;
  }
}
