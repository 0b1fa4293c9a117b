// Our own driver behind a front end: rings and buffers in a memfd, frames counted as they go and come.
// Single-threaded and polled by the test.

import {
  DRV_AVAIL,
  DRV_BIAS,
  DRV_DESC,
  DRV_ERRORS,
  DRV_FLAGS,
  DRV_HEAD,
  DRV_HEADS,
  DRV_LEN,
  DRV_SIZE,
  DRV_USED,
  SEG_WRITE,
} from '../../src/abi/driver.ts';
import { HEAP_BASE, PAGE } from '../../src/abi/layout.ts';
import {
  DESC_SIZE,
  EVENT_SIZE,
  F_EVENT_IDX,
  F_INDIRECT_DESC,
  F_MQ,
  F_MRG_RXBUF,
  F_RING_PACKED,
  F_VERSION_1,
  HDR_LEN,
  WRAP,
} from '../../src/abi/virtio.ts';
import { close, eventfd, memfd, signal } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { roundUp } from '../../src/memory/spans.ts';
import { type Mapping, Window } from '../../src/memory/window.ts';
import { type FrontendDriver, featureNames, Refusal } from '../../src/vhost-user/index.ts';
import { bit, ringFlags } from '../../src/virtio/features.ts';
import { loadDatapath } from '../../src/worker/datapath.ts';

/** GPA and UVA of the memory: not zero, and not in the first 4 GiB. */
const GPA = 0x1_0000_0000n;
const SIZE = 256;
const BUFFER = 2048;
const HEADER = 14;

export interface Wanted {
  packed: boolean;
  pairs: number;
}

interface Queue {
  drv: number;
  /** Linear address of buffer 0; a token is the number of one. */
  buffers: number;
  free: number[];
  kickFd: number;
}

/** What came in: `sum` is that of the numbers in the frames. */
export interface Received {
  frames: number;
  bytes: number;
  sum: number;
}

export class OwnDriver implements FrontendDriver {
  /** For the sessions to come. */
  wanted: Wanted = { packed: false, pairs: 1 };
  up = false;
  features = 0n;
  /** Reasons of the ends so far, faults with an exclamation mark. */
  readonly ends: string[] = [];
  readonly received: Received[] = [];
  readonly #control = new Control();
  readonly #window = new Window(this.#control);
  readonly #view = new DataView(this.#control.memory.buffer);
  readonly #datapath = loadDatapath(this.#control.memory, { call() {}, latched() {} });
  #queues: Queue[] = [];
  #mapping: Mapping | undefined;
  #fds: number[] = [];

  negotiate(offered: bigint, queuePairs: number) {
    const { packed, pairs } = this.wanted;
    const needed = [F_VERSION_1, ...(packed ? [F_RING_PACKED] : []), ...(pairs > 1 ? [F_MQ] : [])];
    const required = needed.reduce((sum, n) => sum | bit(n), 0n);
    const missing = featureNames(required & ~offered);
    if (missing.length > 0) throw new Refusal(`the back end does not offer ${missing.join(', ')}`);
    if (queuePairs < pairs) throw new Refusal(`the back end has ${queuePairs} queue pairs`);
    const wished = bit(F_MRG_RXBUF) | bit(F_EVENT_IDX) | bit(F_INDIRECT_DESC);
    this.features = required | (wished & offered);
    return { features: this.features, pairs };
  }

