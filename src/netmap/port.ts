// A netmap port: rings, syncs, waiting. What is behind it (vhost-user.ts, tap.ts, ...) says when it is up.

import { EventEmitter } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { KR_STATE, KRE_ID, KRE_LONG, KRE_MERGED, KRE_SHORT, SYNC_DEVICE } from '../abi/netmap.ts';
import { EPOLLET, EPOLLIN, Epoll } from '../linux/index.ts';
import type { Datapath } from '../worker/datapath.ts';
import type { BufferMemory } from './memory.ts';
import type { Ring } from './ring.ts';
import {
  type Headers,
  NetmapError,
  type NetmapPort,
  type NetmapRing,
  type PortEvents,
  type RingCounters,
} from './types.ts';

/** What the device did, by KR_STATE. */
const FAULTS: Record<number, string> = {
  [KRE_ID]: 'used a buffer that was never posted, or the same one twice',
  [KRE_LONG]: 'says it wrote more bytes than the buffer has',
  [KRE_SHORT]: 'wrote less than a virtio-net header',
  [KRE_MERGED]: 'merges none, or more buffers than the ring has',
};

/** How long a thread is held before it looks whether anybody is still there, milliseconds. */
const SLICE_MS = 50;

function deadline(timeoutMs: number): number {
  return timeoutMs < 0 ? Number.POSITIVE_INFINITY : performance.now() + timeoutMs;
}

/** What the device did by a KR_STATE, as the end of a sentence. */
export function faultText(state: number): string {
  return FAULTS[state] ?? 'broke the rules';
}

export interface Backing {
  memory: BufferMemory;
  headers: Headers;
  /** The other side broke the rules; its rings stand still. */
  fault?(reason: string): void;
  /** Whether the other side is gone, though nobody was told yet: this thread may be held. */
  gone?(): boolean;
  close(): Promise<void>;
}

export class Port implements NetmapPort {
  readonly name: string;
  readonly memory: BufferMemory;
  readonly headers: Headers;
  tx: Ring[] = [];
  rx: Ring[] = [];
  features: readonly string[] = [];
  readonly #backing: Backing;
  readonly #datapath: Datapath;
  readonly #events = new EventEmitter();
  readonly #epoll = new Epoll(16);
  #watched: number[] = [];
  /** Why nothing moves; undefined while it is up. */
  #down: NetmapError | undefined;
  /** RX rings when it last came up. */
  #count: number | undefined;
  #closed = false;

  constructor(name: string, backing: Backing) {
    this.name = name;
    this.memory = backing.memory;
    this.headers = backing.headers;
    this.#backing = backing;
    this.#datapath = backing.memory.home.datapath;
    this.#down = new NetmapError('down', `port ${name} is not connected yet`);
  }

  get wakeFds(): readonly number[] {
    return this.#watched;
  }

  get up(): boolean {
    return this.#down === undefined;
  }

  // --- for what is behind it ---------------------------------------------------------------------

