// Netmap rings on a device of ours: the rings as an application has them, reference devices as what is
// behind their virtqueues, and a count of all buffers.

import assert from 'node:assert/strict';
import { after } from 'node:test';
import {
  KIND_QUEUE,
  KR_DRV,
  KR_HWCUR,
  KR_KIND,
  KR_STAGE,
  MAX_FRAGS,
  NS_MOREFRAG,
} from '../../src/abi/netmap.ts';
import {
  F_EVENT_IDX,
  F_IN_ORDER,
  F_INDIRECT_DESC,
  F_MRG_RXBUF,
  F_RING_PACKED,
  F_VERSION_1,
} from '../../src/abi/virtio.ts';
import { openHome } from '../../src/netmap/home.ts';
import { BASE, BufferMemory } from '../../src/netmap/memory.ts';
import { Port } from '../../src/netmap/port.ts';
import type { Queue } from '../../src/netmap/queue.ts';
import { QueueRings } from '../../src/netmap/queue-rings.ts';
import type { Ring } from '../../src/netmap/ring.ts';
import { type Headers, NetmapError, type NetmapErrorCode } from '../../src/netmap/types.ts';
import { bit, has } from '../../src/virtio/features.ts';
import {
  PackedDevice,
  type ReferenceDevice,
  type Segment,
  SplitDevice,
  type Taken,
} from '../datapath/reference.ts';

export const home = openHome();
export const view = new DataView(home.control.memory.buffer);
after(() => home.close());

export const HEADER = 12;

/** Features by the names tests use. */
export interface Traits {
  packed?: boolean;
  indirect?: boolean;
  mergeable?: boolean;
  inOrder?: boolean;
  events?: boolean;
}

export function featuresOf(traits: Traits): bigint {
  const { packed, indirect = true, mergeable = true, inOrder, events } = traits;
  return (
    bit(F_VERSION_1) |
    (packed ? bit(F_RING_PACKED) : 0n) |
    (indirect ? bit(F_INDIRECT_DESC) : 0n) |
    (mergeable ? bit(F_MRG_RXBUF) : 0n) |
    (inOrder ? bit(F_IN_ORDER) : 0n) |
    (events ? bit(F_EVENT_IDX) : 0n)
  );
}

export interface Shape extends Traits {
  ringSize?: number;
  headers?: Headers;
  headroom?: number;
  pairs?: number;
  memory?: BufferMemory;
}

/** Small, so that all of it can be counted. */
export function smallMemory(shape: { bufferSize?: number; buffers?: number } = {}): BufferMemory {
  const { bufferSize = 2048, buffers = 2048 } = shape;
  return new BufferMemory(home, { bufferSize, buffers, rings: 4 * 2 ** 20 });
}

export class Bench {
  readonly memory: BufferMemory;
  readonly queues: QueueRings;
  readonly port: Port;
  readonly features: bigint;
  /** What the port said of the device. */
  readonly faults: string[] = [];
  readonly headers: Headers;
  /** By queue: 2k receives, 2k + 1 sends. */
  devices: TestDevice[] = [];
  readonly #own: boolean;
  readonly #pairs: number;

  constructor(shape: Shape = {}) {
    const { ringSize = 16, headers = 'shared', headroom = 64, pairs = 1, memory } = shape;
    this.#own = memory === undefined;
    this.#pairs = pairs;
    this.memory = memory ?? smallMemory();
    this.headers = headers;
    this.features = featuresOf(shape);
    this.queues = new QueueRings({ memory: this.memory, ringSize, headers, headroom });
    this.port = new Port('bench', {
      memory: this.memory,
      headers,
      fault: (reason) => this.faults.push(reason),
      close: async () => {
        this.port.unwatch();
        this.queues.restock();
        this.queues.close();
      },
    });
    this.restart();
  }

