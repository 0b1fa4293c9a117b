// What a vhost-user message must look like: one table of requests, and the checks of syntax that
// follow from it. Whether a message makes sense now is the session's business.

import * as vu from '../abi/vhost-user.ts';
import { Refusal } from './backend.ts';
import { CODECS, type PayloadKind, type Payloads } from './payload.ts';

/** A message as it came from the socket. Whoever holds it owns `fds`. */
export interface Message {
  request: number;
  flags: number;
  payload: Uint8Array;
  fds: number[];
}

/**
 * Descriptors with a message. `ring`: one, or none if the payload says so; `table`: one per region;
 * `optional`: none or one.
 */
export type FdRule = 'none' | 'one' | 'optional' | 'ring' | 'table';

export interface RequestRule {
  payload: PayloadKind;
  fds?: FdRule;
  /** The payload of its own reply; a request without one is acknowledged if it asks. */
  reply?: PayloadKind;
  /** Protocol feature bit that must have been negotiated. */
  requires?: number;
}

/** Every request of a front end (vhost-user, "Front-end message types"). */
export const REQUESTS = {
  [vu.VU_GET_FEATURES]: { payload: 'none', reply: 'u64' },
  [vu.VU_SET_FEATURES]: { payload: 'u64' },
  [vu.VU_SET_OWNER]: { payload: 'none' },
  [vu.VU_RESET_OWNER]: { payload: 'none' },
  [vu.VU_SET_MEM_TABLE]: { payload: 'table', fds: 'table' },
  [vu.VU_SET_LOG_BASE]: { payload: 'log', fds: 'one', reply: 'log', requires: vu.PF_LOG_SHMFD },
  [vu.VU_SET_LOG_FD]: { payload: 'none', fds: 'one' },
  [vu.VU_SET_VRING_NUM]: { payload: 'state' },
  [vu.VU_SET_VRING_ADDR]: { payload: 'addr' },
  [vu.VU_SET_VRING_BASE]: { payload: 'state' },
  [vu.VU_GET_VRING_BASE]: { payload: 'state', reply: 'state' },
  [vu.VU_SET_VRING_KICK]: { payload: 'ringFd', fds: 'ring' },
  [vu.VU_SET_VRING_CALL]: { payload: 'ringFd', fds: 'ring' },
  [vu.VU_SET_VRING_ERR]: { payload: 'ringFd', fds: 'ring' },
  [vu.VU_GET_PROTOCOL_FEATURES]: { payload: 'none', reply: 'u64' },
  [vu.VU_SET_PROTOCOL_FEATURES]: { payload: 'u64' },
  [vu.VU_GET_QUEUE_NUM]: { payload: 'none', reply: 'u64', requires: vu.PF_MQ },
  [vu.VU_SET_VRING_ENABLE]: { payload: 'state' },
  [vu.VU_SEND_RARP]: { payload: 'u64', requires: vu.PF_RARP },
  [vu.VU_NET_SET_MTU]: { payload: 'u64', requires: vu.PF_MTU },
  [vu.VU_SET_BACKEND_REQ_FD]: { payload: 'none', fds: 'one', requires: vu.PF_BACKEND_REQ },
  [vu.VU_IOTLB_MSG]: { payload: 'iotlb', reply: 'u64', requires: vu.PF_BACKEND_REQ },
  [vu.VU_SET_VRING_ENDIAN]: { payload: 'state', requires: vu.PF_CROSS_ENDIAN },
  [vu.VU_GET_CONFIG]: { payload: 'config', reply: 'config', requires: vu.PF_CONFIG },
  [vu.VU_SET_CONFIG]: { payload: 'config', requires: vu.PF_CONFIG },
  [vu.VU_CREATE_CRYPTO_SESSION]: {
    payload: 'opaque',
    reply: 'opaque',
    requires: vu.PF_CRYPTO_SESSION,
  },
  [vu.VU_CLOSE_CRYPTO_SESSION]: { payload: 'u64', requires: vu.PF_CRYPTO_SESSION },
  [vu.VU_POSTCOPY_ADVISE]: { payload: 'none', reply: 'none', requires: vu.PF_PAGEFAULT },
  [vu.VU_POSTCOPY_LISTEN]: { payload: 'none', requires: vu.PF_PAGEFAULT },
  [vu.VU_POSTCOPY_END]: { payload: 'none', reply: 'u64', requires: vu.PF_PAGEFAULT },
  [vu.VU_GET_INFLIGHT_FD]: {
    payload: 'inflight',
    reply: 'inflight',
    requires: vu.PF_INFLIGHT_SHMFD,
  },
  [vu.VU_SET_INFLIGHT_FD]: { payload: 'inflight', fds: 'one', requires: vu.PF_INFLIGHT_SHMFD },
  [vu.VU_GPU_SET_SOCKET]: { payload: 'none', fds: 'one' },
  [vu.VU_RESET_DEVICE]: { payload: 'none', requires: vu.PF_RESET_DEVICE },
  [vu.VU_VRING_KICK]: { payload: 'state', requires: vu.PF_INBAND_NOTIFICATIONS },
  [vu.VU_GET_MAX_MEM_SLOTS]: {
    payload: 'none',
    reply: 'u64',
    requires: vu.PF_CONFIGURE_MEM_SLOTS,
  },
  [vu.VU_ADD_MEM_REG]: { payload: 'region', fds: 'one', requires: vu.PF_CONFIGURE_MEM_SLOTS },
  [vu.VU_REM_MEM_REG]: { payload: 'region', fds: 'optional', requires: vu.PF_CONFIGURE_MEM_SLOTS },
  [vu.VU_SET_STATUS]: { payload: 'u64', requires: vu.PF_STATUS },
  [vu.VU_GET_STATUS]: { payload: 'none', reply: 'u64', requires: vu.PF_STATUS },
  [vu.VU_GET_SHARED_OBJECT]: { payload: 'opaque', reply: 'none', requires: vu.PF_SHARED_OBJECT },
  [vu.VU_SET_DEVICE_STATE_FD]: {
    payload: 'transfer',
    fds: 'one',
    reply: 'u64',
    requires: vu.PF_DEVICE_STATE,
  },
  [vu.VU_CHECK_DEVICE_STATE]: { payload: 'none', reply: 'u64', requires: vu.PF_DEVICE_STATE },
  [vu.VU_GET_SHMEM_CONFIG]: { payload: 'none', reply: 'opaque', requires: vu.PF_SHMEM },
} as const satisfies Record<number, RequestRule>;

