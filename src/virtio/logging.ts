// Whether and where a port logs what is written into its guest's memory, for a front end that migrates it
// (vhost-user, "Migration"): VHOST_F_LOG_ALL says that, SET_LOG_BASE where, and flag VRING_F_LOG of a ring's
// SET_VRING_ADDR whether the ring itself is logged too.
//
// All of it changes under running rings, without a frame lost: flags and addresses are single words that workers
// read anew for each burst, and after a quiesce all of them go by the new ones. While logging is on and there is no
// log, rings wait: QEMU starts the rings of a guest that reboots meanwhile before it says where the new log is.

import {
  PORT_BASE,
  PORT_LOG,
  PORT_STRIDE,
  RING_LOG_DESC,
  RING_LOG_USED,
  RINGF_LOG,
  RINGF_LOG_RING,
} from '../abi/layout.ts';
import { close, signalPeer } from '../linux/index.ts';
import type { Control } from '../memory/control.ts';
import { BadLog, DirtyLog, type LogArea } from '../memory/log.ts';
import type { RegionTable } from '../memory/regions.ts';
import type { Window } from '../memory/window.ts';
import { Refusal } from '../vhost-user/backend.ts';
import type { Ring } from './ring.ts';

/** Milliseconds between two signals to the eventfd of SET_LOG_FD. */
const TELL_EVERY = 50;
/** How long rings wait for a log before that is told, milliseconds. */
const PATIENCE = 1000;

export class Logging {
  /** VHOST_F_LOG_ALL is acknowledged. */
  on = false;
  readonly #control: Control;
  readonly #window: Window;
  readonly #word: number;
  readonly #regions: RegionTable;
  readonly #quiesce: () => void;
  #log: DirtyLog | undefined;
  #fd = -1;
  #teller: NodeJS.Timeout | undefined;
  #waiting: NodeJS.Timeout | undefined;

  constructor(
    host: { control: Control; window: Window; pool: { quiesce(): void } },
    port: number,
    regions: RegionTable,
  ) {
    this.#control = host.control;
    this.#window = host.window;
    this.#word = PORT_BASE + port * PORT_STRIDE + PORT_LOG;
    this.#regions = regions;
    this.#quiesce = () => host.pool.quiesce();
  }

  /** It is on, and nobody has said where the log is. */
  get waits(): boolean {
    return this.on && this.#log === undefined;
  }

  /** SET_LOG_BASE: from its return on nothing is marked in the log before. The fd stays the caller's. Throws Refusal. */
  setLog(area: LogArea, fd: number): void {
    const log = this.#open(area, fd);
    if (!this.#coversAll(log)) {
      log.unmap();
      throw new Refusal(this.#tooSmall(area.size));
    }
    const before = this.#log;
    this.#log = log;
    this.#publish();
    before?.unmap();
  }

  #open(area: LogArea, fd: number): DirtyLog {
    try {
      return new DirtyLog(this.#control, this.#window, area, fd);
    } catch (error) {
      if (error instanceof BadLog) throw new Refusal(error.message);
      throw error;
    }
  }

  #coversAll(log: DirtyLog): boolean {
    return log.covers(0n, this.#regions.end);
  }

  #tooSmall(size: bigint): string {
    return (
      `a dirty log of ${size} bytes ends at GPA 0x${(size << 15n).toString(16)}, the guest's memory at ` +
      `0x${this.#regions.end.toString(16)}: a bit is needed for each 4096 bytes`
    );
  }

  #publish(): void {
    this.#control.set64(this.#word, this.#log?.word ?? 0n);
    this.#quiesce();
  }

  /** Whether running rings could be logged from here on; throws Refusal if not. */
  checkReady(): void {
    if (this.#log === undefined) {
      throw new Refusal(
        'LOG_ALL asks for a dirty log while rings run; SET_LOG_BASE has to come first',
      );
    }
    this.checkMemory();
  }

  /** Memory was added: throws Refusal where the log in use ends before it does. */
  checkMemory(): void {
    if (!this.on || this.#log === undefined || this.#coversAll(this.#log)) return;
    throw new Refusal(this.#tooSmall((this.#log.word >> 32n) / 8n));
  }

  /** What ring flags say, its addresses set; throws Refusal where the ring would be logged past the end. */
  flagsOf(ring: Ring): number {
    if (!this.on || this.#log === undefined) return 0;
    if (ring.logAt === undefined || ring.parts === undefined) return RINGF_LOG;
    const sizes = ring.partSizes(ring.packed);
    if (!this.#log.covers(ring.logAt, sizes.used)) {
      throw new Refusal(
        `ring ${ring.queue} would be logged at GPA 0x${ring.logAt.toString(16)}, past the end of the dirty log`,
      );
    }
    ring.set64(RING_LOG_USED, ring.logAt);
    if (ring.packed) ring.set64(RING_LOG_DESC, this.#gpaOfDescriptors(ring));
    return RINGF_LOG | RINGF_LOG_RING;
  }

  #gpaOfDescriptors(ring: Ring): bigint {
    const { desc } = ring.parts!;
    const gpa = this.#regions.toGpa(desc, ring.partSizes(true).desc);
    if (gpa === undefined)
      throw new Refusal(`ring ${ring.queue} lies outside the memory of the guest`);
    return gpa;
  }

  /** What main wrote into a ring's parts when it took it up. */
  markStart(ring: Ring): void {
    if (!this.on || this.#log === undefined || ring.logAt === undefined) return;
    const sizes = ring.partSizes(ring.packed);
    this.#log.mark(ring.logAt, sizes.used);
    if (ring.packed) this.#log.mark(this.#gpaOfDescriptors(ring), sizes.desc);
  }

  /** The log went away under us at linear address `at`: what to say. */
  lossAt(at: number): string | undefined {
    return this.#log?.shows(at)
      ? 'the dirty log shrank while it was mapped; its front end must keep it as long as it is'
      : undefined;
  }

  /** SET_LOG_FD: an eventfd, its own from here on, that is signalled while there may be news in the log; -1: none. */
  setFd(fd: number): void {
    clearInterval(this.#teller);
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = fd;
    if (fd < 0) return;
    this.#teller = setInterval(() => this.on && signalPeer(fd), TELL_EVERY).unref();
  }

  /** A ring waits. A front end that never says where the log is would look like a stall of ours: it is told of. */
  wait(tell: (text: string) => void): void {
    clearTimeout(this.#waiting);
    const text =
      'its rings wait: SET_FEATURES turned logging on (LOG_ALL), and SET_LOG_BASE has not said where the log is';
    this.#waiting = setTimeout(() => this.waits && tell(text), PATIENCE).unref();
  }

  /** The front end is gone; no ring runs. */
  reset(): void {
    clearTimeout(this.#waiting);
    this.on = false;
    this.drop();
    this.setFd(-1);
  }

  /** Forgets the log; no ring has a flag of it any more. */
  drop(): void {
    if (this.#log === undefined) return;
    const log = this.#log;
    this.#log = undefined;
    this.#publish();
    log.unmap();
  }
}
