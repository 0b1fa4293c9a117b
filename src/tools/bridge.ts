// Frames of one port's RX rings into another's TX rings, by swapping buffers where both are in one memory.

import type { NetmapPort, NetmapRing } from '../netmap/types.ts';
import { NetmapError, NS_BUF_CHANGED, NS_MOREFRAG } from '../netmap/types.ts';
import type { Time } from './time.ts';

const TURN = 2e6;
/** Nanoseconds to look again before waiting. */
const SPIN = 50e3;
/** Milliseconds between looks while frames wait for room. */
const ROOM = 1;
/** Milliseconds a wait lasts at most, so that Ctrl-C is seen. */
const SLICE = 100;
/** Nanoseconds that what was moved last may take to leave. */
const FLUSH = 1e9;

/** Where frames come from and where they go. */
export interface End {
  name: string;
  port: NetmapPort;
  tx: readonly NetmapRing[];
  rx: readonly NetmapRing[];
}

/** One direction. */
export class Path {
  readonly name: string;
  readonly from: End;
  readonly to: End;
  readonly #swaps: boolean;
  frames = 0;
  bytes = 0;

  constructor(from: End, to: End, copies: boolean) {
    this.name = `${from.name} -> ${to.name}`;
    this.from = from;
    this.to = to;
    this.#swaps = !copies && from.port.memory === to.port.memory;
  }

  get swaps(): boolean {
    return this.#swaps;
  }

  /**
   * Moves up to `burst` slots of each ring, and more only to complete a frame. RX ring k goes to TX ring
   * k: a flow stays in order. Returns how many slots moved.
   */
  move(burst: number): number {
    const { from, to } = this;
    let moved = 0;
    for (let k = 0; k < from.rx.length; k++) {
      const rx = from.rx[k]!;
      if (from.port.rxSync(rx) === 0) continue;
      moved += this.#moveRing(rx, to.tx[k % to.tx.length]!, burst);
    }
    // Each time, also for what an earlier sync found no room for.
    for (const tx of to.tx) to.port.txSync(tx);
    return moved;
  }

  /** Frames wait for room, or to be sent. */
  get waits(): boolean {
    const { from, to } = this;
    return from.rx.some((rx) => rx.space > 0) || to.tx.some((tx) => tx.space < tx.slots - 1);
  }

  #moveRing(rx: NetmapRing, tx: NetmapRing, burst: number): number {
    const count = this.#whole(rx, tx, burst);
    let i = rx.head;
    let k = tx.head;
    for (let left = count; left > 0; left--) {
      const length = rx.length(i);
      const more = rx.flags(i) & NS_MOREFRAG;
      if (this.#swaps) swap(rx, i, tx, k);
      else this.#copy(rx, i, tx, k, length);
      tx.setLength(k, length);
      tx.setFlags(k, this.#swaps ? more | NS_BUF_CHANGED : more);
      this.bytes += length;
      if (more === 0) this.frames++;
      i = rx.next(i);
      k = tx.next(k);
    }
    rx.head = rx.cur = i;
    tx.head = tx.cur = k;
    return count;
  }

  /** Slots to move: only whole frames, half of one would hold up what others send. */
  #whole(rx: NetmapRing, tx: NetmapRing, burst: number): number {
    const room = Math.min(rx.space, tx.space);
    let whole = 0;
    let i = rx.head;
    for (let n = 1; n <= room; n++) {
      if ((rx.flags(i) & NS_MOREFRAG) === 0) {
        whole = n;
        if (n >= burst) break;
      }
      i = rx.next(i);
    }
    const most = Math.min(rx.slots, tx.slots) - 1;
    if (whole === 0 && room === most) {
      throw new NetmapError(
        'memory',
        `${this.name}: a frame has more than ${most} slots: give both ports larger rings`,
      );
    }
    return whole;
  }

  #copy(rx: NetmapRing, i: number, tx: NetmapRing, k: number, length: number): void {
    if (length > tx.bufferSize - tx.offset(k)) {
      throw new NetmapError(
        'memory',
        `${this.name}: a frame of ${length} bytes is larger than the other port's buffers: ` +
          'open both with one size of buffers',
      );
    }
    const [source, target] = [this.from.port.memory.bytes, this.to.port.memory.bytes];
    const [from, to] = [rx.address(i), tx.address(k)];
    if (source === target) target.copyWithin(to, from, from + length);
    else target.set(source.subarray(from, from + length), to);
  }
}

/** Buffers change places, each with where its frame begins. */
function swap(rx: NetmapRing, i: number, tx: NetmapRing, k: number): void {
  const buffer = tx.buffer(k);
  const offset = tx.offset(k);
  tx.setBuffer(k, rx.buffer(i));
  tx.setOffset(k, rx.offset(i));
  rx.setBuffer(i, buffer);
  rx.setOffset(i, offset);
  // What the last frame left there, of fragments, is no part of the next.
  rx.setFlags(i, NS_BUF_CHANGED);
}

export interface BridgeOptions {
  paths: readonly Path[];
  burst: number;
  time: Time;
  signal: AbortSignal;
  /** Called once a second. */
  second(seconds: number): void;
}

/** Moves frames until the signal, or until a port goes down: then that is what it resolves to. */
export async function runBridge(options: BridgeOptions): Promise<NetmapError | undefined> {
  const { paths, time, signal } = options;
  const ports = [...new Set(paths.map((path) => path.from.port))];
  let down: NetmapError | undefined;
  for (const port of ports) {
    port.on('down', (error) => {
      down ??= error;
    });
  }
  const waits = new Waits(ports);
  let told = time.now();
  let turnAt = told + TURN;
  let idle: number | undefined;
  try {
    while (!signal.aborted && down === undefined) {
      const now = time.now();
      let moved = 0;
      for (const path of paths) moved += path.move(options.burst);
      if (moved > 0) idle = undefined;
      else {
        idle ??= now;
        if (now - idle >= SPIN) {
          if (paths.some((path) => path.waits)) await time.sleep(ROOM);
          else await waits.any();
          turnAt = 0;
        }
      }
      if (now < turnAt) continue;
      if (now - told >= 1e9) {
        options.second((now - told) / 1e9);
        told = now;
      }
      await time.turn();
      turnAt = time.now() + TURN;
    }
    await flush(paths, time);
  } catch (error) {
    if (!(error instanceof NetmapError)) throw error;
    down ??= error;
  } finally {
    await waits.end();
  }
  return down;
}

/** What was taken from one side goes out on the other. */
async function flush(paths: readonly Path[], time: Time): Promise<void> {
  const until = time.now() + FLUSH;
  for (const { to } of paths) {
    for (const tx of to.tx) {
      while (to.port.up && to.port.txSync(tx) < tx.slots - 1 && time.now() < until) {
        await time.sleep(ROOM);
      }
    }
  }
}

/** Waits for frames on any port. Those of the ports that had none go on: they are asked once. */
class Waits {
  readonly #ports: readonly NetmapPort[];
  readonly #pending = new Map<NetmapPort, Promise<unknown>>();

  constructor(ports: readonly NetmapPort[]) {
    this.#ports = ports;
  }

  async any(): Promise<void> {
    const waits = this.#ports.map((port) => {
      let wait = this.#pending.get(port);
      if (wait === undefined) {
        wait = port.wait(SLICE, { rx: true }).finally(() => this.#pending.delete(port));
        this.#pending.set(port, wait);
      }
      return wait;
    });
    await Promise.race(waits);
  }

  async end(): Promise<void> {
    await Promise.allSettled(this.#pending.values());
  }
}
