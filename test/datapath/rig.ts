// The datapath on a bench: no threads, no switch. Ports are laid out in the control area by hand,
// the test is the driver of every ring (queue.ts), and poll() is called when the test says so.

import {
  FORWARD_WIRE,
  HEAP_BASE,
  MAX_PAIRS,
  MAX_REGIONS,
  NO_PORT,
  NO_RING,
  PAGE,
  PORT_BASE,
  PORT_FEATURES,
  PORT_HDR_LEN,
  PORT_LOG,
  PORT_MTU,
  PORT_PEER,
  PORT_REGIONS,
  PORT_RINGS,
  PORT_RX_LIST,
  PORT_RX_PAIRS,
  PORT_STATE,
  PORT_STRIDE,
  PORT_UP,
  REGION_BASE,
  REGION_GPA,
  REGION_LINEAR,
  REGION_SIZE,
  REGION_STRIDE,
  RING_EMPTY,
  RING_SINCE,
  RINGF_PACKED,
  RINGS_PER_PORT,
  SCRATCH_BASE,
  SCRATCH_STRIDE,
  SWITCH_FORWARDING,
  SWITCH_NOW,
  SWITCH_PORTS,
  SWITCH_WORKERS,
  WINDOW_BASE,
  WORKER_BASE,
  WORKER_CURRENT,
  WORKER_GENERATION,
  WORKER_LOCKED,
} from '../../src/abi/layout.ts';
import {
  F_EVENT_IDX,
  F_INDIRECT_DESC,
  F_MRG_RXBUF,
  F_RING_PACKED,
  F_VERSION_1,
} from '../../src/abi/virtio.ts';
import { Control, ringAddress } from '../../src/memory/control.ts';
import { roundUp } from '../../src/memory/spans.ts';
import { bit, headerLength, ringFlags } from '../../src/virtio/features.ts';
import { type Datapath, loadDatapath } from '../../src/worker/datapath.ts';
import type { QueueSpec, TestQueue } from './queue.ts';
import { PackedQueue } from './queue-packed.ts';
import { SplitQueue } from './queue-split.ts';

/** Linear memory of one port. */
export const ARENA = 0x200_0000;
/** Polls without a frame after which there are none; and where a ring waits for more (datapath/patience.ts). */
const QUIET = 12;
const PATIENCE = 400;

/** Features by bit number, as one word. */
export function features(...bits: number[]): bigint {
  return bits.reduce((sum, n) => sum | bit(n), 0n);
}

/** What most tests negotiate: everything about rings, nothing about offloads. */
export const PLAIN = features(F_VERSION_1, F_INDIRECT_DESC, F_EVENT_IDX, F_MRG_RXBUF);

export interface TestRegion {
  gpa: bigint;
  size: number;
  /** Offset in the port's arena. */
  at: number;
}

export interface PortSpec {
  features?: bigint;
  pairs?: number;
  /** Default: the whole arena at `gpaOf(index)`. */
  regions?: TestRegion[];
  /** As PORT_MTU: bytes, 0 = no limit. */
  mtu?: number;
  /** Bytes of linear memory that `alloc` gives out; default ARENA. */
  arena?: number;
}

/** For a rig that is watched (test/hostile/guard.ts). */
export interface RigOptions {
  /** Bytes of linear memory left between the ports', zeroed by clear() like theirs; default 0. */
  margin?: number;
  /** Runs what lets the datapath work: settle(), and each single call that may move frames. */
  watch?: <T>(work: () => T) => T;
}

/** GPA at which port `index` sees its arena: no two ports agree, and none sees itself at 0. */
export function gpaOf(index: number): bigint {
  return 0x1_0000_0000n * BigInt(index + 1);
}

