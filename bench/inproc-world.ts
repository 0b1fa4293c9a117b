// Ports on a datapath without threads or peers: our own drivers fill all rings while the clock stands,
// and only poll() is timed. What inproc.ts measures is measured in such a world.

import { DRV_ERRORS, SEG_WRITE } from '../src/abi/driver.ts';
import {
  FORWARD_WIRE,
  PAGE,
  PORT_PEER,
  SWITCH_FDB_FULL,
  SWITCH_FORWARDING,
  SWITCH_WORKERS,
} from '../src/abi/layout.ts';
import * as V from '../src/abi/virtio.ts';
import { roundUp } from '../src/memory/spans.ts';
import type { Datapath } from '../src/worker/datapath.ts';
import { concat, frame, header } from '../test/datapath/frames.ts';
import { packet } from '../test/datapath/packets.ts';
import { driverOn, type TestQueue } from '../test/datapath/queue.ts';
import { features, PLAIN, Rig } from '../test/datapath/rig.ts';

/** Bytes of a frame; 'imix' is 7 x 64, 4 x 594, 1 x 1518; 'tso' is 64 KiB, passed on whole. */
export type Size = number | 'imix' | 'tso';

const IMIX = [64, 594, 64, 594, 64, 64, 1518, 64, 594, 64, 594, 64];
/** 45 segments of 1448 B. */
const TSO_PAYLOAD = 65160;
const TSO_SEGMENT = 1448;
/** Ethernet, IPv4, TCP with three words of options. */
const TSO_FRAME = 14 + 20 + 32 + TSO_PAYLOAD;
const TSO_PACKET = {
  ...{ tags: [], version: 4 as const, options: 0, extensions: [], protocol: 6 as const },
  ...{ tcpOptions: 3, flags: 0x18, payload: TSO_PAYLOAD, seed: 1 },
};
/** Of virtio-net. */
const HEADER = 12;
/** Bytes between two buffers, so that not all begin in the same sets of a cache. */
const GAP = 128;

const FORMATS: Record<string, bigint> = {
  split: 0n,
  packed: features(V.F_RING_PACKED),
  'in-order': features(V.F_RING_PACKED, V.F_IN_ORDER),
};
const TSO = features(V.F_CSUM, V.F_HOST_TSO4, V.F_GUEST_CSUM, V.F_GUEST_TSO4);

export interface WorldSpec {
  size: Size;
  /** split, packed, in-order (packed with VIRTIO_F_IN_ORDER). */
  format: string;
  /** Entries of each ring; default 256. */
  ring?: number;
  /** Entries of receive rings, where they differ. */
  receive?: number;
  /** Ports, all up with their rings started; default 2. */
  ports?: number;
  /** How many of them send; default all. */
  busy?: number;
  /** Queue pairs of each port; default 1. */
  pairs?: number;
  /** Bytes of a receive buffer; default 2 KiB, for 64 KiB frames one that holds them. */
  buffer?: number;
  /** Default switch. */
  forwarding?: 'switch' | 'wire';
  /** To which port its frame number `n` goes; default: its neighbour, 0 to 1 and 1 to 0. */
  target?: (from: number, n: number) => number;
  /** Entries in the FDB, the busy ports' but for one of each idle port; default: one a port. */
  addresses?: number;
  /** Frames are from and to any of their ports' addresses, not always the same; default false. */
  roam?: boolean;
  /** Everything written is marked in dirty logs, as while guests migrate; default false. */
  log?: boolean;
  /** With more than one, receive rings are locked (datapath/deliver.ts); default 1. */
  workers?: number;
}

/** A ring's driver and its buffers: token t is the segment {linear, length} at `list` + 8 t. */
export interface Queue {
  drv: number;
  ring: number;
  list: number;
}

/** Puts all buffers that came back into the ring again and shows them. */
export function refill(datapath: Datapath, queue: Queue, again?: (token: number) => void): void {
  const { drv, ring, list } = queue;
  for (;;) {
    const token = datapath.drvPop(drv);
    if (token < 0) break;
    again?.(token);
    datapath.drvAdd(drv, list + token * 8, 1, token, 0);
  }
  if (datapath.drvPublish(drv) !== 0) datapath.activate(ring);
}

/** Polls until at least `frames` were taken; returns how many. Throws when nothing moves any more. */
export function pollFor(datapath: Datapath, frames: number): number {
  let taken = 0;
  for (let vain = 0; taken < frames; ) {
    const moved = datapath.poll();
    taken += moved;
    vain = moved > 0 ? 0 : vain + 1;
    if (vain > 1_000_000) throw new Error(`stalled after ${taken} of ${frames} frames`);
  }
  return taken;
}

