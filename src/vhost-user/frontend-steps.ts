// What a front end says, in the order that every back end accepts (DPDK, OVS, VPP, libvhost-user,
// passt). The requests are the steps of a generator: it yields what is to be sent and is resumed with
// what came back. Sockets, time and mistakes of the other side are the session's (frontend-session.ts).

import * as vu from '../abi/vhost-user.ts';
import { F_MTU, F_PROTOCOL_FEATURES } from '../abi/virtio.ts';
import { signal } from '../linux/index.ts';
import { Refusal } from './backend.ts';
import type { FrontendDriver, RingSetUp } from './frontend-driver.ts';
import {
  encodeMessage,
  REQUESTS,
  type ReplyValue,
  type RequestId,
  type RequestRule,
  type RequestValue,
} from './message.ts';
import { featureNames, requestName } from './names.ts';
import type { PayloadKind } from './payload.ts';

export interface Step {
  request: RequestId;
  bytes: Uint8Array;
  /** Sent along; they stay the driver's. */
  fds: number[];
  /** What to wait for. Without it the next step follows at once. */
  reply: PayloadKind | undefined;
}

/** Resumed with the value of each step's reply. Throws Refusal where there is no going on. */
export type Steps<T = void> = Generator<Step, T, unknown>;

const PROTOCOL_FEATURES = 1n << BigInt(F_PROTOCOL_FEATURES);
// Device status (virtio 1.2 §2.1): ACKNOWLEDGE, DRIVER and FEATURES_OK; then DRIVER_OK as well.
const FEATURES_OK = 0x08n;
const NEGOTIATED = 0x0bn;
const RUNNING = 0x0fn;
/** More queue pairs no device has (virtio 1.2 §5.1.4); and so many have numbers in vhost-user. */
const MAX_PAIRS = 0x8000n;
const MAX_USABLE = (vu.VRING_INDEX_MASK + 1) / 2;

const SEE_LOG = 'its log should tell why';

function has(bits: bigint, bit: number): boolean {
  return ((bits >> BigInt(bit)) & 1n) === 1n;
}

export class Dialogue {
  #protocol = 0n;
  #rings = 0;

