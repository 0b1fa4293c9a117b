// Sessions that are mostly right: each request fits what the front end has agreed on and set up so far,
// then some are bent. What is always wrong is refused at the door and tests nothing behind it.

import * as vu from '../src/abi/vhost-user.ts';
import { F_PROTOCOL_FEATURES } from '../src/abi/virtio.ts';
import { HANDLERS } from '../src/vhost-user/handlers.ts';
import {
  encodeMessage,
  type PayloadKind,
  type Payloads,
  REQUESTS,
  type RequestId,
} from '../src/vhost-user/index.ts';
import { FD_KINDS, type FdKind, RAM_BYTES, SMALL_BYTES, type Step } from './messages-steps.ts';
import type { Random } from './random.ts';

const UVA = 0x7f00_0000_0000n;
const BORDERS = [
  0n,
  1n,
  2n,
  7n,
  8n,
  0xffn,
  0x100n,
  0xfffn,
  0x1000n,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x1_0000n,
  0x1_0001n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  (1n << 63n) - 1n,
  1n << 63n,
  (1n << 64n) - 0x1000n,
  (1n << 64n) - 1n,
];

const ALL = Object.keys(REQUESTS).map(Number) as RequestId[];
const SUPPORTED = Object.keys(HANDLERS).map(Number) as RequestId[];

interface Shape {
  request: RequestId;
  payload: Uint8Array;
  fds: FdKind[];
}

export interface GeneratorOptions {
  /** Virtio features that the device offers. */
  features: bigint;
  /** Protocol features that it offers. */
  protocol: bigint;
  pairs: number;
}

export class SessionGenerator {
  readonly #random: Random;
  readonly #options: GeneratorOptions;
  readonly #rings: number;
  #packed = false;
  /** The next thing a front end would do, in the order of a start. */
  #stage = 0;

  constructor(random: Random, options: GeneratorOptions) {
    this.#random = random;
    this.#options = options;
    this.#rings = options.pairs * 2;
  }

  next(): Step {
    const random = this.#random;
    const kind = random.below(40);
    if (kind === 0) return { do: 'poll' };
    if (kind === 1) return this.#scribble();
    // A start as a front end makes it, with something else in between.
    const shape = kind < 26 ? this.#onward() : this.#any();
    return this.#send(shape);
  }