  /** A fresh device behind the same port. */
  restart(features = this.features, pairs = this.#pairs): void {
    this.port.unwatch();
    this.queues.restock();
    this.queues.reset(features, pairs);
    const { rx, tx, callFds } = this.queues;
    this.devices = Array.from({ length: pairs * 2 }, (_, i) =>
      deviceOf(this.memory, this.queues.queueOf((i % 2 ? tx : rx)[i >> 1]!), features),
    );
    this.port.goUp({ rx, tx, wakeFds: callFds, features: [] });
  }

  get rx(): Ring {
    return this.port.rx[0]!;
  }

  get tx(): Ring {
    return this.port.tx[0]!;
  }

  /** What receives what we send, and what sends what we receive. */
  get sink(): TestDevice {
    return this.devices[1]!;
  }

  get source(): TestDevice {
    return this.devices[0]!;
  }

  async close(): Promise<void> {
    await this.port.close();
    if (!this.#own) return;
    census(this.memory, []);
    this.memory.close();
  }
}

function deviceOf(memory: BufferMemory, queue: Queue, features: bigint): TestDevice {
  const { size, addr } = queue.setUp();
  const linear = (address: bigint) => memory.linear + Number(address - BASE);
  const parts = { desc: linear(addr.desc), avail: linear(addr.avail), used: linear(addr.used) };
  const shape = {
    size,
    events: has(features, F_EVENT_IDX),
    inOrder: has(features, F_IN_ORDER),
    start: 0,
  };
  const ring = has(features, F_RING_PACKED)
    ? new PackedDevice(view, parts, shape, linear)
    : new SplitDevice(view, parts, shape, linear);
  return new TestDevice(ring, linear);
}

/** A frame as a device sees it. */
export interface Seen {
  header: Buffer;
  bytes: Buffer;
  segments: Segment[];
}

/** The device of one virtqueue. */
export class TestDevice {
  readonly ring: ReferenceDevice;
  /** Where an address that a driver gives is for us. */
  readonly linear: (address: bigint) => number;
  readonly held: Taken[] = [];

  constructor(ring: ReferenceDevice, linear: (address: bigint) => number) {
    this.ring = ring;
    this.linear = linear;
  }

  /** Takes up to `most` chains; how many. */
  take(most = Number.POSITIVE_INFINITY): number {
    let n = 0;
    for (; n < most; n++) {
      const chain = this.ring.take();
      if (!chain) break;
      this.held.push(chain);
    }
    return n;
  }

  /** What a chain that was sent holds. */
  read({ segments }: Taken): Seen {
    const parts = segments.map(({ addr, len, write }) => {
      assert.ok(!write && len > 0);
      const at = this.linear(addr);
      return Buffer.from(home.control.bytes.subarray(at, at + len));
    });
    const whole = Buffer.concat(parts);
    return { header: whole.subarray(0, HEADER), bytes: whole.subarray(HEADER), segments };
  }

  /** Takes all that was sent, and gives it back. */
  sent(): Seen[] {
    this.take();
    const seen = this.held.map((chain) => this.read(chain));
    while (this.held.length > 0) this.use(0);
    return seen;
  }

  /** Uses chain `pick` of those held. */
  use(pick: number, len = 0): void {
    this.ring.use(this.held.splice(pick, 1), len);
  }

  /**
   * Sends a frame into as many of the chains held as it takes, from `pick` on; false when there are too
   * few. The header says how many; `header` are its first ten bytes.
   */
  deliver(frame: Uint8Array, options: { header?: Uint8Array; pick?: number } = {}): boolean {
    const { header = new Uint8Array(10), pick = 0 } = options;
    const whole = Buffer.concat([header, Buffer.alloc(2), frame]);
    const chains: { chain: Taken; at: number; len: number }[] = [];
    for (let at = 0; at < whole.length; ) {
      const chain = this.held[pick + chains.length];
      if (!chain) return false;
      const room = chain.segments.reduce((sum, { len }) => sum + len, 0);
      chains.push({ chain, at, len: Math.min(room, whole.length - at) });
      at += room;
    }
    whole.writeUInt16LE(chains.length, 10);
    this.held.splice(pick, chains.length);
    for (const { chain, at, len } of chains) {
      this.write(chain, whole.subarray(at, at + len));
      this.ring.use([chain], len);
    }
    return true;
  }