export class Rig {
  readonly control = new Control();
  readonly view = new DataView(this.control.memory.buffer);
  readonly bytes = this.control.bytes;
  readonly datapath: Datapath;
  /** Ring indices in the order in which the datapath called or latched them. */
  readonly calls: number[] = [];
  readonly latched: number[] = [];
  readonly ports: TestPort[] = [];
  /** Runs inside the datapath's call-out, that is, in the middle of a burst. */
  onCall: (ring: number) => void = () => {};
  /** The same when it wants page `page` of a paged region at `linear`; whether it is there now. */
  onPage: (page: number, linear: number) => boolean = () => false;
  /** The clock that bursts are timed by, milliseconds; at 0 none is, and ports pay list prices. */
  now: () => number = () => 0;
  /** Whether port `index` negotiates packed rings, besides what its spec says (formats.ts). */
  packed: (index: number) => boolean = () => false;
  /** Linear memory up to here is some port's. */
  window = WINDOW_BASE;
  readonly #margin: number;
  readonly #watch: <T>(work: () => T) => T;
  #heap = HEAP_BASE;
  #generation = 0;

  constructor({ margin = 0, watch = (work) => work() }: RigOptions = {}) {
    this.#margin = margin;
    this.#watch = watch;
    const exported = loadDatapath(this.control.memory, {
      now: () => this.now(),
      call: (ring) => {
        this.calls.push(ring);
        this.onCall(ring);
      },
      latched: (ring) => this.latched.push(ring),
      pageIn: (_fd, page, linear) => (this.onPage(page >>> 0, linear >>> 0) ? 1 : 0),
    });
    this.datapath = {
      ...exported,
      poll: () => watch(() => exported.poll()),
      armAll: () => watch(() => exported.armAll()),
      activate: (ring) => watch(() => exported.activate(ring)),
    };
    this.clear();
  }

  /** Back to a switch without ports. Scratch is filled with junk: nothing may rely on it. */
  clear(): void {
    this.bytes.fill(0, PAGE, SCRATCH_BASE);
    this.bytes.fill(0xa5, SCRATCH_BASE, SCRATCH_BASE + SCRATCH_STRIDE);
    if (this.#margin > 0) this.bytes.fill(0, WINDOW_BASE, this.window);
    this.window = WINDOW_BASE;
    this.#heap = HEAP_BASE;
    this.ports.length = 0;
    this.calls.length = 0;
    this.latched.length = 0;
    this.onCall = () => {};
    this.onPage = () => false;
    this.control.set(SWITCH_WORKERS, 1);
    this.control.set(SWITCH_NOW, 1);
    this.control.set(WORKER_BASE + WORKER_LOCKED, NO_RING);
    this.control.set(WORKER_BASE + WORKER_CURRENT, NO_RING);
    this.datapath.init(0);
    this.publish();
  }

  /** What main does after a change: the next poll looks at everything anew. */
  publish(): void {
    this.control.set(WORKER_BASE + WORKER_GENERATION, ++this.#generation);
    this.control.set(SWITCH_PORTS, this.ports.length);
  }

  /** Zeroed driver heap. */
  heap(length: number): number {
    const at = this.#heap;
    this.#heap += Math.ceil(length / 64) * 64;
    this.bytes.fill(0, at, this.#heap);
    return at;
  }

  /** Linear memory for a port. */
  place(length: number): number {
    const at = this.window + this.#margin;
    this.window = at + length + this.#margin;
    return at;
  }

  port(spec: PortSpec = {}): TestPort {
    const port = new TestPort(this, this.ports.length, spec);
    this.ports.push(port);
    this.publish();
    return port;
  }

  /** Joins two ports by a wire. */
  wire(a: TestPort, b: TestPort): void {
    this.control.set(SWITCH_FORWARDING, FORWARD_WIRE);
    a.set(PORT_PEER, b.index);
    b.set(PORT_PEER, a.index);
  }

  /** Polls until nothing moves any more; returns the frames taken. */
  settle(): number {
    return this.#watch(() => {
      let total = 0;
      for (let idle = 0; idle < QUIET || (idle < PATIENCE && this.#waiting()); ) {
        const moved = this.datapath.poll();
        total += moved;
        idle = moved > 0 ? 0 : idle + 1;
      }
      return total;
    });
  }

  /** Whether a ring is left for more frames to come. The others do not tire of it, and ask for no kick. */
  #waiting(): boolean {
    const rings = this.ports.flatMap(({ index }) =>
      Array.from({ length: MAX_PAIRS }, (_, pair) =>
        ringAddress(index * RINGS_PER_PORT + 2 * pair + 1),
      ),
    );
    const waiting = rings.some((ring) => this.control.get(ring + RING_SINCE) !== 0);
    if (waiting) for (const ring of rings) this.control.set(ring + RING_EMPTY, 0);
    return waiting;
  }
}

export class TestPort {
  readonly rig: Rig;
  readonly index: number;
  readonly features: bigint;
  readonly headerLength: number;
  /** Linear address of this port's memory. */
  readonly base: number;
  /** Bytes that `alloc` gives out. */
  readonly arena: number;
  readonly regions: TestRegion[];
  readonly queues: TestQueue[] = [];
  /** Highest linear address that `alloc` has given out. */
  top: number;
  readonly #at: number;
  readonly #gpa: bigint;
  #cursor: number;

