// Which virtio features a netmap port agrees to.

import * as V from '../abi/virtio.ts';
import { featureNames, Refusal } from '../vhost-user/index.ts';
import { bit, has } from '../virtio/features.ts';
import { NetmapError, type NetmapOptions } from './types.ts';

/** Offloads by virtio's names; the first three columns of virtio 1.2 §5.1.3.1 that a frame can need. */
const OFFLOADS: Record<string, number> = {
  CSUM: V.F_CSUM,
  HOST_TSO4: V.F_HOST_TSO4,
  HOST_TSO6: V.F_HOST_TSO6,
  HOST_ECN: V.F_HOST_ECN,
  HOST_USO: V.F_HOST_USO,
  GUEST_CSUM: V.F_GUEST_CSUM,
  GUEST_TSO4: V.F_GUEST_TSO4,
  GUEST_TSO6: V.F_GUEST_TSO6,
  GUEST_ECN: V.F_GUEST_ECN,
  GUEST_USO4: V.F_GUEST_USO4,
  GUEST_USO6: V.F_GUEST_USO6,
};

/** All of them. */
export const OFFLOAD_BITS = Object.values(OFFLOADS).reduce((sum, n) => sum | bit(n), 0n);

/** For a driver that passes frames on with their headers: it takes whatever offloads there are. */
export interface DriverOptions extends NetmapOptions {
  takeOffloads?: boolean;
}

/** The bits of the offloads an opener asked for. Throws NetmapError `offloads` for what the mode cannot. */
export function offloadBits(name: string, options: NetmapOptions): bigint {
  const { offloads = [], headers = 'shared' } = options;
  const unknown = offloads.filter((offload) => OFFLOADS[offload] === undefined);
  if (unknown.length > 0) {
    const known = Object.keys(OFFLOADS).join(' ');
    throw new NetmapError('offloads', `port ${name}: ${unknown.join(' ')} is no offload: ${known}`);
  }
  if (offloads.length > 0 && headers === 'shared') {
    const bits = offloads.reduce((sum, offload) => sum | bit(OFFLOADS[offload]!), 0n);
    throw new NetmapError(
      'offloads',
      `port ${name}: ${offloads.join(' ')} (0x${bits.toString(16)}) need the virtio header, which is ` +
        "stripped: open it with headers: 'kept', or without offloads",
    );
  }
  return offloads.reduce((sum, offload) => sum | bit(OFFLOADS[offload]!), 0n);
}

/** What to accept of `offered` for `pairs` queue pairs. Throws Refusal for what is needed and not offered. */
export function choose(
  name: string,
  offered: bigint,
  pairs: number,
  options: DriverOptions,
): bigint {
  const { packed = false, mergeable = true, indirect = true, events = true } = options;
  const offloads = offloadBits(name, options);
  const needed =
    bit(V.F_VERSION_1) |
    (packed === true ? bit(V.F_RING_PACKED) : 0n) |
    (pairs > 1 ? bit(V.F_MQ) : 0n) |
    offloads;
  const missing = needed & ~offered;
  if (missing !== 0n) {
    throw new Refusal(
      `it does not offer ${featureNames(missing).join(' ')}, which port ${name} was opened with`,
    );
  }
  const wanted =
    (mergeable ? bit(V.F_MRG_RXBUF) : 0n) |
    (indirect ? bit(V.F_INDIRECT_DESC) : 0n) |
    (events ? bit(V.F_EVENT_IDX) : 0n) |
    (packed === 'auto' ? bit(V.F_RING_PACKED) : 0n) |
    (options.inOrder ? bit(V.F_IN_ORDER) : 0n) |
    (options.takeOffloads ? OFFLOAD_BITS : 0n);
  return needed | (wanted & offered);
}

/** Features that a driver on one side can have for the sake of the other: what `theirs` sends, we receive. */
export function mirrored(theirs: bigint): bigint {
  const pairs: [number, number][] = [
    [V.F_CSUM, V.F_GUEST_CSUM],
    [V.F_HOST_TSO4, V.F_GUEST_TSO4],
    [V.F_HOST_TSO6, V.F_GUEST_TSO6],
    [V.F_HOST_ECN, V.F_GUEST_ECN],
    [V.F_HOST_USO, V.F_GUEST_USO4],
    [V.F_HOST_USO, V.F_GUEST_USO6],
  ];
  let mine = 0n;
  for (const [host, guest] of pairs) {
    if (has(theirs, guest)) mine |= bit(host);
    if (has(theirs, host)) mine |= bit(guest);
  }
  return mine;
}
