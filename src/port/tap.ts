// A port on a TAP device: the host itself, as one more guest of the switch.

import { macFromName } from '../limits.ts';
import { OFFLOAD_BITS } from '../netmap/features.ts';
import { openTapRings, type TapRings } from '../netmap/tap.ts';
import type { NetmapPort } from '../netmap/types.ts';
import type { PortInfo, TapPortOptions } from '../types.ts';
import type { NetDevice } from '../virtio/device.ts';
import { describeDevice } from './describe.ts';
import { LANE_OPTIONS, type LaneEnd, type LaneHost, Lanes, laneMemory } from './lane.ts';
import type { Port } from './port.ts';

export class TapPort implements Port {
  readonly name: string;
  readonly index: number;
  readonly device: NetDevice;
  readonly #options: TapPortOptions;
  readonly #lanes: Lanes;
  readonly #rings: TapRings;

  /** Throws NetmapError when the device cannot be had. */
  constructor(
    options: TapPortOptions & { name: string },
    index: number,
    device: NetDevice,
    host: LaneHost,
  ) {
    this.name = options.name;
    this.index = index;
    this.device = device;
    this.#options = options;
    const { queues = 1, mtu } = options;
    const memory = laneMemory(host, queues);
    this.#lanes = new Lanes(host, device, index, memory);
    try {
      this.#rings = openTapRings(options.device ?? options.name, memory, {
        ...LANE_OPTIONS,
        queues,
        firstId: queues,
        host: true,
      });
    } catch (error) {
      this.#lanes.close();
      throw error;
    }
    const { tap } = this.#rings;
    // The same each time it is started: its neighbours remember it.
    tap.setMac(this.#mac);
    if (mtu !== undefined) tap.setMtu(mtu);
    // The kernel takes all there is; USO is asked for where it has that.
    const offloads = { csum: true, tso4: true, tso6: true, ecn: true };
    try {
      tap.setOffloads({ ...offloads, uso: true });
    } catch {
      tap.setOffloads(offloads);
    }
    this.#lanes.start(this.#end, OFFLOAD_BITS);
  }

  get #mac(): string {
    return this.#options.mac ?? macFromName(this.name);
  }

  get #end(): LaneEnd {
    const { tap, rx, tx } = this.#rings;
    return { rx, tx, wakeFds: tap.fds.map((fd) => [fd]) };
  }

  borrow(): NetmapPort {
    return this.#lanes.borrow(this.name, this.#end);
  }

  info(): PortInfo {
    return {
      name: this.name,
      index: this.index,
      type: 'tap',
      device: this.#rings.tap.name,
      mac: this.#mac,
      ...describeDevice(this.device, 'connected'),
    };
  }

  quarantine(reason: string): void {
    this.device.fault = reason;
    this.#lanes.pause();
  }

  async close(): Promise<void> {
    this.#lanes.stop('the port was closed');
    this.#rings.close();
    this.#lanes.close();
  }
}
