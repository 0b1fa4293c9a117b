// The virtio-net device of one port: what a front end (a vhost-user session, or our own driver in
// process) sets up, kept consistent with what the workers see.
//
// Every change follows one pattern: take the rings concerned from the workers, quiesce, change,
// publish. Methods return when that is done, so a session may acknowledge at once. The file is long
// because that pattern is kept in one place for features, memory and rings alike.

import {
  BROKEN_NONE,
  MAX_REGIONS,
  RING_BROKEN,
  RING_REASON,
  RING_RUNNING,
  RING_STATE,
  RING_STOPPED,
} from '../abi/layout.ts';
import { VRING_F_LOG } from '../abi/vhost-user.ts';
import { F_LOG_ALL, F_PROTOCOL_FEATURES, F_RING_PACKED } from '../abi/virtio.ts';
import { close, processStart, signalPeer } from '../linux/index.ts';
import { type Control, ringIndex } from '../memory/control.ts';
import { BadRegion, RegionTable } from '../memory/regions.ts';
import type { Window } from '../memory/window.ts';
import type { LinkDown, PeerInfo } from '../types.ts';
import {
  type Backend,
  type MemoryRegion,
  type MemoryRegionFd,
  Refusal,
  type VringAddr,
} from '../vhost-user/backend.ts';
import { featureNames } from '../vhost-user/names.ts';
import type { WorkerPool } from '../worker/pool.ts';
import { bit, has, offeredFeatures, ringFlags } from './features.ts';
import { History } from './history.ts';
import { Logging } from './logging.ts';
import { PortBlock } from './port-block.ts';
import { Ring } from './ring.ts';
import { checkAddr, checkBase, checkSize, checkStart, checkStopped } from './ring-rules.ts';

/** What a device needs of the switch it is in. */
export interface DeviceHost {
  readonly control: Control;
  readonly window: Window;
  readonly pool: WorkerPool;
}

export interface DeviceEvents {
  /** At least one ring pair carries traffic, or none does any more. */
  changed(): void;
  connected(peer: PeerInfo | undefined): void;
  disconnected(reason: string): void;
  features(features: bigint): void;
  /** What is written to guest memory is logged from now on, or no longer. */
  logging(on: boolean): void;
  rarp(mac: Uint8Array): void;
  /** Something that people should know, in a sentence. */
  notice(text: string): void;
}

export interface DeviceOptions {
  port: number;
  pairs: number;
  mtu?: number;
  /** Memory is mapped whole or refused: the driver is one of ours and uses linear addresses. */
  whole?: boolean;
  /** Memory in a file that can shrink is refused. */
  requireSealed?: boolean;
}

/** How long frames of a disabled ring wait for it to be enabled again, milliseconds. */
const DISABLE_GRACE = 500;
const FEATURES_OK = 8;
const STATUS_MASK = 0xff;

const RING_PARTS = ['desc', 'avail', 'used'] as const;

/** What the region table calls the view of a ring's part in paged memory. */
function view(ring: Ring, part: string): string {
  return `${part} of ring ${ring.queue}`;
}

/** The process, however often numbers are given out again. */
function identityOf({ pid }: PeerInfo): string | undefined {
  const start = processStart(pid);
  return start && `${pid}:${start}`;
}

/** Runs `work`; memory that cannot be is refused. */
function refusing<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof BadRegion) throw new Refusal(error.message);
    throw error;
  }
}

export class NetDevice implements Backend {
  readonly offeredFeatures: bigint;
  readonly queuePairs: number;
  readonly maxMemSlots = MAX_REGIONS;
  readonly rings: Ring[];
  readonly regions: RegionTable;
  features = 0n;
  /** The port's own, or what its front end made of it. */
  mtu: number | undefined;
  /** Why its front end was cut off, in a sentence; until the next one connects. */
  fault: string | undefined;
  /** Who is connected, or was last: a process. */
  lastPeer: string | undefined;
  /** What the guest sends waits in its rings, until `release`. */
  held = false;
  readonly history = new History();
  readonly #ownMtu: number | undefined;
  readonly #host: DeviceHost;
  readonly #port: number;
  readonly #block: PortBlock;
  readonly #events: DeviceEvents;
  readonly #logging: Logging;
  readonly #timers = new Map<Ring, NodeJS.Timeout>();
  #status = 0;
  #featuresRefused = false;
  #up = false;
  /** While a connection ends: why. */
  #ending: string | undefined;