  constructor(rig: Rig, index: number, spec: PortSpec) {
    this.rig = rig;
    this.index = index;
    const packed = rig.packed(index) ? bit(F_RING_PACKED) : 0n;
    this.features = (spec.features ?? PLAIN) | packed;
    this.headerLength = headerLength(this.features);
    this.arena = spec.arena ?? ARENA;
    this.#gpa = gpaOf(index);
    this.regions = spec.regions ?? [{ gpa: this.#gpa, size: this.arena, at: 0 }];
    this.base = rig.place(Math.max(this.arena, ...this.regions.map(({ at, size }) => at + size)));
    this.#cursor = this.top = this.base + PAGE;
    this.#at = PORT_BASE + index * PORT_STRIDE;
    rig.control.set64(this.#at + PORT_FEATURES, this.features);
    this.set(PORT_STATE, PORT_UP);
    this.set(PORT_HDR_LEN, this.headerLength);
    this.set(PORT_PEER, NO_PORT);
    this.set(PORT_MTU, spec.mtu ?? 0);
    this.setRegions(this.regions);
    this.setPairs(Array.from({ length: spec.pairs ?? 1 }, (_, pair) => pair));
    this.set(PORT_RINGS, (spec.pairs ?? 1) * 2);
  }

  set(field: number, value: number): void {
    this.rig.control.set(this.#at + field, value);
  }

  /** The pairs that may be delivered to. */
  setPairs(pairs: number[]): void {
    for (const [i, pair] of pairs.entries()) this.rig.bytes[this.#at + PORT_RX_LIST + i] = pair;
    this.set(PORT_RX_PAIRS, pairs.length);
  }

  setRegions(regions: TestRegion[]): void {
    const table = REGION_BASE + this.index * MAX_REGIONS * REGION_STRIDE;
    for (const [i, { gpa, size, at }] of regions.entries()) {
      this.rig.control.set64(table + i * REGION_STRIDE + REGION_GPA, gpa);
      this.rig.control.set64(table + i * REGION_STRIDE + REGION_SIZE, BigInt(size));
      this.rig.control.set(table + i * REGION_STRIDE + REGION_LINEAR, this.base + at);
    }
    this.set(PORT_REGIONS, regions.length);
  }

  /** A dirty log for all of this port's memory; queues of it are logged from `keepLog` on. */
  log(): { bitmap: number; pages: number } {
    const pages = Number(this.#gpa) / PAGE + this.arena / PAGE;
    const bitmap = this.rig.place(roundUp(pages / 8, PAGE));
    this.rig.control.set64(this.#at + PORT_LOG, BigInt(bitmap) | (BigInt(pages) << 32n));
    return { bitmap, pages };
  }

  /** Sets virtqueue `queue` up and running: even ones receive, odd ones send. */
  queue(queue: number, spec: QueueSpec = {}): TestQueue {
    const flags = spec.flags ?? ringFlags(this.features);
    const made = new (flags & RINGF_PACKED ? PackedQueue : SplitQueue)(this, queue, spec);
    this.queues[queue] = made;
    this.rig.publish();
    return made;
  }

  /** Memory of this port, linear; comes round again when the arena is used up. */
  alloc(length: number, align = 1): number {
    let at = Math.ceil(this.#cursor / align) * align;
    const end = this.base + this.arena;
    // The first eighth is the rings', never given out twice.
    if (at + length > end) at = this.base + this.arena / 8;
    this.#cursor = at + length;
    this.top = Math.max(this.top, this.#cursor);
    return at;
  }

  /** Default region: linear address to GPA. */
  gpa(linear: number): bigint {
    return this.#gpa + BigInt(linear - this.base);
  }
}
