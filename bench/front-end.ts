// Guests of our own on vhost-user sockets: our driver (datapath/driver.ts) in this process, the device
// in another, whoever's it is.

import * as D from '../src/abi/driver.ts';
import { HEAP_BASE, WINDOW_BASE } from '../src/abi/layout.ts';
import * as vu from '../src/abi/vhost-user.ts';
import * as V from '../src/abi/virtio.ts';
import {
  addressOf,
  close,
  connectUnix,
  EPOLLET,
  EPOLLIN,
  Epoll,
  eventfd,
  memfd,
  mmapFixed,
  recvWithFds,
  sendWithFds,
  signal,
} from '../src/linux/index.ts';
import { Control } from '../src/memory/control.ts';
import { roundUp } from '../src/memory/spans.ts';
import { encodeMessage, type PayloadKind, type Payloads } from '../src/vhost-user/index.ts';
import { bit, headerLength, ringFlags } from '../src/virtio/features.ts';
import { loadDatapath } from '../src/worker/datapath.ts';

/** What its memory is called in /proc/PID/maps of whoever maps it. */
export const MEMORY_NAME = 'vhop-bench-guest';

/** All that the driver can do on split rings, but for offloads. */
const WANTED = [
  V.F_VERSION_1,
  V.F_INDIRECT_DESC,
  V.F_EVENT_IDX,
  V.F_MRG_RXBUF,
  V.F_PROTOCOL_FEATURES,
].reduce((sum, n) => sum | bit(n), 0n);
/** Where its memory begins for itself. */
const UVA = 0x7f00_0000_0000n;
/** Milliseconds for an answer. */
const PATIENCE = 10_000;

// The drivers of a process share one linear memory, with all guests' in it.
const control = new Control();
const datapath = loadDatapath(control.memory, { call() {}, latched() {} });
const memoryAt = addressOf(new Uint8Array(control.memory.buffer, 0, 65536));
let window = WINDOW_BASE;
let heap = HEAP_BASE;

/** All of the linear memory, where buffers lie. */
export const view = new DataView(control.memory.buffer);

export interface FrontEndOptions {
  /** Queue pairs; default 1. */
  pairs?: number;
  /** Entries of a ring, a power of two; default 256. */
  ring?: number;
}

/** A ring and its buffers of BUFFER bytes, one an entry, named 0 and up. */
export class Queue {
  readonly drv: number;
  readonly size: number;
  /** Linear address of the first buffer. */
  readonly buffers: number;
  readonly kickFd = eventfd();
  readonly callFd = eventfd();
  readonly #epoll = new Epoll(1);
  readonly #list: number;

  constructor(drv: number, size: number, buffers: number) {
    this.drv = drv;
    this.size = size;
    this.buffers = buffers;
    this.#list = heap;
    heap += 64;
    this.#epoll.add(this.callFd, EPOLLIN | EPOLLET, 0);
    datapath.drvReset(drv);
    datapath.drvDisarm(drv);
  }

  /** Linear address of a buffer. */
  at(buffer: number): number {
    return this.buffers + buffer * BUFFER;
  }

