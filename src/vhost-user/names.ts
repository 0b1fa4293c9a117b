// Names of requests and feature bits, for people.

import * as vu from '../abi/vhost-user.ts';
import * as virtio from '../abi/virtio.ts';

type Constants = Record<string, unknown>;

/** Names by number, of the constants of a module that begin with a prefix. */
function byNumber(constants: Constants, prefix: string, except = '\0'): Map<number, string> {
  const names = new Map<number, string>();
  for (const [name, value] of Object.entries(constants)) {
    if (typeof value !== 'number' || !name.startsWith(prefix) || name.startsWith(except)) continue;
    names.set(value, name.slice(prefix.length));
  }
  return names;
}

const REQUESTS = byNumber(vu, 'VU_', 'VU_BACKEND_');
const PROTOCOL_FEATURES = byNumber(vu, 'PF_');
const FEATURES = byNumber(virtio, 'F_');

function bitNames(names: Map<number, string>, bits: bigint): string[] {
  const found: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (((bits >> BigInt(bit)) & 1n) === 1n) found.push(names.get(bit) ?? `bit ${bit}`);
  }
  return found;
}

/** Virtio feature bits by name, lowest first: `CSUM`, `VERSION_1`; `bit 60` for one not known. */
export function featureNames(bits: bigint): string[] {
  return bitNames(FEATURES, bits);
}

/** The bit of a name that featureNames gives; NaN for no such name. */
export function featureBit(name: string): number {
  for (const [bit, known] of FEATURES) if (known === name) return bit;
  return Number(/^bit (\d+)$/.exec(name)?.[1]);
}

/** vhost-user protocol feature bits by name, as featureNames. */
export function protocolFeatureNames(bits: bigint): string[] {
  return bitNames(PROTOCOL_FEATURES, bits);
}

/** A front end's request by name: `SET_VRING_NUM`; `request 99` for one not known. */
export function requestName(request: number): string {
  return REQUESTS.get(request) ?? `request ${request}`;
}
