// A port whose other end is a netmap port: somebody else's vhost-user back end (`virtio-user`), or the
// kernel's stack behind a TAP (`tap`). The switch is the device of an ordinary port; our own driver has
// the other half of its rings, and a worker moves the buffers between the two (datapath/lane.ts).
//
//   switch ── device | rings A | driver = lane = driver | rings B | back end, or kernel
//
// A is set up once B runs, with the offloads that B has: what one side may send, the other receives.

import {
  MAX_PAIRS,
  MAX_RINGS,
  PORT_BASE,
  PORT_LANE_COUNT,
  PORT_LANES,
  PORT_STRIDE,
} from '../abi/layout.ts';
import {
  LANE_BROKEN,
  LANE_RX_A,
  LANE_RX_B,
  LANE_SIZE,
  LANE_TX_A,
  LANE_TX_B,
} from '../abi/netmap.ts';
import { F_EVENT_IDX, F_INDIRECT_DESC, F_MQ, F_VERSION_1 } from '../abi/virtio.ts';
import { roundUp } from '../memory/spans.ts';
import type { Home } from '../netmap/home.ts';
import { BufferMemory } from '../netmap/memory.ts';
import { Port as Rings } from '../netmap/port.ts';
import { QueueRings } from '../netmap/queue-rings.ts';
import type { Ring } from '../netmap/ring.ts';
import { NetmapError, type NetmapPort } from '../netmap/types.ts';
import { featureNames } from '../vhost-user/index.ts';
import type { NetDevice } from '../virtio/device.ts';
import { bit } from '../virtio/features.ts';
import type { WorkerPool } from '../worker/pool.ts';
import { attach } from './attach.ts';

/** Holds the largest frame, its header and the headroom; an odd number of cache lines, to spread them. */
const BUFFER = 64 * 1029;
const HEADROOM = 64;
export const LANE_RING_SIZE = 256;

/** One end of a lane: krings' rings by pair, and what wakes whoever sleeps on them. */
export interface LaneEnd {
  rx: readonly Ring[];
  tx: readonly Ring[];
  /** By pair. */
  wakeFds: readonly (readonly number[])[];
}

export interface LaneHost extends Home {
  readonly pool: WorkerPool;
}

/** Memory for `pairs` pairs of lanes: buffers for both ends. */
export function laneMemory(home: Home, pairs: number): BufferMemory {
  return new BufferMemory(home, {
    bufferSize: BUFFER,
    buffers: 4 * pairs * LANE_RING_SIZE,
    rings: pairs * 4 * 2 ** 20,
  });
}

/** What the rings of either end are opened with. */
export const LANE_OPTIONS = {
  headers: 'kept',
  headroom: HEADROOM,
  ringSize: LANE_RING_SIZE,
} as const;

/** The driver's end of a port of the switch, and its lanes. */
export class Lanes {
  readonly memory: BufferMemory;
  readonly #host: LaneHost;
  readonly #device: NetDevice;
  readonly #port: number;
  readonly #rings: QueueRings;
  #block = 0;
  #pairs = 0;
  /** In netmap mode: who has the rings. */
  #borrowed: Rings | undefined;
  #watched: { worker: number; fd: number }[] = [];

  constructor(host: LaneHost, device: NetDevice, port: number, memory: BufferMemory) {
    this.#host = host;
    this.#device = device;
    this.#port = port;
    this.memory = memory;
    this.#rings = new QueueRings({ memory, ...LANE_OPTIONS });
  }

  get running(): boolean {
    return this.#block !== 0;
  }

