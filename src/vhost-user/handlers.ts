// What the device side does for each request it supports: one entry per request, typed by the
// table in message.ts. A request without an entry is refused by the session, by name.

import * as vu from '../abi/vhost-user.ts';
import { F_LOG_ALL, F_MTU, F_PROTOCOL_FEATURES } from '../abi/virtio.ts';
import { isEventfd, setNonblocking } from '../linux/index.ts';
import { type Backend, Refusal } from './backend.ts';
import type { Message, ReplyValue, RequestId, RequestValue } from './message.ts';
import { protocolFeatureNames } from './names.ts';
import type { VringFd } from './payload.ts';

const PROTOCOL_FEATURES_BIT = 1n << BigInt(F_PROTOCOL_FEATURES);

/** What a connection has agreed on; the rest of its state is the back end's. */
export interface Negotiation {
  readonly backend: Backend;
  /** Protocol features set by the front end; bits. */
  protocolFeatures: bigint;
}

export type Handlers = {
  [R in RequestId]?: (
    session: Negotiation,
    value: RequestValue<R>,
    message: Message,
  ) => ReplyValue<R>;
};

/** Protocol features (bits) offered for a back end. */
export function offeredProtocolFeatures(backend: Backend): bigint {
  const bits = [vu.PF_MQ, vu.PF_RARP, vu.PF_REPLY_ACK, vu.PF_CONFIGURE_MEM_SLOTS, vu.PF_STATUS];
  // NET_SET_MTU tells what the guest was told, which nobody tells it without the virtio feature.
  const offers = (bit: number) => ((backend.offeredFeatures >> BigInt(bit)) & 1n) === 1n;
  if (offers(F_MTU)) bits.push(vu.PF_MTU);
  if (offers(F_LOG_ALL)) bits.push(vu.PF_LOG_SHMFD);
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
}

/** The index, once it is known to be one of the port's rings. u32 in, so nothing is cut off. */
function ring({ backend }: Negotiation, index: number): number {
  const rings = 2 * backend.queuePairs;
  if (index < rings) return index;
  throw new Refusal(`ring ${index} does not exist; this port has rings 0-${rings - 1}`);
}

function small(value: bigint, limit: number, what: string): number {
  if (value <= BigInt(limit)) return Number(value);
  throw new Refusal(`${what} ${value} is more than ${limit}`);
}

/** Takes the message's eventfd, non-blocking; -1 if it carries none. */
function takeEventfd({ fds }: Message, { noFd }: Pick<VringFd, 'noFd'>): number {
  if (noFd) return -1;
  const fd = fds[0]!;
  if (!isEventfd(fd)) throw new Refusal('its descriptor is not an eventfd');
  setNonblocking(fd);
  return fds.shift()!;
}

export const HANDLERS: Handlers = {
  [vu.VU_GET_FEATURES]: ({ backend }) => backend.offeredFeatures | PROTOCOL_FEATURES_BIT,

  [vu.VU_SET_FEATURES](session, features) {
    const { backend } = session;
    backend.setFeatures(features);
    // A front end without the bit has no SET_VRING_ENABLE: its rings are enabled from the start.
    if ((features & PROTOCOL_FEATURES_BIT) === 0n) {
      for (let index = 0; index < 2 * backend.queuePairs; index++) {
        backend.setVringEnable(index, true);
      }
    }
  },

  [vu.VU_SET_OWNER]() {},
  // Deprecated, and its meaning was never settled; ignored by the back ends in use.
  [vu.VU_RESET_OWNER]() {},

  [vu.VU_GET_PROTOCOL_FEATURES]: ({ backend }) => offeredProtocolFeatures(backend),

  [vu.VU_SET_PROTOCOL_FEATURES](session, features) {
    const surplus = features & ~offeredProtocolFeatures(session.backend);
    if (surplus !== 0n) {
      throw new Refusal(`${protocolFeatureNames(surplus).join(', ')} was not offered`);
    }
    session.protocolFeatures = features;
  },

  [vu.VU_GET_QUEUE_NUM]: ({ backend }) => BigInt(backend.queuePairs),

  [vu.VU_SET_MEM_TABLE]({ backend }, regions, message) {
    const fds = message.fds.splice(0);
    backend.setMemTable(regions.map((region, i) => ({ ...region, fd: fds[i]! })));
  },
  [vu.VU_GET_MAX_MEM_SLOTS]: ({ backend }) => BigInt(backend.maxMemSlots),
  [vu.VU_ADD_MEM_REG]({ backend }, region, message) {
    backend.addMemRegion({ ...region, fd: message.fds.shift()! });
  },
  [vu.VU_REM_MEM_REG]({ backend }, region) {
    backend.removeMemRegion(region);
  },

  [vu.VU_SET_VRING_NUM](session, { index, num }) {
    session.backend.setVringNum(ring(session, index), num);
  },
  [vu.VU_SET_VRING_ADDR](session, { index, ...addr }) {
    session.backend.setVringAddr(ring(session, index), addr);
  },
  [vu.VU_SET_VRING_BASE](session, { index, num }) {
    session.backend.setVringBase(ring(session, index), num);
  },
  [vu.VU_GET_VRING_BASE](session, { index }) {
    return { index, num: session.backend.getVringBase(ring(session, index)) };
  },
  [vu.VU_SET_VRING_KICK](session, value, message) {
    const index = ring(session, value.index);
    session.backend.setVringKick(index, takeEventfd(message, value));
  },
  [vu.VU_SET_VRING_CALL](session, value, message) {
    const index = ring(session, value.index);
    session.backend.setVringCall(index, takeEventfd(message, value));
  },
  [vu.VU_SET_VRING_ERR](session, value, message) {
    const index = ring(session, value.index);
    session.backend.setVringErr(index, takeEventfd(message, value));
  },
  // Not tied to F_PROTOCOL_FEATURES having been acknowledged: QEMU enables before SET_FEATURES.
  [vu.VU_SET_VRING_ENABLE](session, { index, num }) {
    if (num > 1) throw new Refusal(`${num} is neither 0 (disable) nor 1 (enable)`);
    session.backend.setVringEnable(ring(session, index), num === 1);
  },

  // The payload comes back: the specification does not say what the reply is, and rust-vmm wants these 16 bytes.
  [vu.VU_SET_LOG_BASE]({ backend }, area, message) {
    backend.setLogBase(area, message.fds.shift()!);
    return area;
  },
  [vu.VU_SET_LOG_FD]({ backend }, _value, message) {
    backend.setLogFd(takeEventfd(message, { noFd: false }));
  },

  [vu.VU_SET_STATUS]({ backend }, status) {
    backend.setStatus(small(status, 0xff, 'status'));
  },
  [vu.VU_GET_STATUS]: ({ backend }) => BigInt(backend.getStatus()),
  [vu.VU_NET_SET_MTU]({ backend }, mtu) {
    backend.setMtu(small(mtu, 0xffff, 'MTU'));
  },
  [vu.VU_SEND_RARP]({ backend }, _value, message) {
    backend.sendRarp(message.payload.slice(0, 6));
  },
};