  #shape<K extends PayloadKind>(
    request: RequestId,
    kind: K,
    value: Payloads[K],
    fds: FdKind[] = [],
  ): Shape {
    return { request, payload: encodeMessage(request, 1, kind, value).slice(vu.HEADER_SIZE), fds };
  }

  /** The next request of a start: features, memory, a dirty log, then each ring. */
  #onward(): Shape {
    const stage = this.#stage++;
    if (stage === 0) return this.#make(vu.VU_SET_PROTOCOL_FEATURES);
    if (stage === 1) return this.#make(vu.VU_SET_FEATURES);
    if (stage === 2) return this.#make(vu.VU_SET_MEM_TABLE);
    if (stage === 3) return this.#make(vu.VU_SET_LOG_BASE);
    const [ring, part] = [Math.floor((stage - 4) / 6), (stage - 4) % 6];
    if (ring >= this.#rings) {
      this.#stage = this.#random.below(4 + 6 * this.#rings);
      return this.#make(vu.VU_GET_VRING_BASE);
    }
    const requests = [
      vu.VU_SET_VRING_NUM,
      vu.VU_SET_VRING_BASE,
      vu.VU_SET_VRING_ADDR,
      vu.VU_SET_VRING_CALL,
      vu.VU_SET_VRING_KICK,
      vu.VU_SET_VRING_ENABLE,
    ] as const;
    return this.#make(requests[part]!, ring);
  }

  #any(): Shape {
    const random = this.#random;
    return this.#make(random.pick(random.once(16) ? ALL : SUPPORTED));
  }

  #make(request: RequestId, ring = this.#random.below(this.#rings)): Shape {
    const random = this.#random;
    const { features, protocol } = this.#options;
    switch (request) {
      case vu.VU_SET_PROTOCOL_FEATURES: {
        const bits = random.once(40) ? this.#subset(protocol) : protocol;
        return this.#shape(request, 'u64', bits | (1n << BigInt(vu.PF_REPLY_ACK)));
      }
      case vu.VU_SET_FEATURES: {
        const bits = (random.once(3) ? features : this.#subset(features)) | (1n << 32n);
        this.#packed = ((bits >> 34n) & 1n) === 1n;
        const bit30 = random.once(8) ? 0n : 1n << BigInt(F_PROTOCOL_FEATURES);
        return this.#shape(request, 'u64', bits | bit30);
      }
      case vu.VU_SET_MEM_TABLE: {
        const ram = { gpa: 0n, size: BigInt(RAM_BYTES), uva: UVA, mmapOffset: 0n };
        if (random.once(2)) return this.#shape(request, 'table', [ram], ['ram']);
        return this.#shape(request, 'table', [ram, this.#second()], ['ram', 'small']);
      }
      case vu.VU_ADD_MEM_REG:
        return this.#shape(request, 'region', this.#second(), ['small']);
      case vu.VU_REM_MEM_REG:
        return this.#shape(request, 'region', this.#second(), random.once(2) ? ['small'] : []);
      case vu.VU_SET_VRING_NUM: {
        const num = this.#packed && random.once(2) ? 1 + random.below(300) : 1 << random.below(10);
        return this.#shape(request, 'state', { index: ring, num });
      }
      case vu.VU_SET_VRING_BASE: {
        const num = this.#packed ? 0x8000_8000 : random.once(2) ? 0 : random.below(0x10000);
        return this.#shape(request, 'state', { index: ring, num });
      }
      case vu.VU_SET_VRING_ADDR: {
        const at = UVA + BigInt(ring) * 0x2_0000n;
        const parts = { desc: at, avail: at + 0x8000n, used: at + 0x1_0000n };
        const flags = random.once(2) ? vu.VRING_F_LOG : 0;
        const logGpa = random.once(8) ? random.pick(BORDERS) : parts.used - UVA;
        return this.#shape(request, 'addr', { index: ring, flags, logGpa, ...parts });
      }
      case vu.VU_SET_LOG_BASE: {
        const size = random.once(8) ? random.pick(BORDERS) : BigInt(SMALL_BYTES / 2);
        const offset = random.once(8) ? random.pick(BORDERS) : BigInt(random.below(3) * 0x1000);
        return this.#shape(request, 'log', { size, offset }, [random.once(4) ? 'ram' : 'small']);
      }
      case vu.VU_SET_LOG_FD:
        return this.#shape(request, 'none', null, ['event']);
      case vu.VU_GET_VRING_BASE:
        return this.#shape(request, 'state', { index: ring, num: 0 });
      case vu.VU_SET_VRING_ENABLE:
        return this.#shape(request, 'state', { index: ring, num: random.once(4) ? 0 : 1 });
      case vu.VU_SET_VRING_KICK:
      case vu.VU_SET_VRING_CALL:
      case vu.VU_SET_VRING_ERR: {
        const noFd = random.once(6);
        return this.#shape(request, 'ringFd', { index: ring, noFd }, noFd ? [] : ['event']);
      }
      case vu.VU_SET_STATUS:
        return this.#shape(request, 'u64', random.pick([0n, 1n, 3n, 11n, 15n, 0x8fn, 0xffn]));
      case vu.VU_NET_SET_MTU:
        return this.#shape(request, 'u64', random.pick([0n, 67n, 68n, 1500n, 9000n, 65535n]));
      case vu.VU_SEND_RARP:
        return this.#shape(request, 'u64', BigInt(random.next() >>> 0) << 8n);
      default:
        return this.#unknown(request);
    }
  }

  /** A request without a builder of its own: zeros of about the right size. */
  #unknown(request: RequestId): Shape {
    const sizes: Partial<Record<PayloadKind, number>> = {
      none: 0,
      log: 16,
      iotlb: 32,
      inflight: 24,
      config: 12,
      opaque: 8,
      area: 24,
    };
    const rule: { payload: PayloadKind; fds?: string } = REQUESTS[request];
    const fds: FdKind[] = rule.fds === 'one' ? [this.#random.pick(FD_KINDS)] : [];
    return { request, payload: new Uint8Array(sizes[rule.payload] ?? 8), fds };
  }

  #second() {
    const at = BigInt(RAM_BYTES + this.#random.below(4) * SMALL_BYTES);
    return { gpa: at, size: BigInt(SMALL_BYTES), uva: UVA + at, mmapOffset: 0n };
  }

  #subset(bits: bigint): bigint {
    return bits & ((BigInt(this.#random.next() >>> 0) << 32n) | BigInt(this.#random.next() >>> 0));
  }

  #send({ request, payload, fds }: Shape): Step {
    const random = this.#random;
    const bytes = new Uint8Array(vu.HEADER_SIZE + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, request, true);
    view.setUint32(4, vu.VERSION | (random.once(40) ? 0 : vu.FLAG_NEED_REPLY), true);
    view.setUint32(8, payload.length, true);
    bytes.set(payload, vu.HEADER_SIZE);
    let sent: Uint8Array = bytes;
    // One in eight is bent, one in a few of those twice.
    for (let bend = random.once(8); bend; bend = random.once(4)) sent = this.#bend(sent, fds);
    const step: Step = { do: 'send', bytes: Buffer.from(sent).toString('hex') };
    if (fds.length > 0) step.fds = fds;
    if (random.once(20)) step.cut = 1 + random.below(Math.max(1, sent.length - 1));
    return step;
  }

  /** A message with something changed; `fds` in place. */
  #bend(bytes: Uint8Array, fds: FdKind[]): Uint8Array {
    const random = this.#random;
    if (bytes.length < vu.HEADER_SIZE) return bytes;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const fields = (bytes.length - vu.HEADER_SIZE) >> 2;
    // What breaks the stream ends the session: seldom.
    switch (random.once(60) ? random.below(4) : 4 + random.below(20)) {
      case 0: // Cut short, and the session with it: what follows is read as its rest.
        return bytes.slice(0, 1 + random.below(bytes.length));
      case 1: // Longer than it says.
        return Buffer.concat([bytes, new Uint8Array(1 + random.below(40))]);
      case 2:
        view.setUint32(8, random.pick([0, 1, 4096, 4097, 0x7fff_ffff, 0xffff_ffff]), true);
        return bytes;
      case 3:
        view.setUint32(4, random.once(2) ? random.next() >>> 0 : random.below(16), true);
        return bytes;
      case 4: {
        // Another size, and as long as it says.
        const size = random.once(4) ? 4096 : random.below(100);
        const other = new Uint8Array(vu.HEADER_SIZE + size);
        other.set(bytes.subarray(0, other.length));
        new DataView(other.buffer).setUint32(8, size, true);
        return other;
      }
      case 5:
        view.setUint32(0, random.once(2) ? random.below(50) : random.next() >>> 0, true);
        return bytes;
      case 6:
      case 7:
        fds.length = random.once(2) ? 0 : random.below(fds.length + 1);
        return bytes;
      case 8:
      case 9:
        for (let n = random.once(80) ? 40 : 1 + random.below(3); n > 0; n--) {
          fds.push(random.pick(FD_KINDS));
        }
        return bytes;
      case 10:
      case 11:
      case 12:
        if (fds.length > 0) fds[random.below(fds.length)] = random.pick(FD_KINDS);
        return bytes;
      default: {
        if (fields === 0) return bytes;
        const at = vu.HEADER_SIZE + 4 * random.below(fields);
        const wide = at + 8 <= bytes.length && random.once(2);
        const was = wide ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true));
        const near = random.pick([was + 1n, was - 1n, was * 2n, was ^ 0xfffn, was << 16n]);
        const value = random.once(3) ? near : random.pick(BORDERS);
        if (wide) view.setBigUint64(at, BigInt.asUintN(64, value), true);
        else view.setUint32(at, Number(BigInt.asUintN(32, value)), true);
        return bytes;
      }
    }
  }

  /** Something into a ring: an index, a descriptor, flags. */
  #scribble(): Step {
    const random = this.#random;
    const ring = random.below(this.#rings) * 0x2_0000;
    const part = random.pick([0, 0, 0x8000, 0x8000, 0x1_0000]);
    const words = new Uint32Array(1 + random.below(8));
    for (const i of words.keys()) {
      words[i] = random.once(3) ? Number(random.pick(BORDERS) & 0xffff_ffffn) : random.below(64);
    }
    const bytes = Buffer.from(words.buffer).toString('hex');
    return { do: 'write', at: ring + part + 4 * random.below(16), bytes };
  }
}
