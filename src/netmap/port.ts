// A netmap port: rings, syncs, waiting. What is behind it (vhost-user.ts, tap.ts, ...) says when it is up.

import { EventEmitter } from 'node:events';
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

/** What the device did by a KR_STATE, as the end of a sentence. */
export function faultText(state: number): string {
  return FAULTS[state] ?? 'broke the rules';
}

export interface Backing {
  memory: BufferMemory;
  headers: Headers;
  /** The other side broke the rules; its rings stand still. */
  fault?(reason: string): void;
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
    const changed = this.rx.length > 0 && this.rx.length !== state.rx.length;
    this.rx = state.rx;
    this.tx = state.tx;
    this.features = state.features;
    this.unwatch();
    for (const [i, fd] of state.wakeFds.entries()) this.#epoll.add(fd, EPOLLIN | EPOLLET, i);
    this.#watched = [...state.wakeFds];
    this.#down = undefined;
    if (changed) this.#events.emit('config', state.rx.length);
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
    if (this.#down !== undefined) throw this.#down;
    const space = this.#datapath.nmTxSync((ring as Ring).kring);
    return space >= 0 ? space : this.#refuse(ring as Ring, space);
  }

  rxSync(ring: NetmapRing): number {
    if (this.#down !== undefined) throw this.#down;
    const space = this.#datapath.nmRxSync((ring as Ring).kring);
    return space >= 0 ? space : this.#refuse(ring as Ring, space);
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
    const failure = new NetmapError('device', reason);
    this.goDown(failure);
    this.#backing.fault?.(reason);
    throw failure;
  }

  poll(timeoutMs: number, options: { tx?: boolean; rx?: boolean } = {}): boolean {
    if (this.#look(options)) return true;
    if (timeoutMs === 0) return false;
    const rings = this.#wanted(options);
    // Armed first, looked at after: what comes in between is seen by one of the two.
    const pending = rings.map((ring) => this.#datapath.nmArm(ring.kring) !== 0).includes(true);
    if (!pending) this.#epoll.wait(timeoutMs);
    for (const ring of rings) this.#datapath.nmDisarm(ring.kring);
    return this.#look(options);
  }

  async wait(timeoutMs: number, options: { tx?: boolean; rx?: boolean } = {}): Promise<boolean> {
    if (this.#look(options)) return true;
    if (timeoutMs === 0) return false;
    const rings = this.#wanted(options);
    const pending = rings.map((ring) => this.#datapath.nmArm(ring.kring) !== 0).includes(true);
    if (!pending) await this.#woken(timeoutMs);
    for (const ring of rings) this.#datapath.nmDisarm(ring.kring);
    return this.#down === undefined && !this.#closed && this.#look(options);
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
      const timer = timeoutMs < 0 ? undefined : setTimeout(done, timeoutMs);
      this.#events.once('down', done);
    });
  }

  #wanted({ tx = false, rx = true }: { tx?: boolean; rx?: boolean }): Ring[] {
    return [...(rx ? this.rx : []), ...(tx ? this.tx : [])];
  }

  #look({ tx = false, rx = true }: { tx?: boolean; rx?: boolean }): boolean {
    let found = false;
    if (rx) for (const ring of this.rx) if (this.rxSync(ring) > 0) found = true;
    if (tx) for (const ring of this.tx) if (this.txSync(ring) > 0) found = true;
    return found;
  }

  counters(ring: NetmapRing): RingCounters {
    return (ring as Ring).counters;
  }

  on<K extends keyof PortEvents>(event: K, listener: (value: PortEvents[K]) => void): this {
    this.#events.on(event, listener);
    return this;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.goDown(new NetmapError('down', `port ${this.name} is closed`));
    this.#closed = true;
    await this.#backing.close();
    this.#epoll.close();
  }
}
