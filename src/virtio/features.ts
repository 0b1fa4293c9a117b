// Which virtio-net features are offered, and what the datapath makes of those accepted.

import {
  RINGF_EVENT_IDX,
  RINGF_IN_ORDER,
  RINGF_INDIRECT,
  RINGF_MRG,
  RINGF_PACKED,
} from '../abi/layout.ts';
import * as V from '../abi/virtio.ts';

export function bit(n: number): bigint {
  return 1n << BigInt(n);
}

export function has(features: bigint, n: number): boolean {
  return (features & bit(n)) !== 0n;
}

const ALWAYS = [
  V.F_CSUM,
  V.F_GUEST_CSUM,
  V.F_GUEST_TSO4,
  V.F_GUEST_TSO6,
  V.F_GUEST_ECN,
  V.F_GUEST_USO4,
  V.F_GUEST_USO6,
  V.F_HOST_TSO4,
  V.F_HOST_TSO6,
  V.F_HOST_ECN,
  V.F_HOST_USO,
  V.F_MRG_RXBUF,
  V.F_CTRL_VQ,
  V.F_GUEST_ANNOUNCE,
  V.F_ANY_LAYOUT,
  V.F_INDIRECT_DESC,
  V.F_EVENT_IDX,
  V.F_VERSION_1,
  V.F_RING_PACKED,
  V.F_IN_ORDER,
];

/**
 * Feature bits a port offers; MQ only with several pairs, MTU only when one is set, LOG_ALL where a guest may
 * migrate.
 */
export function offeredFeatures(options: {
  pairs: number;
  mtu?: number;
  migrates?: boolean;
}): bigint {
  let features = ALWAYS.reduce((sum, n) => sum | bit(n), 0n);
  if (options.pairs > 1) features |= bit(V.F_MQ);
  if (options.mtu !== undefined) features |= bit(V.F_MTU);
  if (options.migrates) features |= bit(V.F_LOG_ALL);
  return features;
}

/** Bytes of virtio-net header in front of every frame (virtio 1.2 §5.1.6.1). */
export function headerLength(features: bigint): number {
  return has(features, V.F_VERSION_1) || has(features, V.F_MRG_RXBUF)
    ? V.HDR_LEN
    : V.HDR_LEN_LEGACY;
}

/** RINGF_* bits of a ring under these features. */
export function ringFlags(features: bigint): number {
  return (
    (has(features, V.F_EVENT_IDX) ? RINGF_EVENT_IDX : 0) |
    (has(features, V.F_INDIRECT_DESC) ? RINGF_INDIRECT : 0) |
    (has(features, V.F_MRG_RXBUF) ? RINGF_MRG : 0) |
    (has(features, V.F_RING_PACKED) ? RINGF_PACKED : 0) |
    (has(features, V.F_IN_ORDER) ? RINGF_IN_ORDER : 0)
  );
}
