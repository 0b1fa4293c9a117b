// What a device tells about itself, for tables and JSON.

import {
  RING_ARMED,
  RING_AVAIL,
  RING_BROKEN,
  RING_CALLS,
  RING_DESC,
  RING_KICKS,
  RING_LAST_AVAIL,
  RING_SIZE,
  RING_STOPPED,
  RING_USED_IDX,
} from '../abi/layout.ts';
import { F_LOG_ALL, WRAP } from '../abi/virtio.ts';
import type { Control } from '../memory/control.ts';
import type { PortInfo, PortState, RingInfo } from '../types.ts';
import { featureNames } from '../vhost-user/names.ts';
import type { NetDevice } from '../virtio/device.ts';
import { has } from '../virtio/features.ts';
import { advance, flagsAt, isAvailable, slotOf } from '../virtio/packed.ts';
import type { Ring } from '../virtio/ring.ts';

type DeviceFields =
  | 'state'
  | 'reason'
  | 'queues'
  | 'queuesEnabled'
  | 'offered'
  | 'features'
  | 'memory'
  | 'paged'
  | 'sealed'
  | 'mtu'
  | 'history'
  | 'logging';

/** `idle` is the state to show while no ring runs. */
export function describeDevice(device: NetDevice, idle: PortState): Pick<PortInfo, DeviceFields> {
  const reason = device.trouble;
  const enabled = device.rings.filter((ring) => ring.isTx && ring.enabled && ring.started);
  return {
    state: reason !== undefined ? 'quarantined' : device.up ? 'up' : idle,
    ...(reason === undefined ? {} : { reason }),
    queues: device.queuePairs,
    queuesEnabled: enabled.length,
    offered: featureNames(device.offeredFeatures),
    features: featureNames(device.features),
    memory: device.regions.bytes,
    paged: device.regions.pagedBytes,
    ...(device.regions.bytes > 0 ? { sealed: device.regions.sealed } : {}),
    ...(device.mtu === undefined ? {} : { mtu: device.mtu }),
    history: device.history.read(),
    ...(has(device.features, F_LOG_ALL) ? { logging: true } : {}),
  };
}

export function describeRing(control: Control, port: string, ring: Ring): RingInfo {
  const mapped = ring.live && ring.state !== RING_STOPPED;
  const { packed } = ring;
  const at = ring.position & 0xffff;
  const ahead = !mapped ? 0 : packed ? packedAhead(control, ring) : splitAhead(control, ring);
  const size = ring.live ? ring.get(RING_SIZE) : ring.size;
  const availAt = packed ? advance(at, ahead, size) : (at + ahead) & 0xffff;
  // A packed ring counts in slots and laps.
  const index = (position: number) => (packed ? slotOf(position) : position);
  return {
    port,
    index: ring.queue,
    direction: ring.isTx ? 'tx' : 'rx',
    pair: ring.queue >> 1,
    type: packed ? 'packed' : 'split',
    size,
    lastAvail: index(at),
    availIdx: index(availAt),
    usedIdx: index(ring.live ? ring.get(RING_USED_IDX) : at),
    ...(packed ? { wrap: at & WRAP ? 1 : 0 } : {}),
    inFlight: ahead,
    enabled: ring.enabled,
    started: ring.started && ring.state !== RING_BROKEN,
    notify: mapped && ring.get(RING_ARMED) === 1,
    kicks: ring.counter(RING_KICKS),
    calls: ring.counter(RING_CALLS),
    ...(ring.broken ? { broken: ring.broken } : {}),
  };
}

/** Avail entries not taken yet; a broken ring may claim any number. */
function splitAhead(control: Control, ring: Ring): number {
  return (control.get16(ring.get(RING_AVAIL) + 2) - ring.get(RING_LAST_AVAIL)) & 0xffff;
}

/** Descriptors made available and not taken yet. */
function packedAhead(control: Control, ring: Ring): number {
  const desc = ring.get(RING_DESC);
  const size = ring.get(RING_SIZE);
  let at = ring.get(RING_LAST_AVAIL);
  for (let n = 0; n < size; n++) {
    if (!isAvailable(flagsAt(control, desc, at), at)) return n;
    at = advance(at, 1, size);
  }
  return size;
}