  /** It runs, with these rings; `wakeFds` become readable when there is something. */
  goUp(state: { rx: Ring[]; tx: Ring[]; wakeFds: number[]; features: readonly string[] }): void {
    if (this.#closed) return;
    const { length } = state.rx;
    const changed = this.#count !== undefined && this.#count !== length;
    this.#count = length;
    // Not the owner's arrays: those change while it is down.
    this.rx = [...state.rx];
    this.tx = [...state.tx];
    this.features = state.features;
    this.unwatch();
    for (const [i, fd] of state.wakeFds.entries()) this.#epoll.add(fd, EPOLLIN | EPOLLET, i);
    this.#watched = [...state.wakeFds];
    this.#down = undefined;
    if (changed) this.#events.emit('config', length);
    this.#events.emit('up');
  }

  goDown(error: NetmapError): void {
    if (this.#closed) return;
    const was = this.#down;
    this.#down = error;
    if (was === undefined) this.#events.emit('down', error);
  }

  /** Before the fds are closed. */
  unwatch(): void {
    for (const fd of this.#watched.splice(0)) this.#epoll.remove(fd);
  }

  // --- the API -----------------------------------------------------------------------------------

  txSync(ring: NetmapRing): number {
    const space = this.#datapath.nmTxSync(this.#krings(ring, 'tx'));
    return space >= 0 ? space : this.#refuse(ring as Ring, space);
  }

  rxSync(ring: NetmapRing): number {
    const space = this.#datapath.nmRxSync(this.#krings(ring, 'rx'));
    return space >= 0 ? space : this.#refuse(ring as Ring, space);
  }

  /** The kring of one that can be synced: rings of before the last `up` may be somebody else's memory. */
  #krings(ring: NetmapRing, direction: 'tx' | 'rx'): number {
    if (this.#down !== undefined) throw this.#down;
    const { open, kring } = ring as Ring;
    if (open && ring.direction === direction) return kring;
    throw new NetmapError(
      'ring',
      `port ${this.name}: that is no ${direction} ring of now: take it from port.${direction}`,
    );
  }

  #refuse(ring: Ring, error: number): never {
    const place = `port ${this.name}: ${ring.direction} ring ${ring.id}`;
    if (error !== SYNC_DEVICE) {
      throw new NetmapError(
        'ring',
        `${place}: head ${ring.head} and cur ${ring.cur} must lie between what was owned and tail ` +
          `${ring.tail}, and slots name buffers below ${this.memory.buffers}`,
      );
    }
    const reason = `${place}: the other side ${faultText(ring.kget(KR_STATE))}`;
    throw this.fail(reason);
  }

  /** Down, for what the device did. */
  fail(reason: string): NetmapError {
    const failure = new NetmapError('device', reason);
    this.goDown(failure);
    this.#backing.fault?.(reason);
    return failure;
  }

  poll(timeoutMs: number, options: { tx?: boolean; rx?: boolean } = {}): boolean {
    const end = deadline(timeoutMs);
    for (;;) {
      if (this.#look(options)) return true;
      const left = end - performance.now();
      if (left <= 0) return false;
      if (this.#backing.gone?.()) {
        this.goDown(new NetmapError('down', `port ${this.name}: the other side is gone`));
        return false;
      }
      // A stale wake-up is no reason to return; in slices, to see that nobody is there any more.
      if (!this.#arm(options)) this.#epoll.wait(Math.ceil(Math.min(left, SLICE_MS)));
      this.#disarm(options);
    }
  }

  async wait(timeoutMs: number, options: { tx?: boolean; rx?: boolean } = {}): Promise<boolean> {
    const end = deadline(timeoutMs);
    for (;;) {
      if (this.#look(options)) return true;
      const left = end - performance.now();
      if (left <= 0) return false;
      // What is there already is for the next look, after everybody else's turn.
      if (this.#arm(options)) await setImmediate();
      else await this.#woken(left);
      if (this.#down !== undefined) return false;
      this.#disarm(options);
    }
  }

  /** True when a sync would find something now. */
  #arm(options: { tx?: boolean; rx?: boolean }): boolean {
    let pending = false;
    for (const ring of this.#wanted(options)) {
      if (this.#datapath.nmArm(ring.kring) !== 0) pending = true;
    }
    return pending;
  }

  #disarm(options: { tx?: boolean; rx?: boolean }): void {
    for (const ring of this.#wanted(options)) this.#datapath.nmDisarm(ring.kring);
  }

  /** Until a wake-up fd is ready, the port goes down, or the time is over. */
  #woken(timeoutMs: number): Promise<void> {
    const { loop } = this.memory.home;
    return new Promise((resolve) => {
      const done = () => {
        unwatch();
        clearTimeout(timer);
        this.#events.off('down', done);
        resolve();
      };
      const unwatch = loop.watch(this.#epoll.fd, EPOLLIN, () => {
        this.#epoll.wait(0);
        done();
      });
      const timer =
        timeoutMs === Number.POSITIVE_INFINITY
          ? undefined
          : setTimeout(done, Math.min(timeoutMs, 2 ** 30));
      this.#events.once('down', done);
    });
  }

  #wanted({ tx = false, rx = true }: { tx?: boolean; rx?: boolean }): Ring[] {
    return [...(rx ? this.rx : []), ...(tx ? this.tx : [])];
  }

  #look({ tx = false, rx = true }: { tx?: boolean; rx?: boolean }): boolean {
    let found = false;
    if (rx) {
      for (const ring of this.rx) {
        this.rxSync(ring);
        if (ring.cur !== ring.tail) found = true;
      }
    }
    if (tx) {
      for (const ring of this.tx) {
        this.txSync(ring);
        if (ring.cur !== ring.tail) found = true;
      }
    }
    return found;
  }

  counters(ring: NetmapRing): RingCounters {
    return (ring as Ring).counters;
  }

  on<K extends keyof PortEvents>(event: K, listener: (value: PortEvents[K]) => void): this {
    this.#events.on(event, listener);
    return this;
  }

  /** For who uses its memory: called before that goes. */
  whenClosed(listener: () => void): void {
    this.#events.once('closed', listener);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#events.emit('closed');
    this.goDown(new NetmapError('down', `port ${this.name} is closed`));
    this.#closed = true;
    await this.#backing.close();
    this.#epoll.close();
  }
}
