// A port whose guest is an application of this process with netmap rings.

import { macFromName } from '../limits.ts';
import { choose } from '../netmap/features.ts';
import type { BufferMemory } from '../netmap/memory.ts';
import { checkOptions } from '../netmap/options.ts';
import { Port as Rings } from '../netmap/port.ts';
import { QueueRings } from '../netmap/queue-rings.ts';
import { NetmapError, type NetmapOptions, type NetmapPort } from '../netmap/types.ts';
import type { MemoryPortOptions, PortInfo } from '../types.ts';
import { featureNames } from '../vhost-user/index.ts';
import type { NetDevice } from '../virtio/device.ts';
import { attach } from './attach.ts';
import { describeDevice } from './describe.ts';
import type { Port } from './port.ts';

/** What it is opened with. */
export type NetmapPortOptions = Omit<MemoryPortOptions, 'type' | 'ringSize'> & NetmapOptions;

export class NetmapMemoryPort implements Port {
  readonly name: string;
  readonly index: number;
  readonly device: NetDevice;
  /** The application's. */
  readonly rings: NetmapPort;
  readonly #mac: string;
  readonly #queues: QueueRings;
  readonly #netmap: Rings;

  constructor(
    options: NetmapPortOptions,
    index: number,
    device: NetDevice,
    memory: BufferMemory,
    remove: () => Promise<void>,
  ) {
    const { name, mac = macFromName(name) } = options;
    checkOptions(name, options);
    const { ringSize = 1024, headers = 'shared', headroom = 64 } = options;
    this.name = name;
    this.index = index;
    this.device = device;
    this.#mac = mac;
    const pairs = device.queuePairs;
    const features = choose(name, device.offeredFeatures, pairs, options);
    this.#queues = new QueueRings({ memory, ringSize, headers, headroom });
    this.#netmap = new Rings(name, {
      memory,
      headers,
      fault: (reason) => this.quarantine(reason),
      close: remove,
    });
    this.rings = this.#netmap;
    try {
      this.#queues.reset(features, pairs);
      attach(device, features, memory, this.#queues);
    } catch (error) {
      this.#queues.close();
      throw error;
    }
    const { rx, tx, callFds } = this.#queues;
    this.#netmap.goUp({ rx, tx, wakeFds: callFds, features: featureNames(features) });
  }

  info(): PortInfo {
    return {
      name: this.name,
      index: this.index,
      type: 'memory',
      mac: this.#mac,
      ...describeDevice(this.device, 'connected'),
    };
  }

  quarantine(reason: string): void {
    this.device.fault = reason;
    for (const { queue } of this.device.rings) this.device.getVringBase(queue);
    this.#netmap.goDown(new NetmapError('down', `port ${this.name}: ${reason}`));
  }

  async close(): Promise<void> {
    this.#netmap.unwatch();
    this.device.disconnected('the port was closed');
    this.#netmap.goDown(new NetmapError('down', `port ${this.name} was removed from the switch`));
    this.#queues.restock();
    this.#queues.close();
  }
}