  /** Brings the port up, its frames going to and coming from `end`, with these offloads. */
  start(end: LaneEnd, offloads: bigint): void {
    const pairs = end.rx.length;
    const device = this.#device;
    const features =
      ((pairs > 1 ? bit(F_MQ) : 0n) |
        bit(F_VERSION_1) |
        bit(F_EVENT_IDX) |
        bit(F_INDIRECT_DESC) |
        offloads) &
      device.offeredFeatures;
    this.#rings.reset(features, pairs);
    attach(device, features, this.memory, this.#rings);
    this.#publish(end, pairs);
  }

  #publish(end: LaneEnd, pairs: number): void {
    const { control, heap, pool } = this.#host;
    const block = heap.take(roundUp(pairs * LANE_SIZE, 64), 64);
    if (block === undefined) throw new Error('no room is left for the state of lanes');
    control.bytes.fill(0, block, block + pairs * LANE_SIZE);
    for (let pair = 0; pair < pairs; pair++) {
      const lane = block + pair * LANE_SIZE;
      const [rx, tx] = [this.#rings.rx[pair]!, this.#rings.tx[pair]!];
      control.set(lane + LANE_RX_A, rx.kring);
      control.set(lane + LANE_TX_A, tx.kring);
      control.set(lane + LANE_RX_B, end.rx[pair]!.kring);
      control.set(lane + LANE_TX_B, end.tx[pair]!.kring);
      // As its rings are spread (virtio/device.ts), so that a lane and they have one owner.
      const worker = (this.#port + pair) % pool.size;
      const own = [this.#rings.queueOf(rx).callFd, this.#rings.queueOf(tx).callFd];
      for (const fd of [...own, ...end.wakeFds[pair]!]) {
        pool.watch(worker, fd, MAX_RINGS + this.#port * MAX_PAIRS + pair);
        this.#watched.push({ worker, fd });
      }
    }
    const port = PORT_BASE + this.#port * PORT_STRIDE;
    control.set(port + PORT_LANE_COUNT, pairs);
    control.set(port + PORT_LANES, block);
    this.#block = block;
    this.#pairs = pairs;
    pool.quiesce();
  }

  /** Whether a worker found that one of the ends broke the rules. */
  get broken(): boolean {
    for (let pair = 0; pair < this.#pairs; pair++) {
      if (this.#host.control.get(this.#block + pair * LANE_SIZE + LANE_BROKEN) !== 0) return true;
    }
    return false;
  }

  /** Takes the lanes from the workers; after it nobody uses the rings of either end. */
  pause(): void {
    if (!this.running) return;
    const { control, heap, pool } = this.#host;
    control.set(PORT_BASE + this.#port * PORT_STRIDE + PORT_LANES, 0);
    pool.quiesce();
    for (const { worker, fd } of this.#watched.splice(0)) pool.unwatch(worker, fd);
    heap.give(this.#block, roundUp(this.#pairs * LANE_SIZE, 64));
    this.#block = 0;
    this.#pairs = 0;
  }

  /**
   * Netmap mode: takes the rings of both ends from the workers and gives them to the caller, those of
   * `end` as host rings; what lies in them stays there. When the netmap port is closed the lanes go on.
   * Throws NetmapError `busy` or `down`.
   */
  borrow(name: string, end: LaneEnd): NetmapPort {
    if (this.#borrowed) {
      throw new NetmapError('busy', `port ${name} is in netmap mode already: close it there first`);
    }
    if (!this.running) {
      throw new NetmapError('down', `port ${name} is down: there is nothing to take over`);
    }
    this.pause();
    const port: Rings = new Rings(name, {
      memory: this.memory,
      headers: LANE_OPTIONS.headers,
      close: async () => {
        port.unwatch();
        if (this.#borrowed !== port) return;
        this.#borrowed = undefined;
        this.#publish(end, end.rx.length);
      },
    });
    this.#borrowed = port;
    port.goUp({
      rx: [...this.#rings.rx, ...end.rx],
      tx: [...this.#rings.tx, ...end.tx],
      wakeFds: [...this.#rings.callFds, ...end.wakeFds.flat()],
      features: featureNames(this.#device.features),
    });
    return port;
  }

  /** Brings the port down: `end` may be taken away after. */
  stop(reason: string): void {
    this.pause();
    const borrowed = this.#borrowed;
    this.#borrowed = undefined;
    borrowed?.unwatch();
    borrowed?.goDown(new NetmapError('down', `port ${borrowed.name}: ${reason}`));
    this.#device.disconnected(reason);
    this.#rings.restock();
  }

  /** Stopped before. */
  close(): void {
    this.#rings.close();
    this.memory.close();
  }
}