export class World {
  readonly rig = new Rig();
  /** Rings that are sent on, and received on. */
  readonly tx: Queue[] = [];
  readonly rx: Queue[] = [];
  /** Frames that a lap takes: half of what the rings hold, so that no burst is a short one. */
  readonly lapFrames: number;
  /** Bytes of a frame, on average. */
  readonly frameBytes: number;
  readonly #spec: WorldSpec;
  readonly #rings: { tx: TestQueue[]; rx: TestQueue[] } = { tx: [], rx: [] };
  /** Addresses of each port that sends. */
  readonly #hosts: number;
  #dice = 1;
  /** The next token to copy. */
  #copied = 0;
  /** Frames taken and delivered before the count began. */
  #before = { sent: 0, received: 0 };

  constructor(spec: WorldSpec) {
    const { size, format, ring = 256, ports = 2, busy = ports, pairs = 1, addresses = 0 } = spec;
    const { receive = ring, buffer = size === 'tso' ? HEADER + TSO_FRAME : 2048 } = spec;
    const { rig } = this;
    const kind = FORMATS[format];
    if (kind === undefined) throw new RangeError(`there are no rings '${format}'`);
    const acked = PLAIN | kind | (size === 'tso' ? TSO : 0n);
    const longest = size === 'imix' ? Math.max(...IMIX) : lengthOf(size, 0);
    this.#spec = spec;
    this.#hosts = Math.max(1, Math.floor((addresses - ports + busy) / busy));
    this.lapFrames = (busy * pairs * ring) >> 1;
    this.frameBytes = IMIX.reduce((sum, _, n) => sum + lengthOf(size, n), 0) / IMIX.length;
    rig.now = () => performance.now();
    if (spec.forwarding === 'wire') rig.control.set(SWITCH_FORWARDING, FORWARD_WIRE);
    // 1.1 KiB a buffer for rings and the driver's tables.
    const perPair = receive * (stride(buffer) + 1100) + ring * (stride(HEADER + longest) + 1100);
    const arena = roundUp(pairs * perPair + 0x1_0000, PAGE);
    for (let index = 0; index < ports; index++) {
      const port = rig.port({ features: acked, pairs, arena });
      port.set(PORT_PEER, index ^ 1);
      if (spec.log) port.log();
      for (let pair = 0; pair < pairs; pair++) {
        const rx = port.queue(pair * 2, { size: receive });
        this.#rings.rx.push(rx);
        this.rx.push(this.#driver(rx, Array(receive).fill(buffer), SEG_WRITE));
        const tx = port.queue(pair * 2 + 1, { size: ring });
        this.#rings.tx.push(tx);
        if (index >= busy) continue;
        const frames = Array.from({ length: ring }, (_, n) => this.#frame(index, pair, n));
        this.tx.push(this.#driver(tx, frames, 0));
      }
      const hosts = index < busy ? this.#hosts : 1;
      for (let host = 0; host < hosts; host++) rig.datapath.fdbLearn(address(index, host), index);
    }
    if (rig.control.get(SWITCH_FDB_FULL) > 0) throw new Error('the FDB does not hold them all');
    if (spec.log) {
      for (const queue of [...this.#rings.rx, ...this.#rings.tx]) queue.keepLog();
    }
    rig.control.set(SWITCH_WORKERS, spec.workers ?? 1);
    rig.publish();
    // Until a flow was heard it may go to a ring that another fills: what is lost then is no mistake.
    for (let laps = 0; laps < 32; laps++) this.lap();
    this.#before = this.#counts();
  }

  /** A driver on a ring, full of buffers: of that many bytes, or with these bytes in them. */
  #driver(queue: TestQueue, buffers: (number | Uint8Array)[], write: number): Queue {
    const { rig } = this;
    const { port } = queue;
    const made: Queue = { drv: driverOn(queue), ring: queue.index, list: rig.heap(queue.size * 8) };
    rig.datapath.drvDisarm(made.drv);
    for (const [token, buffer] of buffers.entries()) {
      const length = typeof buffer === 'number' ? buffer : buffer.length;
      const at = port.alloc(stride(length), 64);
      if (typeof buffer !== 'number') rig.bytes.set(buffer, at);
      rig.control.set(made.list + token * 8, at);
      rig.control.set(made.list + token * 8 + 4, (length | write) >>> 0);
      rig.datapath.drvAdd(made.drv, made.list + token * 8, 1, token, 0);
    }
    return made;
  }

  /** Frame number `n` of a queue, with its virtio header: of a flow that comes back on the same pair. */
  #frame(from: number, pair: number, n: number): Uint8Array {
    const { size, target = (port: number) => port ^ 1 } = this.#spec;
    const to = target(from, n);
    let bytes: Uint8Array;
    let asked = header();
    if (size === 'tso') {
      const made = packet(TSO_PACKET);
      bytes = made.bytes;
      asked = header({ ...made.header, gsoSize: TSO_SEGMENT });
    } else {
      bytes = frame({ type: 0x0800, length: lengthOf(size, n) });
      const ip = Uint8Array.of(0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0);
      const flow = from < to ? [1, 10 + pair, 2, 80] : [2, 80, 1, 10 + pair];
      const [fromHost, fromPort, toHost, toPort] = flow as [number, number, number, number];
      const addresses = Uint8Array.of(10, 0, 0, fromHost, 10, 0, 0, toHost);
      bytes.set([...ip, ...addresses, 4, fromPort, 4, toPort], 14);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    putAddress(view, 0, to, 0);
    putAddress(view, 6, from, 0);
    return concat(asked, bytes);
  }

  /** Nanoseconds of poll() a frame. */
  lap(): number {
    const { datapath } = this.rig;
    for (const queue of this.rx) refill(datapath, queue);
    for (const queue of this.tx) refill(datapath, queue, this.#again(queue));
    const start = performance.now();
    const taken = pollFor(datapath, this.lapFrames);
    return ((performance.now() - start) * 1e6) / taken;
  }

  /** Nanoseconds that a frame's bytes alone take, from and to the same memory as in a lap. */
  copies(): number {
    const { datapath, control } = this.rig;
    const at = (queue: Queue) => control.get(queue.list + this.#copied * 8);
    const start = performance.now();
    for (let i = 0; i < this.lapFrames; i += this.tx.length) {
      for (const [k, from] of this.tx.entries()) {
        datapath.copy(at(this.rx[k ^ 1]!), at(from), HEADER + this.frameBytes);
      }
      this.#copied = (this.#copied + 1) % (this.#spec.ring ?? 256);
    }
    return ((performance.now() - start) * 1e6) / this.lapFrames;
  }

  /** What happens to a frame before it is sent once more: it goes from and to other addresses. */
  #again(queue: Queue): ((token: number) => void) | undefined {
    if (!this.#spec.roam) return undefined;
    const { view, control } = this.rig;
    return (token) => {
      const at = control.get(queue.list + token * 8) + HEADER;
      for (const field of [2, 8]) {
        this.#dice = (Math.imul(this.#dice, 1664525) + 1013904223) >>> 0;
        view.setUint32(at + field, (this.#dice >>> 8) % this.#hosts);
      }
    };
  }

  #counts() {
    const frames = (rings: TestQueue[]) => rings.reduce((sum, ring) => sum + ring.frames, 0);
    return { sent: frames(this.#rings.tx), received: frames(this.#rings.rx) };
  }

  /** Throws unless every frame taken so far was delivered, and all that came back made sense. */
  check(): void {
    const now = this.#counts();
    const sent = now.sent - this.#before.sent;
    const received = now.received - this.#before.received;
    const errors = [...this.tx, ...this.rx].some(
      ({ drv }) => this.rig.control.get(drv + DRV_ERRORS) > 0,
    );
    if (sent === received && !errors) return;
    const { target: _, ...spec } = this.#spec;
    throw new Error(
      `${JSON.stringify(spec)}: ${sent} frames taken, ${received} delivered` +
        (errors ? '; a ring came back broken' : ''),
    );
  }
}

/** Of frame number `n`, bytes. */
function lengthOf(size: Size, n: number): number {
  if (size === 'tso') return TSO_FRAME;
  return size === 'imix' ? IMIX[n % IMIX.length]! : size;
}

/** Bytes from one buffer to the next. */
function stride(length: number): number {
  return roundUp(length + GAP, 64);
}

// Host `host` of port `port` has the address 02:port:host, counted up from the last byte.

function putAddress(view: DataView, at: number, port: number, host: number): void {
  view.setUint8(at, 2);
  view.setUint8(at + 1, port);
  view.setUint32(at + 2, host);
}

/** The same as the FDB's functions take it: 48 bits, the first byte lowest. */
function address(port: number, host: number): bigint {
  const bytes = new DataView(new ArrayBuffer(8));
  putAddress(bytes, 0, port, host);
  return bytes.getBigUint64(0, true);
}