  constructor(host: DeviceHost, options: DeviceOptions, events: DeviceEvents) {
    this.#host = host;
    this.#port = options.port;
    this.#block = new PortBlock(host.control, options.port, options.pairs * 2);
    this.#events = events;
    this.queuePairs = options.pairs;
    this.mtu = options.mtu;
    this.#ownMtu = options.mtu;
    this.offeredFeatures = offeredFeatures({ ...options, migrates: !options.whole });
    this.regions = new RegionTable(host.control, host.window, options.port, {
      paging: !options.whole,
      requireSealed: options.requireSealed === true,
    });
    this.#logging = new Logging(host, options.port, this.regions);
    this.rings = Array.from({ length: options.pairs * 2 }, (_, queue) => {
      const ring = new Ring(host.control, ringIndex(options.port, queue), queue);
      ring.setCallFd(-1);
      ring.setWorker(this.#workerOf(ring));
      return ring;
    });
    this.regions.publish();
    this.#publishFeatures();
  }

  /** Whether at least one ring carries frames. */
  get up(): boolean {
    return this.#up;
  }

  // --- connection --------------------------------------------------------------------------------

  connected(peer: PeerInfo | undefined): void {
    this.fault = undefined;
    const identity = peer && identityOf(peer);
    // What was saved is about another's rings.
    if (identity === undefined || identity !== this.lastPeer) {
      for (const ring of this.rings) ring.forget();
    }
    this.lastPeer = identity;
    this.history.connected();
    this.#events.connected(peer);
  }

  disconnected(reason: string): void {
    this.#ending = reason;
    this.reset();
    this.#ending = undefined;
    this.history.disconnected();
    this.#events.disconnected(reason);
  }

  /** Stops all rings, unmaps all memory, closes every fd. */
  reset(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.#halt(this.rings);
    for (const ring of this.rings) ring.save();
    this.regions.clear();
    this.regions.publish();
    const logged = this.#logging.on;
    this.#logging.reset();
    for (const ring of this.rings) {
      this.#closeFds(ring);
      ring.reset();
    }
    this.features = 0n;
    this.mtu = this.#ownMtu;
    this.#status = 0;
    this.#featuresRefused = false;
    this.#publishFeatures();
    this.#settle();
    if (logged) this.#events.logging(false);
  }

  #closeFds(ring: Ring): void {
    this.#unwatchKick(ring);
    if (ring.callFd >= 0) close(ring.callFd);
    if (ring.errFd >= 0) close(ring.errFd);
    ring.setCallFd(-1);
    ring.errFd = -1;
  }

