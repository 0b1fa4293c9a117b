// The netmap rings of a virtio-net device: a virtqueue behind each. Whoever connects to the device
// (a vhost-user session, a switch in this process) agrees on features and starts them.

import { KIND_QUEUE, KRF_INDIRECT, KRF_MRG } from '../abi/netmap.ts';
import { F_INDIRECT_DESC, F_MRG_RXBUF } from '../abi/virtio.ts';
import { has, headerLength } from '../virtio/features.ts';
import type { BufferMemory } from './memory.ts';
import { Queue, type QueueSetUp } from './queue.ts';
import { Ring } from './ring.ts';
import { slotCounts } from './slots.ts';
import type { Headers } from './types.ts';

export interface QueueRingsOptions {
  memory: BufferMemory;
  /** Entries of a virtqueue. */
  ringSize: number;
  headers: Headers;
  headroom: number;
  /** The only pair that gets rings; the others' queues stay empty. */
  pair?: number;
}

export class QueueRings {
  /** Pair by pair. */
  rx: Ring[] = [];
  tx: Ring[] = [];
  readonly #options: QueueRingsOptions;
  /** 2k: RX, 2k + 1: TX. */
  readonly #queues: Queue[] = [];

  constructor(options: QueueRingsOptions) {
    this.#options = options;
  }

  /** Fresh queues and rings. True when the rings are others than before: their number or slots changed. */
  reset(features: bigint, pairs: number): boolean {
    const { memory, ringSize, headers, headroom, pair } = this.#options;
    while (this.#queues.length > pairs * 2) this.#queues.pop()!.close();
    while (this.#queues.length < pairs * 2) this.#queues.push(new Queue(memory, ringSize));
    const used = Array.from({ length: pairs }, (_, id) => id).filter(
      (id) => pair === undefined || id === pair,
    );
    const slots = slotCounts(ringSize, features, headers);
    const same =
      this.rx.length === used.length &&
      used.every((id, i) => this.rx[i]!.id === id && this.rx[i]!.slots === slots.rx) &&
      this.tx.every((ring) => ring.slots === slots.tx);
    if (!same) {
      this.#closeRings();
      try {
        for (const id of used) {
          const shape = { id, host: false, headroom };
          this.rx.push(new Ring(memory, { ...shape, direction: 'rx', slots: slots.rx }));
          this.tx.push(new Ring(memory, { ...shape, direction: 'tx', slots: slots.tx }));
        }
      } catch (error) {
        // Nothing of theirs is posted yet: what the queues say of it is old.
        this.#closeRings();
        throw error;
      }
    }
    for (const queue of this.#queues) queue.reset(features);
    const flags =
      (has(features, F_MRG_RXBUF) ? KRF_MRG : 0) |
      (has(features, F_INDIRECT_DESC) ? KRF_INDIRECT : 0);
    for (const ring of [...this.rx, ...this.tx]) {
      const queue = this.queueOf(ring);
      ring.reset({
        kind: KIND_QUEUE,
        drv: queue.drv,
        fd: queue.kickFd,
        header: headers === 'shared' ? queue.header : 0,
        headerLength: headerLength(features),
        flags,
      });
    }
    return !same;
  }

  queueOf(ring: Ring): Queue {
    return this.#queues[ring.id * 2 + (ring.direction === 'tx' ? 1 : 0)]!;
  }

  setUps(): QueueSetUp[] {
    return this.#queues.map((queue) => queue.setUp());
  }

  /** eventfds that the device signals. */
  get callFds(): number[] {
    return [...this.rx, ...this.tx].map((ring) => this.queueOf(ring).callFd);
  }

  /** The device is gone: the buffers it had are the rings' again. */
  restock(): void {
    for (const ring of this.rx) ring.restock(this.queueOf(ring).outstanding());
  }

  #closeRings(): void {
    for (const ring of [...this.rx.splice(0), ...this.tx.splice(0)]) ring.close();
  }

  /** After the device is gone and `restock`. */
  close(): void {
    this.#closeRings();
    for (const queue of this.#queues.splice(0)) queue.close();
  }
}