  /** Puts a buffer into the ring, unseen as yet: `length` bytes to send, or room for a frame. */
  add(buffer: number, length?: number): void {
    control.set(this.#list, this.at(buffer));
    control.set(this.#list + 4, length ?? BUFFER | D.SEG_WRITE);
    datapath.drvAdd(this.drv, this.#list, 1, buffer, 0);
  }

  /** Shows what was added, and kicks if that is wanted. */
  publish(): void {
    if (datapath.drvPublish(this.drv) !== 0) signal(this.kickFd);
  }

  /** A buffer that came back, or -1. */
  pop(): number {
    return datapath.drvPop(this.drv);
  }

  /** Sleeps until called, unless something came back meanwhile; throws after ten seconds. */
  sleep(): void {
    if (datapath.drvArm(this.drv) === 0 && this.#epoll.wait(PATIENCE) === 0) {
      throw new Error('a driver was not called');
    }
    datapath.drvDisarm(this.drv);
  }

  close(): void {
    this.#epoll.close();
    close(this.kickFd);
    close(this.callFd);
  }
}

/** Bytes of a buffer: a full frame and its header. */
export const BUFFER = 2048;

/** One port's guest, set up with all its rings running and receive buffers posted. */
export class FrontEnd {
  /** Bytes of the virtio header. */
  readonly headerLength: number;
  /** Receive queues and transmit queues, by pair. */
  readonly rx: Queue[] = [];
  readonly tx: Queue[] = [];
  readonly #fd: number;
  readonly #memory: number;
  readonly #epoll = new Epoll(1);
  readonly #input = Buffer.alloc(4096);

  /** Connects to the back end that listens on `path`. Throws when it does not answer. */
  constructor(path: string, { pairs = 1, ring = 256 }: FrontEndOptions = {}) {
    this.#fd = connectUnix(path);
    this.#epoll.add(this.#fd, EPOLLIN, 0);
    const ringBytes = roundUp(ring * 16 + 6 + ring * 2 + 2 + 6 + ring * 8, 4096);
    const bytes = roundUp(pairs * 2 * (ringBytes + ring * BUFFER), 4096);
    const linear = window;
    window += bytes;
    this.#memory = memfd(MEMORY_NAME, bytes, { seal: true });
    mmapFixed(memoryAt + linear, bytes, this.#memory, 0);

    this.#send(vu.VU_SET_OWNER, 'none', null);
    const features = this.#ask(vu.VU_GET_FEATURES) & WANTED;
    this.headerLength = headerLength(features);
    const protocol = this.#ask(vu.VU_GET_PROTOCOL_FEATURES) & bit(vu.PF_MQ);
    this.#send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', protocol);
    this.#send(vu.VU_SET_FEATURES, 'u64', features);
    const region = { gpa: 0n, size: BigInt(bytes), uva: UVA, mmapOffset: 0n };
    this.#send(vu.VU_SET_MEM_TABLE, 'table', [region], [this.#memory]);
    for (let index = 0; index < pairs * 2; index++) {
      const desc = linear + index * ringBytes;
      const buffers = linear + pairs * 2 * ringBytes + index * ring * BUFFER;
      const avail = desc + ring * 16;
      const used = roundUp(avail + 6 + ring * 2, 4);
      const drv = heap;
      heap += roundUp(D.DRV_HEADS + ring * D.DRV_HEAD, 64);
      control.set(drv + D.DRV_DESC, desc);
      control.set(drv + D.DRV_AVAIL, avail);
      control.set(drv + D.DRV_USED, used);
      control.set(drv + D.DRV_SIZE, ring);
      control.set(drv + D.DRV_FLAGS, ringFlags(features));
      control.set64(drv + D.DRV_BIAS, BigInt.asUintN(64, BigInt(-linear)));
      const queue = new Queue(drv, ring, buffers);
      (index & 1 ? this.tx : this.rx).push(queue);
      const uva = (at: number) => UVA + BigInt(at - linear);
      const parts = { desc: uva(desc), avail: uva(avail), used: uva(used) };
      this.#send(vu.VU_SET_VRING_NUM, 'state', { index, num: ring });
      this.#send(vu.VU_SET_VRING_BASE, 'state', { index, num: 0 });
      this.#send(vu.VU_SET_VRING_ADDR, 'addr', { index, flags: 0, logGpa: 0n, ...parts });
      this.#send(vu.VU_SET_VRING_CALL, 'ringFd', { index, noFd: false }, [queue.callFd]);
      this.#send(vu.VU_SET_VRING_KICK, 'ringFd', { index, noFd: false }, [queue.kickFd]);
      this.#send(vu.VU_SET_VRING_ENABLE, 'state', { index, num: 1 });
    }
    // Answered after all of that was done.
    this.#ask(vu.VU_GET_FEATURES);
    for (const queue of this.rx) {
      for (let buffer = 0; buffer < ring; buffer++) queue.add(buffer);
      queue.publish();
    }
  }

  close(): void {
    this.#epoll.close();
    close(this.#fd);
    close(this.#memory);
    for (const queue of [...this.rx, ...this.tx]) queue.close();
  }

  #send<K extends PayloadKind>(
    request: number,
    payload: K,
    value: Payloads[K],
    fds: number[] = [],
  ): void {
    const bytes = encodeMessage(request, vu.VERSION, payload, value);
    // The socket holds far more than a whole set-up.
    if (sendWithFds(this.#fd, bytes, fds) !== bytes.length) throw new Error('the socket is full');
  }

  /** The u64 that a request is answered with. */
  #ask(request: number): bigint {
    this.#send(request, 'none', null);
    for (let length = 0; length < vu.HEADER_SIZE + 8; ) {
      const got = recvWithFds(this.#fd, this.#input.subarray(length), 0);
      if (got !== 'again') {
        if (got.bytes === 0) throw new Error('the back end hung up');
        length += got.bytes;
      } else if (this.#epoll.wait(PATIENCE) === 0) {
        throw new Error(`no answer to request ${request}`);
      }
    }
    return this.#input.readBigUInt64LE(vu.HEADER_SIZE);
  }
}
