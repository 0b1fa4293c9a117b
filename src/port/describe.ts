// What a device tells about itself, for tables and JSON.

import {
  RING_ARMED,
  RING_AVAIL,
  RING_BROKEN,
  RING_CALLS,
  RING_KICKS,
  RING_SIZE,
  RING_STOPPED,
  RING_USED_IDX,
} from '../abi/layout.ts';
import type { Control } from '../memory/control.ts';
import type { PortInfo, PortState, RingInfo } from '../types.ts';
import { featureNames } from '../vhost-user/names.ts';
import type { NetDevice } from '../virtio/device.ts';
import type { Ring } from '../virtio/ring.ts';

type DeviceFields =
  | 'state'
  | 'reason'
  | 'queues'
  | 'queuesEnabled'
  | 'offered'
  | 'features'
  | 'memory'
  | 'mtu';

/** `idle` is the state to show while no ring runs. */
export function describeDevice(device: NetDevice, idle: PortState): Pick<PortInfo, DeviceFields> {
  const broken = device.rings.find((ring) => ring.broken);
  const enabled = device.rings.filter((ring) => ring.isTx && ring.enabled && ring.started);
  return {
    state: broken ? 'quarantined' : device.up ? 'up' : idle,
    ...(broken ? { reason: `ring ${broken.queue}: ${broken.broken}` } : {}),
    queues: device.queuePairs,
    queuesEnabled: enabled.length,
    offered: featureNames(device.offeredFeatures),
    features: featureNames(device.features),
    memory: device.regions.bytes,
    ...(device.mtu === undefined ? {} : { mtu: device.mtu }),
  };
}

export function describeRing(control: Control, port: string, ring: Ring): RingInfo {
  const mapped = ring.live && ring.state !== RING_STOPPED;
  const availIdx = mapped ? control.get16(ring.get(RING_AVAIL) + 2) : ring.position;
  const lastAvail = ring.position;
  return {
    port,
    index: ring.queue,
    direction: ring.isTx ? 'tx' : 'rx',
    pair: ring.queue >> 1,
    type: 'split',
    size: ring.live ? ring.get(RING_SIZE) : ring.size,
    lastAvail,
    availIdx,
    usedIdx: ring.live ? ring.get(RING_USED_IDX) : ring.position,
    inFlight: (availIdx - lastAvail) & 0xffff,
    enabled: ring.enabled,
    started: ring.started && ring.state !== RING_BROKEN,
    notify: mapped && ring.get(RING_ARMED) === 1,
    kicks: ring.counter(RING_KICKS),
    calls: ring.counter(RING_CALLS),
    ...(ring.broken ? { broken: ring.broken } : {}),
  };
}
