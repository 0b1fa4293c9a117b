// Ports of the netmap-like API without a device behind them: TX rings joined to RX rings by copying.

import {
  type Headers,
  NetmapError,
  type NetmapMemory,
  type NetmapOptions,
  type NetmapPort,
  type NetmapRing,
  NS_MOREFRAG,
  type PortEvents,
  type RingCounters,
} from '../../src/netmap/types.ts';
import type { Time } from '../../src/tools/time.ts';

/** A clock that goes on by what reading it and a turn of the event loop may take, and over every sleep at once. */
export class FakeTime implements Time {
  ns = 5e9;
  /** Nanoseconds that reading the clock takes. */
  step = 1000;
  /** Every sleep is late by as much. */
  late = 0;
  turns = 0;

  now(): number {
    this.ns += this.step;
    return this.ns;
  }

  wall(): number {
    return 1_700_000_123_456.789;
  }

  async sleep(ms: number): Promise<void> {
    this.ns += ms * 1e6 + this.late;
    await this.turn();
  }

  turn(): Promise<void> {
    this.turns++;
    this.ns += 20_000;
    return new Promise((resolve) => setImmediate(resolve));
  }
}

export class FakeMemory implements NetmapMemory {
  readonly bufferSize: number;
  readonly bytes: Uint8Array;
  readonly #free: number[];
  readonly total: number;

  constructor(buffers = 4096, bufferSize = 2048) {
    this.bufferSize = bufferSize;
    this.bytes = new Uint8Array(buffers * bufferSize);
    this.total = buffers;
    // 0 and 1 are netmap's own.
    this.#free = Array.from({ length: buffers - 2 }, (_, i) => i + 2);
  }

  takeBuffers(count: number): number[] {
    if (count > this.#free.length) throw new NetmapError('memory', 'no more buffers');
    return this.#free.splice(0, count);
  }

  giveBuffers(indices: readonly number[]): void {
    this.#free.push(...indices);
  }

  addressOf(index: number): number {
    return index * this.bufferSize;
  }

  close(): void {}
}

export class FakeRing implements NetmapRing {
  readonly direction: 'tx' | 'rx';
  readonly id: number;
  readonly host: boolean;
  readonly slots: number;
  readonly bufferSize: number;
  readonly memory: FakeMemory;
  head = 0;
  cur = 0;
  tail: number;
  /** TX: the first slot that is not sent. RX: where the next frame goes. */
  device = 0;
  /** RX: up to where slots are given back. */
  given = 0;
  peer: FakeRing | undefined;
  readonly counters: RingCounters;
  readonly #buffers: Uint32Array;
  readonly #lengths: Uint32Array;
  readonly #flags: Uint16Array;
  readonly #offsets: Uint16Array;

  constructor(
    direction: 'tx' | 'rx',
    id: number,
    host: boolean,
    slots: number,
    memory: FakeMemory,
    headroom: number,
  ) {
    this.direction = direction;
    this.id = id;
    this.host = host;
    this.slots = slots;
    this.memory = memory;
    this.bufferSize = memory.bufferSize;
    this.tail = direction === 'tx' ? slots - 1 : 0;
    this.#buffers = Uint32Array.from(memory.takeBuffers(slots));
    this.#lengths = new Uint32Array(slots);
    this.#flags = new Uint16Array(slots);
    this.#offsets = new Uint16Array(slots).fill(headroom);
    const zero = { frames: 0, bytes: 0, syncs: 0, badSlots: 0, full: 0, copied: 0, lost: 0 };
    this.counters = zero;
  }

  get space(): number {
    const space = this.tail - this.head;
    return space < 0 ? space + this.slots : space;
  }

  buffer(i: number): number {
    return this.#buffers[i]!;
  }

  setBuffer(i: number, index: number): void {
    this.#buffers[i] = index;
  }

  length(i: number): number {
    return this.#lengths[i]!;
  }

  setLength(i: number, bytes: number): void {
    this.#lengths[i] = bytes;
  }

  flags(i: number): number {
    return this.#flags[i]!;
  }

  setFlags(i: number, flags: number): void {
    this.#flags[i] = flags;
  }

  offset(i: number): number {
    return this.#offsets[i]!;
  }

  setOffset(i: number, bytes: number): void {
    this.#offsets[i] = bytes;
  }

  address(i: number): number {
    return this.#buffers[i]! * this.bufferSize + this.#offsets[i]!;
  }

  bytes(i: number): Uint8Array {
    const at = this.address(i);
    return this.memory.bytes.subarray(at, at + this.length(i));
  }

  next(i: number): number {
    return i + 1 === this.slots ? 0 : i + 1;
  }

  /** RX: slots that the device may fill. */
  get free(): number {
    const used = this.device - this.given;
    return this.slots - 1 - (used < 0 ? used + this.slots : used);
  }
}

export interface FakeOptions {
  time: FakeTime;
  slots?: number;
  queues?: number;
  memory?: FakeMemory;
  headroom?: number;
  /** Also a pair of host rings. */
  host?: boolean;
}

export class FakePort implements NetmapPort {
  readonly name: string;
  readonly memory: FakeMemory;
  readonly tx: FakeRing[] = [];
  readonly rx: FakeRing[] = [];
  readonly features: readonly string[] = ['VIRTIO_F_VERSION_1'];
  headers: Headers = 'shared';
  up = true;
  closed = false;
  /** Frames that the wire is to lose. */
  lose: ((frame: Uint8Array) => boolean) | undefined;
  readonly #time: FakeTime;
  readonly #listeners: ((error: NetmapError) => void)[] = [];

