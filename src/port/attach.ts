// Connecting a driver in this process to a device of the switch: what a vhost-user session would say.

import { dup } from '../linux/index.ts';
import type { BufferMemory } from '../netmap/memory.ts';
import type { QueueRings } from '../netmap/queue-rings.ts';
import type { NetDevice } from '../virtio/device.ts';

/** Sets the device up with memory and rings, which were just reset for these features, and starts it. */
export function attach(
  device: NetDevice,
  features: bigint,
  memory: BufferMemory,
  rings: QueueRings,
): void {
  device.connected(undefined);
  device.setFeatures(features);
  const region = memory.region();
  device.setMemTable([{ ...region, fd: dup(region.fd) }]);
  for (const [queue, ring] of rings.setUps().entries()) {
    device.setVringNum(queue, ring.size);
    device.setVringBase(queue, ring.base);
    device.setVringAddr(queue, ring.addr);
    device.setVringCall(queue, dup(ring.callFd));
    device.setVringKick(queue, dup(ring.kickFd));
    device.setVringEnable(queue, true);
  }
}