  /** Writes bytes into a chain. */
  write({ segments }: Taken, bytes: Uint8Array): void {
    let done = 0;
    for (const { addr, len, write } of segments) {
      assert.ok(write);
      const part = bytes.subarray(done, done + len);
      home.control.bytes.set(part, this.linear(addr));
      done += part.length;
    }
  }
}

/** `length` bytes that derive from a number. */
export function pattern(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0, x = (seed * 2654435761 + 1) >>> 0; i < length; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

/** Puts a frame into the slots from head on, `piece` bytes a slot, and moves head and cur. */
export function put(ring: Ring, frame: Uint8Array, piece = frame.length): void {
  let { head } = ring;
  for (let at = 0; at < frame.length; at += piece) {
    const part = frame.subarray(at, at + piece);
    ring.setLength(head, part.length);
    ring.setFlags(head, at + piece < frame.length ? NS_MOREFRAG : 0);
    ring.bytes(head).set(part);
    head = ring.next(head);
  }
  ring.head = ring.cur = head;
}

/** Frames in the slots that the application holds, which it gives back with the next sync. */
export function taken(ring: Ring, most = Number.POSITIVE_INFINITY): Buffer[] {
  const frames: Buffer[] = [];
  let { head } = ring;
  while (head !== ring.tail && frames.length < most) {
    const parts: Buffer[] = [];
    for (let more = true; more; head = ring.next(head)) {
      assert.notEqual(head, ring.tail, 'half a frame');
      parts.push(Buffer.from(ring.bytes(head)));
      more = (ring.flags(head) & NS_MOREFRAG) !== 0;
    }
    frames.push(Buffer.concat(parts));
  }
  ring.head = ring.cur = head;
  return frames;
}

/** Each buffer of the memory is in one place: a slot of these rings, their devices, free, or in `extra`. */
export function census(
  memory: BufferMemory,
  rings: readonly Ring[],
  extra: readonly number[] = [],
) {
  const found = [...extra];
  for (const ring of rings) {
    if (ring.direction === 'tx' || ring.kget(KR_KIND) !== KIND_QUEUE) {
      found.push(...ring.buffersHeld());
      continue;
    }
    const outstanding = outstandingOf(ring.kget(KR_DRV));
    found.push(...outstanding);
    const stage = ring.kget(KR_STAGE);
    // Those at the device are all but those from hwcur to stage.
    const held = ring.slots - outstanding.length;
    let at = ring.kget(KR_HWCUR);
    for (let i = 0; i < held; i++, at = ring.next(at)) found.push(ring.buffer(at));
    assert.equal(at, stage, 'slots without a buffer');
  }
  const free = memory.takeBuffers(memory.free);
  memory.giveBuffers(free.toReversed());
  found.push(...free);
  assert.equal(found.length, memory.buffers);
  assert.equal(new Set(found).size, memory.buffers, 'a buffer is in two places');
}

/** Tokens of the chains outstanding at a driver, as Queue.outstanding finds them. */
function outstandingOf(drv: number): number[] {
  const size = home.control.get(drv + 12);
  return Array.from({ length: size }, (_, i) => drv + 128 + i * 8)
    .filter((record) => home.control.get16(record + 6) !== 0)
    .map((record) => home.control.get(record));
}

/** That `work` throws a NetmapError of this code; returns it. */
export function refused(code: NetmapErrorCode, work: () => unknown): NetmapError {
  let thrown: unknown;
  try {
    work();
  } catch (error) {
    thrown = error;
  }
  assert.ok(thrown instanceof NetmapError, `${thrown}`);
  assert.equal(thrown.code, code, thrown.message);
  return thrown;
}

export const LONGEST = MAX_FRAGS;