/** A request id of the table. */
export type RequestId = keyof typeof REQUESTS;
/** The value that a request's payload decodes to. */
export type RequestValue<R extends RequestId> = Payloads[(typeof REQUESTS)[R]['payload']];
/** The value that a request's own reply is made of; void for one that has none. */
export type ReplyValue<R extends RequestId> = (typeof REQUESTS)[R] extends {
  reply: infer K extends PayloadKind;
}
  ? Payloads[K]
  : // biome-ignore lint/suspicious/noConfusingVoidType: the return type of a handler
    void;

/** The rule for a request; undefined for one the specification does not know. */
export function ruleOf(request: number): RequestRule | undefined {
  return Object.hasOwn(REQUESTS, request) ? REQUESTS[request as RequestId] : undefined;
}

export interface Header {
  request: number;
  flags: number;
  size: number;
}

/**
 * Reads a header (12 bytes). Throws Refusal where the stream cannot be followed further: another
 * version, or more payload than any message has.
 */
export function decodeHeader(bytes: Uint8Array): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, vu.HEADER_SIZE);
  const header = {
    request: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    size: view.getUint32(8, true),
  };
  const version = header.flags & vu.VERSION_MASK;
  if (version !== vu.VERSION) {
    throw new Refusal(
      `the peer does not speak vhost-user version 1 (flags 0x${hex(header.flags)})`,
    );
  }
  if (header.size > vu.MAX_PAYLOAD) {
    throw new Refusal(`a message of ${header.size} bytes is more than ${vu.MAX_PAYLOAD}`);
  }
  return header;
}

function hex(value: number): string {
  return value.toString(16);
}

/** A whole message, header and payload. */
export function encodeMessage<K extends PayloadKind>(
  request: number,
  flags: number,
  kind: K,
  value: Payloads[K],
): Uint8Array {
  const payload = CODECS[kind].encode(value);
  const bytes = new Uint8Array(vu.HEADER_SIZE + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, request, true);
  view.setUint32(4, flags, true);
  view.setUint32(8, payload.length, true);
  bytes.set(payload, vu.HEADER_SIZE);
  return bytes;
}

/**
 * The value of a message's payload, its size and number of descriptors checked against the rule.
 * Throws Refusal; the message keeps its descriptors either way.
 */
export function decodePayload(rule: RequestRule, message: Message): Payloads[PayloadKind] {
  const value = CODECS[rule.payload].decode(message.payload);
  const count = message.fds.length;
  const wanted = wantedFds(rule, value, count);
  if (count !== wanted) throw new Refusal(`it came with ${count} descriptors, not ${wanted}`);
  return value;
}

function wantedFds(rule: RequestRule, value: Payloads[PayloadKind], count: number): number {
  switch (rule.fds) {
    case 'one':
      return 1;
    case 'optional':
      return Math.min(count, 1);
    case 'ring':
      return (value as Payloads['ringFd']).noFd ? 0 : 1;
    case 'table':
      return (value as Payloads['table']).length;
    default:
      return 0;
  }
}