  constructor(name: string, options: FakeOptions) {
    this.name = name;
    this.#time = options.time;
    this.memory = options.memory ?? new FakeMemory();
    const { slots = 64, queues = 1, headroom = 64, host = false } = options;
    for (let id = 0; id < queues + (host ? 1 : 0); id++) {
      const of = (direction: 'tx' | 'rx') =>
        new FakeRing(direction, id, id >= queues, slots, this.memory, headroom);
      this.tx.push(of('tx'));
      this.rx.push(of('rx'));
    }
  }

  txSync(ring: NetmapRing): number {
    this.#check();
    const tx = ring as FakeRing;
    tx.counters.syncs++;
    while (tx.device !== tx.head && this.#sendFrame(tx));
    tx.tail = tx.device === 0 ? tx.slots - 1 : tx.device - 1;
    return tx.space;
  }

  rxSync(ring: NetmapRing): number {
    this.#check();
    const rx = ring as FakeRing;
    rx.counters.syncs++;
    rx.given = rx.head;
    rx.tail = rx.device;
    return rx.space;
  }

  #sendFrame(tx: FakeRing): boolean {
    let slots = 1;
    let last = tx.device;
    while ((tx.flags(last) & NS_MOREFRAG) !== 0) {
      last = tx.next(last);
      if (last === tx.head) return false;
      slots++;
    }
    const rx = tx.peer;
    if (rx !== undefined && rx.free < slots) return false;
    const lost = this.lose?.(tx.bytes(tx.device)) ?? false;
    for (; slots > 0; slots--) {
      const i = tx.device;
      if (rx !== undefined && !lost) {
        rx.setLength(rx.device, tx.length(i));
        rx.setFlags(rx.device, tx.flags(i) & NS_MOREFRAG);
        rx.memory.bytes.set(tx.bytes(i), rx.address(rx.device));
        rx.device = rx.next(rx.device);
      }
      tx.counters.bytes += tx.length(i);
      tx.device = tx.next(i);
    }
    tx.counters.frames++;
    return true;
  }

  #check(): void {
    if (!this.up) throw new NetmapError('down', `${this.name} is gone: start it again`);
  }

  poll(): boolean {
    throw new Error('the tools do not hold the thread');
  }

  async wait(timeoutMs: number, options: { tx?: boolean; rx?: boolean } = {}): Promise<boolean> {
    for (let ms = 0; ; ms++) {
      if (!this.up) return false;
      const found =
        (options.rx === true && this.rx.some((ring) => this.rxSync(ring) > 0)) ||
        (options.tx === true && this.tx.some((ring) => this.txSync(ring) > 0));
      if (found || ms === timeoutMs) return found;
      await this.#time.sleep(1);
    }
  }

  counters(ring: NetmapRing): RingCounters {
    return (ring as FakeRing).counters;
  }

  on<K extends keyof PortEvents>(event: K, listener: (value: PortEvents[K]) => void): this {
    if (event === 'down') this.#listeners.push(listener as (error: NetmapError) => void);
    return this;
  }

  /** The other side goes away; `told` only: syncs do not show it yet. */
  goDown(told = false): void {
    this.up = told;
    const error = new NetmapError('down', `${this.name} is gone: start it again`);
    for (const listener of this.#listeners) listener(error);
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

export function joinRings(tx: readonly FakeRing[], rx: readonly FakeRing[]): void {
  tx.forEach((ring, i) => {
    ring.peer = rx[i];
  });
}

/** Two ports, each one's TX rings joined to the other's RX rings. */
export function backToBack(options: FakeOptions, names = ['a', 'b']): [FakePort, FakePort] {
  const a = new FakePort(names[0]!, options);
  const b = new FakePort(names[1]!, options);
  joinRings(a.tx, b.rx);
  joinRings(b.tx, a.rx);
  return [a, b];
}

/** What a test calls in the place of openNetmap. */
export function opener(ports: Record<string, FakePort>) {
  const opened: { name: string; options: NetmapOptions }[] = [];
  const open = (name: string, options: NetmapOptions): Promise<NetmapPort> => {
    opened.push({ name, options });
    const port = ports[name];
    if (port !== undefined) return Promise.resolve(port);
    return Promise.reject(new NetmapError('name', `'${name}' names no port: see vhop ports`));
  };
  return { open, opened };
}

/** Takes all frames out of a port's RX rings; fragments are joined. */
export function drain(port: FakePort): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (const ring of port.rx) {
    let parts: number[] = [];
    for (let left = port.rxSync(ring); left > 0; left--) {
      const i = ring.head;
      parts.push(...ring.bytes(i));
      if ((ring.flags(i) & NS_MOREFRAG) === 0) {
        frames.push(Uint8Array.from(parts));
        parts = [];
      }
      ring.head = ring.cur = ring.next(i);
    }
    port.rxSync(ring);
  }
  return frames;
}
