// A virtqueue of our own, driver side: its place in shared memory, its eventfds, and what a device is
// told of it. datapath/driver.ts runs it.

import {
  DRV_AVAIL,
  DRV_BIAS,
  DRV_DESC,
  DRV_FLAGS,
  DRV_HEAD,
  DRV_HEADS,
  DRV_SIZE,
  DRV_TABLES,
  DRV_USED,
} from '../abi/driver.ts';
import { F_RING_PACKED } from '../abi/virtio.ts';
import { close, eventfd } from '../linux/index.ts';
import { roundUp } from '../memory/spans.ts';
import type { VringAddr } from '../vhost-user/index.ts';
import { has, ringFlags } from '../virtio/features.ts';
import { PACKED_BASE, queueLayout } from '../virtio/queue-layout.ts';
import { BASE, type BufferMemory } from './memory.ts';
import { NetmapError } from './types.ts';

/** Bytes for a header that all frames of the queue share: a cache line of its own. */
const LINE = 64;
/** driver-records.ts: {token u32, link u16, takes u16}. */
const TAKES = 6;

/** What a device is told of a ring: SET_VRING_NUM, _BASE, _ADDR, _KICK, _CALL. */
export interface QueueSetUp {
  size: number;
  base: number;
  addr: VringAddr;
  kickFd: number;
  callFd: number;
}

export class Queue {
  readonly size: number;
  /** Driver block. */
  readonly drv: number;
  /** Linear address of the line for a shared header. */
  readonly header: number;
  /** eventfd that the device waits on, and the one that it signals. */
  readonly kickFd = eventfd();
  readonly callFd = eventfd();
  readonly #memory: BufferMemory;
  readonly #at: number;
  readonly #length: number;
  readonly #block: number;
  #packed = false;

  constructor(memory: BufferMemory, size: number) {
    this.#memory = memory;
    this.size = size;
    // Formats are agreed on later: room for either.
    const end = Math.max(queueLayout(size, false).end, queueLayout(size, true).end);
    this.#length = end + LINE;
    this.#block = roundUp(DRV_HEADS + size * DRV_HEAD, 64);
    try {
      this.#at = memory.takeRing(this.#length);
    } catch (error) {
      this.#closeFds();
      throw error;
    }
    const drv = memory.home.heap.take(this.#block, 64);
    if (drv === undefined) {
      memory.giveRing(this.#at, this.#length);
      this.#closeFds();
      throw new NetmapError('memory', 'no room is left for the state of rings: close a port');
    }
    this.drv = drv;
    this.header = memory.linear + this.#at + end;
  }

  /** A fresh ring under these features. */
  reset(features: bigint): void {
    const { control, datapath } = this.#memory.home;
    const packed = has(features, F_RING_PACKED);
    const parts = queueLayout(this.size, packed);
    const start = this.#memory.linear + this.#at;
    this.#packed = packed;
    control.set(this.drv + DRV_DESC, start + parts.desc);
    control.set(this.drv + DRV_AVAIL, start + parts.avail);
    control.set(this.drv + DRV_USED, start + parts.used);
    control.set(this.drv + DRV_TABLES, start + parts.tables);
    control.set(this.drv + DRV_SIZE, this.size);
    control.set(this.drv + DRV_FLAGS, ringFlags(features));
    control.set64(this.drv + DRV_BIAS, BASE - BigInt(this.#memory.linear));
    control.bytes.fill(0, this.header, this.header + LINE);
    datapath.drvReset(this.drv);
  }

  setUp(): QueueSetUp {
    const parts = queueLayout(this.size, this.#packed);
    const at = BASE + BigInt(this.#at);
    return {
      size: this.size,
      base: this.#packed ? PACKED_BASE : 0,
      addr: {
        flags: 0,
        desc: at + BigInt(parts.desc),
        avail: at + BigInt(parts.avail),
        used: at + BigInt(parts.used),
        logGpa: 0n,
      },
      kickFd: this.kickFd,
      callFd: this.callFd,
    };
  }

  /** Tokens of the chains that the device has. */
  outstanding(): number[] {
    const { control } = this.#memory.home;
    const tokens: number[] = [];
    for (let i = 0; i < this.size; i++) {
      const record = this.drv + DRV_HEADS + i * DRV_HEAD;
      if (control.get16(record + TAKES) !== 0) tokens.push(control.get(record));
    }
    return tokens;
  }

  close(): void {
    this.#closeFds();
    this.#memory.giveRing(this.#at, this.#length);
    this.#memory.home.heap.give(this.drv, this.#block);
  }

  #closeFds(): void {
    close(this.kickFd);
    close(this.callFd);
  }
}