  setUp() {
    const { packed, pairs } = this.wanted;
    const avail = SIZE * DESC_SIZE;
    const used = roundUp(avail + (packed ? EVENT_SIZE : 6 + SIZE * 2), 4);
    const queueBytes = roundUp(used + (packed ? EVENT_SIZE : 6 + SIZE * 8), PAGE);
    const stride = queueBytes + SIZE * BUFFER;
    const total = 2 * pairs * stride;
    const fd = memfd('own-driver', total, { seal: true });
    this.#fds.push(fd);
    this.#mapping = this.#window.map(fd, 0, total, PAGE);
    const { linear } = this.#mapping;
    const block = roundUp(DRV_HEADS + SIZE * DRV_HEAD, 64);
    const rings = Array.from({ length: 2 * pairs }, (_, index) => {
      const [drv, at] = [HEAP_BASE + PAGE + index * block, index * stride];
      this.#control.bytes.fill(0, drv, drv + block);
      this.#control.set(drv + DRV_DESC, linear + at);
      this.#control.set(drv + DRV_AVAIL, linear + at + avail);
      this.#control.set(drv + DRV_USED, linear + at + used);
      this.#control.set(drv + DRV_SIZE, SIZE);
      this.#control.set(drv + DRV_FLAGS, ringFlags(this.features));
      this.#control.set64(drv + DRV_BIAS, BigInt.asUintN(64, GPA - BigInt(linear)));
      this.#datapath.drvReset(drv);
      const [kickFd, callFd] = [eventfd(), eventfd()];
      this.#fds.push(kickFd, callFd);
      const free = Array.from({ length: SIZE }, (_, token) => token);
      this.#queues.push({ drv, buffers: linear + at + queueBytes, free, kickFd });
      if (index % 2 === 0) this.#provide(this.#queues[index]!);
      const part = (offset: number) => GPA + BigInt(at + offset);
      const addr = { flags: 0, desc: part(0), avail: part(avail), used: part(used), logGpa: 0n };
      return { size: SIZE, base: packed ? (WRAP | (WRAP << 16)) >>> 0 : 0, addr, kickFd, callFd };
    });
    const none = () => ({ frames: 0, bytes: 0, sum: 0 });
    this.received.splice(0, Number.POSITIVE_INFINITY, ...Array.from({ length: pairs }, none));
    const region = { gpa: GPA, uva: GPA, size: BigInt(total), mmapOffset: 0n, fd };
    return { regions: [region], rings };
  }

  started(): void {
    this.up = true;
  }

  stopped(reason: string, fault: boolean): void {
    this.up = false;
    this.ends.push(fault ? `${reason}!` : reason);
    this.#mapping?.unmap();
    this.#mapping = undefined;
    this.#queues = [];
    for (const fd of this.#fds.splice(0)) close(fd);
  }

  /** Sends a frame of `length` bytes with a number in it; false while the ring is full. */
  send(pair: number, length: number, number: number): boolean {
    const queue = this.#queues[2 * pair + 1]!;
    for (let token = this.#pop(queue); token >= 0; token = this.#pop(queue)) queue.free.push(token);
    const token = queue.free.pop();
    if (token === undefined) return false;
    const at = queue.buffers + token * BUFFER;
    const bytes = this.#control.bytes.subarray(at, at + HDR_LEN + length);
    bytes.fill(0);
    // To one local address from another, of an experimental type.
    bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5], HDR_LEN);
    this.#view.setUint32(at + HDR_LEN + HEADER, number, true);
    this.#add(queue, token, bytes.length);
    this.#publish(queue);
    return true;
  }

  /** Takes what came, and gives the buffers back. */
  poll(): void {
    for (const [pair, received] of this.received.entries()) {
      const queue = this.#queues[2 * pair];
      if (queue === undefined) return;
      for (let token = this.#pop(queue); token >= 0; token = this.#pop(queue)) {
        const at = queue.buffers + token * BUFFER;
        received.frames++;
        received.bytes += this.#control.get(queue.drv + DRV_LEN) - HDR_LEN;
        received.sum += this.#view.getUint32(at + HDR_LEN + HEADER, true);
        queue.free.push(token);
      }
      this.#provide(queue);
    }
  }

  /** Used buffers that named nothing outstanding. */
  get errors(): number {
    return this.#queues.reduce((sum, { drv }) => sum + this.#control.get(drv + DRV_ERRORS), 0);
  }

  #provide(queue: Queue): void {
    for (const token of queue.free.splice(0)) this.#add(queue, token, (BUFFER | SEG_WRITE) >>> 0);
    this.#publish(queue);
  }

  #add(queue: Queue, token: number, length: number): void {
    this.#control.set(HEAP_BASE, queue.buffers + token * BUFFER);
    this.#control.set(HEAP_BASE + 4, length);
    if (this.#datapath.drvAdd(queue.drv, HEAP_BASE, 1, token, 0) < 0) throw new Error('ring full');
  }

  #publish({ drv, kickFd }: Queue): void {
    if (this.#datapath.drvPublish(drv)) signal(kickFd);
  }

  #pop({ drv }: Queue): number {
    return this.#datapath.drvPop(drv);
  }
}