  /** Sets the back end up for the driver; done when all rings run. */
  *start(driver: FrontendDriver, mtu?: number): Steps {
    yield* this.#tell(vu.VU_SET_OWNER, null);
    const offered = yield* this.#ask(vu.VU_GET_FEATURES, null);
    const extended = offered & PROTOCOL_FEATURES;
    const available = extended === 0n ? 1 : yield* this.#negotiateProtocol(mtu !== undefined);
    const { features, pairs } = driver.negotiate(offered & ~PROTOCOL_FEATURES, available);
    const { regions, rings } = driver.setUp();
    this.#rings = 2 * pairs;

    // DPDK makes its rings as they are named, and wants to know them all before the features.
    for (const [index, { callFd }] of rings.entries()) {
      yield* this.#tellFd(vu.VU_SET_VRING_CALL, index, callFd);
    }
    yield* this.#tell(vu.VU_SET_FEATURES, features | extended);
    yield* this.#checkFeatures(features);
    if (mtu !== undefined && has(this.#protocol, vu.PF_MTU) && has(features, F_MTU)) {
      yield* this.#tell(vu.VU_NET_SET_MTU, BigInt(mtu));
    }
    const fds = regions.map(({ fd }) => fd);
    yield* this.#tell(vu.VU_SET_MEM_TABLE, regions, fds);
    for (const [index, ring] of rings.entries()) {
      yield* this.#startRing(index, ring);
      // Without bit 30 there is no such request, and rings are enabled from the start.
      if (extended) yield* this.#tell(vu.VU_SET_VRING_ENABLE, { index, num: 1 });
    }
    if (has(this.#protocol, vu.PF_STATUS)) yield* this.#tell(vu.VU_SET_STATUS, RUNNING);
    // Who acknowledges nothing answers this, once all before it is done.
    if (!has(this.#protocol, vu.PF_REPLY_ACK)) yield* this.#ask(vu.VU_GET_FEATURES, null);
    for (const { kickFd } of rings) signal(kickFd);
  }

  /** Stops the rings of a back end that was started; done when it has let go of them. */
  *stop(): Steps {
    for (let index = 0; index < this.#rings; index++) {
      const state = yield* this.#ask(vu.VU_GET_VRING_BASE, { index, num: 0 });
      if (state.index !== index) {
        throw new Refusal(
          `the back end stopped ring ${state.index} instead of ${index}; ${SEE_LOG}`,
        );
      }
    }
  }

  /** Returns how many queue pairs there are to use. */
  *#negotiateProtocol(withMtu: boolean): Steps<number> {
    const bits = [vu.PF_MQ, vu.PF_REPLY_ACK, vu.PF_STATUS, ...(withMtu ? [vu.PF_MTU] : [])];
    const wanted = bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
    const offered = yield* this.#ask(vu.VU_GET_PROTOCOL_FEATURES, null);
    yield* this.#tell(vu.VU_SET_PROTOCOL_FEATURES, offered & wanted);
    this.#protocol = offered & wanted;
    if (!has(this.#protocol, vu.PF_MQ)) return 1;
    const pairs = yield* this.#ask(vu.VU_GET_QUEUE_NUM, null);
    if (pairs === 0n) {
      throw new Refusal('the back end has no queue pairs; configure it to have at least one');
    }
    if (pairs > MAX_PAIRS) {
      throw new Refusal(
        `the back end claims ${pairs} queue pairs; check that it is a network device`,
      );
    }
    return Math.min(Number(pairs), MAX_USABLE);
  }

  *#checkFeatures(features: bigint): Steps {
    if (!has(this.#protocol, vu.PF_STATUS)) return;
    yield* this.#tell(vu.VU_SET_STATUS, NEGOTIATED);
    const status = yield* this.#ask(vu.VU_GET_STATUS, null);
    if ((status & FEATURES_OK) !== 0n) return;
    const names = featureNames(features).join(', ');
    throw new Refusal(`the back end did not agree to the features ${names}; ${SEE_LOG}`);
  }

  *#startRing(index: number, { size, base, addr, kickFd, callFd, errFd }: RingSetUp): Steps {
    yield* this.#tell(vu.VU_SET_VRING_NUM, { index, num: size });
    yield* this.#tell(vu.VU_SET_VRING_BASE, { index, num: base });
    yield* this.#tell(vu.VU_SET_VRING_ADDR, { index, ...addr });
    yield* this.#tellFd(vu.VU_SET_VRING_KICK, index, kickFd);
    // Again: some drop the one that came before the ring was set up.
    yield* this.#tellFd(vu.VU_SET_VRING_CALL, index, callFd);
    if (errFd !== undefined) yield* this.#tellFd(vu.VU_SET_VRING_ERR, index, errFd);
  }

  /** A request that has a reply of its own. */
  *#ask<R extends RequestId>(request: R, value: RequestValue<R>): Steps<ReplyValue<R>> {
    const bytes = encode(request, vu.VERSION, value);
    const { reply }: RequestRule = REQUESTS[request];
    return (yield { request, bytes, fds: [], reply }) as ReplyValue<R>;
  }

  /** A request that has none: it is acknowledged if the back end can. */
  *#tell<R extends RequestId>(request: R, value: RequestValue<R>, fds: number[] = []): Steps {
    const acknowledged = has(this.#protocol, vu.PF_REPLY_ACK);
    const flags = acknowledged ? vu.VERSION | vu.FLAG_NEED_REPLY : vu.VERSION;
    const bytes = encode(request, flags, value);
    const answer = yield { request, bytes, fds, reply: acknowledged ? 'u64' : undefined };
    if (!acknowledged || answer === 0n) return;
    throw new Refusal(`the back end refused ${requestName(request)}; ${SEE_LOG}`);
  }

  #tellFd(
    request: typeof vu.VU_SET_VRING_KICK | typeof vu.VU_SET_VRING_CALL | typeof vu.VU_SET_VRING_ERR,
    index: number,
    fd: number,
  ): Steps {
    return this.#tell(request, { index, noFd: false }, [fd]);
  }
}

function encode<R extends RequestId>(request: R, flags: number, value: RequestValue<R>) {
  const kind: (typeof REQUESTS)[R]['payload'] = REQUESTS[request].payload;
  return encodeMessage(request, flags, kind, value);
}
