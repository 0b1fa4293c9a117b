// A vhost-user back end for one driver: maps its memory a second time and is the device of its rings, as
// long and as well as the test wants.

import * as vu from '../../src/abi/vhost-user.ts';
import { F_EVENT_IDX, F_IN_ORDER, F_MQ, F_RING_PACKED } from '../../src/abi/virtio.ts';
import { close, signal } from '../../src/linux/index.ts';
import type { Mapping } from '../../src/memory/window.ts';
import {
  CODECS,
  Connection,
  encodeMessage,
  type Message,
  type VringAddr,
} from '../../src/vhost-user/index.ts';
import { bit, has } from '../../src/virtio/features.ts';
import { PackedDevice, type ReferenceDevice, SplitDevice } from '../datapath/reference.ts';
import { BIT30, protocol } from '../vhost-user/scripted.ts';
import { featuresOf, home, TestDevice, view } from './bench.ts';

export interface BackEndOptions {
  /** Offered. Default: all that netmap ports use. */
  features?: bigint;
  pairs?: number;
  /** What it answers to GET_STATUS. */
  status?: bigint;
  /** Hangs up instead of answering this request. */
  leavesAt?: number;
}

const ALL =
  featuresOf({ packed: true, inOrder: true, events: true }) | bit(F_MQ) | bit(0) | bit(1) | bit(11);

export class BackEnd {
  readonly connection: Connection;
  readonly said: number[] = [];
  ended: string | undefined;
  features = 0n;
  readonly #options: BackEndOptions;
  readonly #rings: { size: number; addr?: VringAddr; kick: number; call: number }[] = [];
  readonly #devices = new Map<number, TestDevice>();
  #uva = 0n;
  #mapping: Mapping | undefined;

  constructor(fd: number, options: BackEndOptions = {}) {
    this.#options = options;
    this.connection = new Connection(fd, home.loop, {
      onMessage: (message) => this.#answer(message),
      onClosed: (reason) => {
        this.ended = reason;
      },
    });
  }

  /** As a process that dies. */
  die(): void {
    this.connection.close('it died');
  }

  /** Gives up what it mapped and was sent. */
  release(): void {
    this.die();
    this.#mapping?.unmap();
    this.#mapping = undefined;
    for (const ring of this.#rings.splice(0)) {
      for (const fd of [ring.kick, ring.call]) if (fd >= 0) close(fd);
    }
  }

  call(queue: number): void {
    signal(this.#rings[queue]!.call);
  }

  device(queue: number): TestDevice {
    const made = this.#devices.get(queue) ?? this.#device(queue);
    this.#devices.set(queue, made);
    return made;
  }

  #device(queue: number): TestDevice {
    const { size, addr } = this.#rings[queue]!;
    const linear = (address: bigint) => this.#mapping!.linear + Number(address - this.#uva);
    const { features } = this;
    const shape = {
      size,
      events: has(features, F_EVENT_IDX),
      inOrder: has(features, F_IN_ORDER),
      start: 0,
    };
    const { desc, avail, used } = addr!;
    const parts = { desc: linear(desc), avail: linear(avail), used: linear(used) };
    const ring: ReferenceDevice = has(features, F_RING_PACKED)
      ? new PackedDevice(view, parts, shape, linear)
      : new SplitDevice(view, parts, shape, linear);
    return new TestDevice(ring, linear);
  }

  #ring(index: number) {
    while (this.#rings.length <= index) this.#rings.push({ size: 0, kick: -1, call: -1 });
    return this.#rings[index]!;
  }

  #answer(message: Message): void {
    const { request, flags, payload, fds } = message;
    const { features = ALL, pairs = 1, status = 0x0bn, leavesAt } = this.#options;
    this.said.push(request);
    let word: bigint | undefined;
    if (request === leavesAt) {
      for (const fd of fds.splice(0)) close(fd);
      this.die();
      return;
    }
    switch (request) {
      case vu.VU_GET_FEATURES:
        word = features | BIT30;
        break;
      case vu.VU_GET_PROTOCOL_FEATURES:
        word = protocol(vu.PF_MQ, vu.PF_STATUS);
        break;
      case vu.VU_GET_QUEUE_NUM:
        word = BigInt(pairs);
        break;
      case vu.VU_GET_STATUS:
        word = status;
        break;
      case vu.VU_SET_FEATURES:
        this.features = CODECS.u64.decode(payload);
        break;
      case vu.VU_SET_MEM_TABLE: {
        const [region] = CODECS.table.decode(payload);
        this.#uva = region!.uva;
        this.#mapping = home.window.map(fds[0]!, 0, Number(region!.size), 4096);
        break;
      }
      case vu.VU_SET_VRING_NUM: {
        const { index, num } = CODECS.state.decode(payload);
        this.#ring(index).size = num;
        break;
      }
      case vu.VU_SET_VRING_ADDR: {
        const { index, ...addr } = CODECS.addr.decode(payload);
        this.#ring(index).addr = addr;
        break;
      }
      case vu.VU_SET_VRING_KICK:
      case vu.VU_SET_VRING_CALL: {
        const ring = this.#ring(payload[0]!);
        const name = request === vu.VU_SET_VRING_KICK ? 'kick' : 'call';
        if (ring[name] >= 0) close(ring[name]);
        ring[name] = fds.shift()!;
        break;
      }
      case vu.VU_GET_VRING_BASE:
        this.connection.send(encodeMessage(request, vu.REPLY_FLAGS, 'opaque', payload));
        break;
    }
    for (const fd of fds.splice(0)) close(fd);
    if (flags & vu.FLAG_NEED_REPLY) word ??= 0n;
    if (word !== undefined) {
      this.connection.send(encodeMessage(request, vu.REPLY_FLAGS, 'u64', word));
    }
  }
}
