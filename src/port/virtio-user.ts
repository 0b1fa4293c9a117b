// A port that is a driver: the switch connects to somebody else's vhost-user back end.

import { KR_STATE } from '../abi/netmap.ts';
import { macFromName } from '../limits.ts';
import { mirrored, OFFLOAD_BITS } from '../netmap/features.ts';
import { faultText } from '../netmap/port.ts';
import type { NetmapPort } from '../netmap/types.ts';
import { QueueDriver } from '../netmap/vhost-user.ts';
import type { PortInfo, VirtioUserPortOptions } from '../types.ts';
import { Frontend, featureNames } from '../vhost-user/index.ts';
import type { NetDevice } from '../virtio/device.ts';
import { describeDevice } from './describe.ts';
import { LANE_OPTIONS, type LaneEnd, type LaneHost, Lanes, laneMemory } from './lane.ts';
import type { Port } from './port.ts';

export class VirtioUserPort implements Port {
  readonly name: string;
  readonly index: number;
  readonly device: NetDevice;
  readonly #options: VirtioUserPortOptions;
  readonly #lanes: Lanes;
  readonly #driver: QueueDriver;
  readonly #frontend: Frontend;
  readonly #onConnected: () => void;

  constructor(
    options: VirtioUserPortOptions & { name: string },
    index: number,
    device: NetDevice,
    host: LaneHost,
    tell: { onNotice: (message: string) => void; onConnected: () => void },
  ) {
    this.name = options.name;
    this.index = index;
    this.device = device;
    this.#options = options;
    this.#onConnected = tell.onConnected;
    const { path, mode = 'client', queues = 1, packed = false } = options;
    const memory = laneMemory(host, queues);
    this.#lanes = new Lanes(host, device, index, memory);
    // Whole frames in one buffer each: nothing to merge. What offloads there are is the back end's to say.
    const own = { ...LANE_OPTIONS, queues, packed, mergeable: false, takeOffloads: true };
    this.#driver = new QueueDriver(options.name, memory, own, (reason) => {
      if (reason === undefined) this.#started();
      else this.#lanes.stop(reason);
    });
    this.#frontend = new Frontend({
      path,
      mode,
      loop: host.loop,
      driver: this.#driver,
      onNotice: tell.onNotice,
    });
  }

  /** Listens, or starts to connect. Throws when the socket path cannot be had. */
  open(): void {
    this.#frontend.open();
  }

  #started(): void {
    this.#lanes.start(this.#end, mirrored(this.#driver.features & OFFLOAD_BITS));
    this.#onConnected();
  }

  get #end(): LaneEnd {
    const { rings } = this.#driver;
    const wakeFds = rings.rx.map((rx, i) => [
      rings.queueOf(rx).callFd,
      rings.queueOf(rings.tx[i]!).callFd,
    ]);
    return { rx: rings.rx, tx: rings.tx, wakeFds };
  }

  borrow(): NetmapPort {
    return this.#lanes.borrow(this.name, this.#end);
  }

  /** What the back end did that it must not, since it was last asked. */
  trouble(): string | undefined {
    if (!this.#lanes.broken) return undefined;
    const { rx, tx } = this.#driver.rings;
    const ring = [...rx, ...tx].find((ring) => ring.kget(KR_STATE) !== 0);
    return `the back end ${faultText(ring?.kget(KR_STATE) ?? 0)}`;
  }

  info(): PortInfo {
    const { path, mode = 'client', mac } = this.#options;
    const waiting = mode === 'server' ? 'listening' : 'connecting';
    const { peer } = this.#frontend;
    return {
      name: this.name,
      index: this.index,
      type: 'virtio-user',
      mode,
      path,
      mac: mac ?? macFromName(this.name),
      ...describeDevice(this.device, this.#frontend.connected ? 'connected' : waiting),
      // What its back end agreed on, not what our own two halves did.
      features: this.#lanes.running ? featureNames(this.#driver.features) : [],
      ...(peer ? { peer } : {}),
    };
  }

  quarantine(reason: string): void {
    this.#frontend.hangUp(reason);
    this.device.fault = reason;
  }

  async close(): Promise<void> {
    await this.#frontend.close();
    this.#lanes.stop('the port was closed');
    this.#driver.rings.close();
    this.#lanes.close();
  }
}
