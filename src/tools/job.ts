// What every loop of pkt-gen needs beside its slots: turns of the event loop, reports, waiting, an end.

import type { NetmapPort, NetmapRing } from '../netmap/types.ts';
import { NetmapError } from '../netmap/types.ts';
import { type Counts, type Interval, NO_SPACE } from './report.ts';
import type { Settings } from './settings.ts';
import type { Time } from './time.ts';

/** Nanoseconds after which the event loop gets a turn: Ctrl-C and the other side's messages. */
const TURN = 2e6;
/** Nanoseconds to look again and again before waiting: a wake-up costs more than most gaps last. */
const SPIN = 50e3;
/** Milliseconds a wait lasts at most, so that Ctrl-C is seen. */
const SLICE = 100;

export interface JobOptions {
  port: NetmapPort;
  settings: Settings;
  time: Time;
  signal: AbortSignal;
  /** Called once each report interval. */
  report(interval: Interval): void;
  /** A slot to show, with -X. */
  dump(ring: NetmapRing, i: number): void;
}

export class Job {
  readonly port: NetmapPort;
  readonly settings: Settings;
  readonly time: Time;
  readonly counts: Counts = { packets: 0, bytes: 0, events: 0 };
  /** The least room seen in this interval. */
  minSpace = NO_SPACE;
  /** When the event loop is due. */
  turnAt: number;
  /** Why it ended early. */
  error: NetmapError | undefined;
  /** Nanoseconds of the first and the last moment that count. */
  started: number;
  stopped: number | undefined;
  readonly #options: JobOptions;
  #reported: Counts & { at: number };
  #idle = 0;

  constructor(options: JobOptions) {
    this.#options = options;
    this.port = options.port;
    this.settings = options.settings;
    this.time = options.time;
    this.started = options.time.now();
    this.turnAt = this.started + TURN;
    this.#reported = { ...this.counts, at: this.started };
    options.port.on('down', (error) => {
      this.error ??= error;
    });
  }

  get ended(): boolean {
    return this.error !== undefined || this.#options.signal.aborted;
  }

  get seconds(): number {
    return Math.max((this.stopped ?? this.time.now()) - this.started, 0) / 1e9;
  }

  /** Frames still to do, Infinity where there is no end. */
  get left(): number {
    const { count } = this.settings;
    return count === 0 ? Number.POSITIVE_INFINITY : count - this.counts.packets;
  }

  /** Runs the loop; what the port throws ends it. */
  async run(loop: (job: Job) => Promise<void>): Promise<void> {
    try {
      await loop(this);
    } catch (error) {
      if (!(error instanceof NetmapError)) throw error;
      this.error ??= error;
    }
    this.stopped ??= this.time.now();
  }

  /** The clock starts now: a receiver's, with its first frame. */
  start(): void {
    this.started = this.time.now();
  }

  /** A turn of the event loop, and the report if it is time. To be called when `turnAt` has come. */
  async turn(): Promise<void> {
    this.#report();
    await this.time.turn();
    this.turnAt = this.time.now() + TURN;
  }

  sawSpace(slots: number): void {
    if (slots < this.minSpace) this.minSpace = slots;
  }

  /** Something moved: the next `wait` looks again at once. */
  busy(): void {
    this.#idle = 0;
  }

  /** Nothing moved: returns at once for a while, then waits for the port. */
  async wait(events: { tx?: boolean; rx?: boolean }, spin = SPIN): Promise<void> {
    const now = this.time.now();
    if (this.#idle === 0) this.#idle = now;
    if (now - this.#idle < spin) return;
    await this.port.wait(this.#slice(now), events);
    await this.turn();
  }

  /** As `wait`, for what no event tells of. */
  async pause(): Promise<void> {
    const now = this.time.now();
    if (this.#idle === 0) this.#idle = now;
    if (now - this.#idle < SPIN) return;
    await this.time.sleep(1);
    await this.turn();
  }

  /** Until `at`: asleep where that is milliseconds away, else in turns of the event loop. */
  async waitUntil(at: number): Promise<void> {
    const now = this.time.now();
    // A timer is late by up to a millisecond.
    const ms = Math.floor((at - now) / 1e6) - 1;
    if (ms > 0) await this.time.sleep(Math.min(ms, this.#slice(now)));
    await this.turn();
  }

  /** Shows the slots from `from` to `to`. */
  dump(ring: NetmapRing, from: number, to: number): void {
    for (let i = from; i !== to; i = ring.next(i)) this.#options.dump(ring, i);
  }

  /** Milliseconds to wait: not past the next report. */
  #slice(now: number): number {
    const left = (this.#reported.at - now) / 1e6 + this.settings.reportMs;
    return Math.min(Math.max(Math.ceil(left), 1), SLICE);
  }

  #report(): void {
    const now = this.time.now();
    const { counts } = this;
    const before = this.#reported;
    if (now - before.at < this.settings.reportMs * 1e6) return;
    this.#reported = { ...counts, at: now };
    const interval = {
      packets: counts.packets - before.packets,
      bytes: counts.bytes - before.bytes,
      events: counts.events - before.events,
      usec: Math.round((now - before.at) / 1000),
      minSpace: this.minSpace,
    };
    this.minSpace = NO_SPACE;
    this.#options.report(interval);
  }
}