  #unwatchKick(ring: Ring): void {
    if (ring.kickFd < 0) return;
    if (ring.isTx) this.#host.pool.unwatch(this.#workerOf(ring), ring.kickFd);
    close(ring.kickFd);
    ring.kickFd = -1;
  }

  /** What guests send is spread over the workers, port by port and pair by pair. */
  #workerOf(ring: Ring): number {
    return (this.#port + (ring.queue >> 1)) % this.#host.pool.size;
  }

  // --- hand-over (handover.ts) --------------------------------------------------------------------

  /** Takes rings of this device from the workers; nothing else changes, and `resume` undoes it. */
  pause(rings: Ring[]): void {
    this.#halt(rings);
  }

  /** Split rings go on from the index in their memory: another process may have moved it meanwhile. */
  resume(rings: Ring[]): void {
    for (const ring of rings) {
      if (!ring.live || ring.state !== RING_STOPPED) continue;
      ring.base = ring.position;
      ring.live = false;
    }
    this.#resume(rings);
  }

  // --- features ----------------------------------------------------------------------------------

  setFeatures(features: bigint): void {
    const known = this.offeredFeatures | bit(F_PROTOCOL_FEATURES);
    const surplus = features & ~known;
    if (surplus !== 0n) {
      this.#featuresRefused = true;
      const names = featureNames(surplus).join(' ');
      throw new Refusal(`${names} (0x${surplus.toString(16)}) was never offered`);
    }
    const acked = features & ~bit(F_PROTOCOL_FEATURES);
    const changed = (acked ^ this.features) & ~bit(F_LOG_ALL);
    this.#featuresRefused = false;
    if (changed === 0n) {
      this.#setLogging(acked);
      return;
    }
    if (this.rings.some((ring) => ring.live && ring.started)) {
      throw new Refusal('features cannot change while rings run; stop them with GET_VRING_BASE');
    }
    this.features = acked;
    const logged = this.#logging.on;
    this.#logging.on = has(acked, F_LOG_ALL);
    this.#publishFeatures();
    this.#events.features(acked);
    if (this.#logging.on !== logged) this.#events.logging(!logged);
  }

  /** Only LOG_ALL differs: rings go on. */
  #setLogging(acked: bigint): void {
    const on = has(acked, F_LOG_ALL);
    if (on === this.#logging.on) return;
    const live = this.rings.filter((ring) => ring.live);
    if (on && live.length > 0) this.#logging.checkReady();
    this.#logging.on = on;
    try {
      const flags = live.map((ring) => this.#logging.flagsOf(ring));
      for (const [i, ring] of live.entries()) ring.setLogging(flags[i]!);
    } catch (error) {
      this.#logging.on = !on;
      throw error;
    }
    this.features = acked;
    this.#host.pool.quiesce();
    if (!on) this.#logging.drop();
    this.#resumeWaiting();
    this.#events.logging(on);
  }

  /** Those that waited for a log, or for logging to be over. The others run on: nothing of theirs may be set anew. */
  #resumeWaiting(): void {
    this.#resume(this.rings.filter(({ live }) => !live));
  }

  setLogBase(area: { size: bigint; offset: bigint }, fd: number): void {
    try {
      this.#logging.setLog(area, fd);
    } finally {
      close(fd);
    }
    this.#resumeWaiting();
  }

  setLogFd(fd: number): void {
    this.#logging.setFd(fd);
  }

  /** What became of memory, or of the dirty log, that went away at linear address `at`; in one sentence. */
  lossAt(at: number): string | undefined {
    return this.regions.lossAt(at) ?? this.#logging.lossAt(at);
  }

  #publishFeatures(): void {
    this.#block.setFeatures(this.features);
    this.#block.setMtu(this.mtu);
  }

  setMtu(mtu: number): void {
    if (mtu < 68 || mtu > 65535) {
      throw new Refusal(`${mtu} is no MTU; one is 68 to 65535 bytes`);
    }
    if (this.#ownMtu !== undefined && mtu > this.#ownMtu) {
      throw new Refusal(`${mtu} is more than the ${this.#ownMtu} this port allows`);
    }
    this.mtu = mtu;
    this.#block.setMtu(mtu);
  }

  setStatus(status: number): void {
    this.#status = status & STATUS_MASK;
  }

  getStatus(): number {
    return this.#featuresRefused ? this.#status & ~FEATURES_OK : this.#status;
  }

  sendRarp(mac: Uint8Array): void {
    this.#events.rarp(mac);
  }

  // --- memory ------------------------------------------------------------------------------------

  setMemTable(regions: MemoryRegionFd[]): void {
    this.#changeMemory(regions, () => {
      this.regions.clear();
      try {
        for (const region of regions) this.regions.add(region, region.fd);
        this.#logging.checkMemory();
      } catch (error) {
        // No half of a table: a ring would run on memory that its front end was refused.
        this.regions.clear();
        throw error;
      }
    });
  }

  addMemRegion(region: MemoryRegionFd): void {
    // QEMU 7.2 announces each region once per queue pair.
    if (this.regions.has(region)) {
      close(region.fd);
      return;
    }
    this.#changeMemory([region], () => {
      this.regions.add(region, region.fd);
      try {
        this.#logging.checkMemory();
      } catch (error) {
        this.regions.remove(region);
        throw error;
      }
    });
  }

  removeMemRegion(region: MemoryRegion): void {
    if (!this.regions.has(region)) return;
    this.#changeMemory([], () => this.regions.remove(region));
  }

  /** Runs `change` while no worker uses this port's memory, then lets the rings go on. */
  #changeMemory(regions: MemoryRegionFd[], change: () => void): void {
    this.#halt(this.rings);
    try {
      refusing(change);
    } finally {
      this.regions.publish();
      for (const { fd } of regions) close(fd);
      this.#resume(this.rings);
    }
  }

  /** The receivers are there: what waited is sent. */
  release(): void {
    if (!this.held) return;
    this.held = false;
    this.#resume(this.rings.filter((ring) => ring.isTx && ring.state === RING_STOPPED));
  }

  // --- rings -------------------------------------------------------------------------------------

  #ring(index: number): Ring {
    return this.rings[index]!;
  }

  /** Takes rings from the workers and waits until they have let go. */
  #halt(rings: Ring[]): void {
    const running = rings.filter(({ state }) => state !== RING_STOPPED);
    for (const ring of running) ring.halt();
    if (running.length > 0) this.#host.pool.quiesce();
  }

  /** Changes a ring's set-up; a running one is stopped for it and goes on after. */
  #reconfigure(index: number, change: (ring: Ring) => void): void {
    const ring = this.#ring(index);
    this.#halt([ring]);
    change(ring);
    this.#resume([ring]);
  }

  /** Lets halted rings go on, each that can; throws the first refusal once all had their turn. */
  #resume(rings: Ring[]): void {
    let refusal: unknown;
    for (const ring of rings) {
      try {
        this.#apply(ring);
      } catch (error) {
        refusal ??= error;
      }
    }
    this.#settle();
    if (refusal !== undefined) throw refusal;
  }

  setVringNum(index: number, num: number): void {
    checkSize(index, num, this.#packed);
    checkStopped(this.#ring(index));
    this.#ring(index).size = num;
  }

  setVringAddr(index: number, addr: VringAddr): void {
    const ring = this.#ring(index);
    const { desc, avail, used } = addr;
    const logAt = (addr.flags & VRING_F_LOG) !== 0 ? addr.logGpa : undefined;
    const same =
      ring.parts?.desc === desc && ring.parts.avail === avail && ring.parts.used === used;
    if (same) {
      this.#logRing(ring, logAt);
      return;
    }
    checkStopped(ring);
    checkAddr(index, addr, this.#packed);
    ring.parts = { desc, avail, used };
    ring.logAt = logAt;
  }

  /** The ring's own writes are logged at another address, or not any more, or now. */
  #logRing(ring: Ring, at: bigint | undefined): void {
    const before = ring.logAt;
    if (before === at) return;
    ring.logAt = at;
    if (!ring.live) return;
    try {
      ring.setLogging(this.#logging.flagsOf(ring));
    } catch (error) {
      ring.logAt = before;
      throw error;
    }
    this.#host.pool.quiesce();
  }

  get #packed(): boolean {
    return has(this.features, F_RING_PACKED);
  }

  setVringBase(index: number, base: number): void {
    checkBase(index, base, this.#packed);
    checkStopped(this.#ring(index));
    this.#ring(index).base = base;
  }

  getVringBase(index: number): number {
    const ring = this.#ring(index);
    this.#halt([ring]);
    const base = ring.position;
    // From here on its front end knows it.
    ring.forget();
    this.#unwatchKick(ring);
    if (ring.callFd >= 0) close(ring.callFd);
    ring.setCallFd(-1);
    ring.base = base;
    ring.stop();
    for (const part of RING_PARTS) this.regions.unpin(view(ring, part));
    // The next start brings its own; the front end lets go of this one.
    if (!this.rings.some(({ started }) => started)) this.#logging.drop();
    this.#settle();
    return base;
  }

  setVringKick(index: number, fd: number): void {
    this.setVringKicks([[index, fd]]);
  }

  /** The same for several rings, which start together. */
  setVringKicks(kicks: readonly (readonly [index: number, fd: number])[]): void {
    const rings = kicks.map(([index]) => this.#ring(index));
    this.#halt(rings);
    for (const [i, ring] of rings.entries()) this.#takeKick(ring, kicks[i]![1]);
    this.#resume(rings);
  }

  #takeKick(ring: Ring, fd: number): void {
    this.#unwatchKick(ring);
    // A start after a latch, or after a stop, takes the indices up anew.
    if (ring.state === RING_BROKEN) {
      ring.live = false;
      ring.set(RING_REASON, BROKEN_NONE);
      ring.set(RING_STATE, RING_STOPPED);
    }
    ring.kickFd = fd;
    ring.started = true;
    // Edge triggered; a kick that came before shows at once.
    if (fd >= 0 && ring.isTx) this.#host.pool.watch(this.#workerOf(ring), fd, ring.index);
  }

  setVringCall(index: number, fd: number): void {
    const ring = this.#ring(index);
    const old = ring.callFd;
    ring.setCallFd(fd);
    if (old >= 0) {
      // A worker may be about to write to the old one.
      this.#host.pool.quiesce();
      close(old);
    }
    // Calls made while the front end swapped descriptors went nowhere: make one up.
    if (fd >= 0) signalPeer(fd);
  }

  setVringErr(index: number, fd: number): void {
    const ring = this.#ring(index);
    if (ring.errFd >= 0) close(ring.errFd);
    ring.errFd = fd;
  }

  setVringEnable(index: number, enable: boolean): void {
    if (this.#ring(index).enabled === enable) return;
    this.#reconfigure(index, (ring) => {
      ring.enabled = enable;
      ring.discards = false;
      clearTimeout(this.#timers.get(ring));
      this.#timers.delete(ring);
      // virtio-user disables rings for a moment around a new memory table: hold, then discard.
      if (!enable && ring.isTx) {
        const timer = setTimeout(() => this.#discard(ring), DISABLE_GRACE);
        this.#timers.set(ring, timer.unref());
      }
    });
  }

  #discard(ring: Ring): void {
    this.#timers.delete(ring);
    if (!ring.live) return;
    ring.discards = true;
    if (ring.state !== RING_STOPPED || !this.#addresses(ring)) return;
    ring.discard();
    this.#host.pool.quiesce();
  }

  /** Linear addresses of a ring's parts, or undefined while its memory is not all mapped. */
  #addresses(ring: Ring): { desc: number; avail: number; used: number } | undefined {
    if (!ring.parts || ring.size === 0) return undefined;
    const sizes = ring.partSizes(this.#packed);
    const [desc, avail, used] = RING_PARTS.map((part) =>
      refusing(() => this.regions.fromUva(ring.parts![part], sizes[part], view(ring, part))),
    );
    return desc && avail && used ? { desc, avail, used } : undefined;
  }

  /** Hands a halted ring to the workers if all that it needs is there. */
  #apply(ring: Ring): void {
    if (ring.state === RING_BROKEN || !ring.started) return;
    if (this.#logging.waits) {
      this.#logging.wait((text) => this.#events.notice(text));
      return;
    }
    const linear = this.#addresses(ring);
    if (!linear) {
      // Memory may still come: an empty table is a front end between two tables.
      if (this.regions.bytes > 0 && ring.parts && ring.size > 0 && ring.enabled) {
        throw new Refusal(`ring ${ring.queue} lies outside the memory of the guest`);
      }
      return;
    }
    checkStart(ring, linear, this.#packed);
    const fresh = !ring.live;
    ring.load(linear, this.#port, ringFlags(this.features));
    ring.setLogging(this.#logging.flagsOf(ring));
    if (fresh) this.#logging.markStart(ring);
    if (ring.enabled && this.held && ring.isTx) return;
    if (ring.enabled) ring.run();
    else if (ring.discards) ring.discard();
  }

  /** Publishes which RX rings take frames, tells the workers, and tells whoever listens. */
  #settle(): void {
    const { pool } = this.#host;
    const pairs = this.rings
      .filter((ring) => !ring.isTx && ring.state === RING_RUNNING)
      .map(({ queue }) => queue >> 1);
    this.#block.setReceivers(pairs, () => pool.quiesce());
    const up = pairs.length > 0;
    this.#block.setUp(up);
    pool.quiesce();
    if (up !== this.#up) {
      this.#up = up;
      if (up) this.history.linkUp();
      else this.history.linkDown(this.#whyDown());
      this.#events.changed();
    }
  }

  #whyDown(): LinkDown {
    const { trouble } = this;
    if (trouble !== undefined) return { cause: 'quarantined', reason: trouble };
    if (this.#ending !== undefined) return { cause: 'lost', reason: this.#ending };
    return { cause: 'stopped' };
  }

  /** Why it is quarantined, in a sentence, if it is. */
  get trouble(): string | undefined {
    const broken = this.rings.find((ring) => ring.broken);
    return broken ? `ring ${broken.queue}: ${broken.broken}` : this.fault;
  }

  /** Rings latched since the last call; their err eventfds are signalled here. */
  takeBroken(): Ring[] {
    const broken = this.rings.filter((ring) => ring.state === RING_BROKEN && !ring.reported);
    for (const ring of broken) {
      ring.reported = true;
      if (ring.errFd >= 0) signalPeer(ring.errFd);
    }
    if (broken.length > 0) this.#settle();
    return broken;
  }
}
