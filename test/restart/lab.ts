// Two guests of our own behind a switch in a process of its own, and what they see of its leaving.

import assert from 'node:assert/strict';
import { globSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { connectTo } from '../../src/control/client.ts';
import { HANDOVER_FORMAT } from '../../src/limits.ts';
import { type Channel, EventLoop } from '../../src/linux/index.ts';
import { awaitCall } from '../../src/switch/handover.ts';
import { Frontend } from '../../src/vhost-user/index.ts';
import { Child, removeFolder, root, temporaryFolder, waitFor } from '../peers/process.ts';
import { sleep } from '../stress/stress.ts';
import { KeepingDriver } from './keeping-driver.ts';

/** Milliseconds. */
const SHORT = 0.5;
const LOST = 50;
/** Frames on their way. */
const WINDOW = 64;

/** Guest a connects to the switch, which connects to guest b. */
export class Lab {
  readonly folder = temporaryFolder();
  readonly control = join(this.folder, 'control');
  readonly state = join('/dev/shm', `vhop-takeover-${process.pid}`);
  readonly loop = new EventLoop();
  readonly guests: [KeepingDriver, KeepingDriver];
  readonly #fronts: Frontend[];
  readonly #children: Child[] = [];
  /** Times without a frame for a guest, from and to on the clock of events, in order; short ones left out. */
  gaps: { from: number; to: number }[] = [];
  /** Frames that do not come are given up: else, once a window of them is lost, nothing more is sent. */
  lossy = false;
  readonly #last = [0, 0];
  readonly #lost = [0, 0];

  constructor(packed: boolean) {
    this.guests = [new KeepingDriver(1, packed), new KeepingDriver(2, packed)];
    this.#fronts = this.guests.map(
      (driver, i) =>
        new Frontend({
          path: this.path('ab'[i]!),
          mode: i === 0 ? 'client' : 'server',
          loop: this.loop,
          driver,
          onNotice: () => {},
          retryMs: 20,
        }),
    );
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  start(...more: string[]): Child {
    const ports = [this.path('a'), `client:${this.path('b')}`];
    const own = ['--control', this.control, '--state', this.state, '--queues', '1', '--json'];
    const child = new Child(join(root, 'bin/vhop'), ['switch', ...ports, ...own, ...more]);
    this.#children.push(child);
    return child;
  }

  async open(): Promise<Child> {
    const child = this.start();
    await running(child);
    for (const front of this.#fronts) front.open();
    const up = () => this.guests.every((guest) => guest.up);
    await waitFor(up, 10_000, 'both guests up', () => child.tail());
    await this.traffic(() => this.guests.every(({ received }) => received > 100));
    return child;
  }

  /** Traffic both ways until `done`; fails after `ms`. */
  async traffic(done: () => boolean, ms = 10_000): Promise<void> {
    const [a, b] = this.guests;
    const end = performance.now() + ms;
    while (!done()) {
      assert.ok(performance.now() < end, `traffic stopped: ${this.counts()}`);
      for (const [i, from, to] of [
        [0, a, b],
        [1, b, a],
      ] as const) {
        // Never more on the way than the receiver has room for.
        const behind = from.sent - to.received - this.#lost[i]!;
        from.send(behind < WINDOW ? 32 : 0);
        const before = to.received;
        to.receive();
        const now = performance.timeOrigin + performance.now();
        const last = this.#last[i]!;
        if (this.lossy && behind >= WINDOW && last > 0 && now - last > LOST) {
          this.#lost[i]! += behind;
        }
        if (to.received === before) continue;
        if (last > 0 && now - last > SHORT) this.gaps.push({ from: last, to: now });
        this.#last[i] = now;
      }
      // The CPU is for the switches.
      await sleep(1);
    }
  }

  /** What `child` told of when its ports were taken over: that instant, and its own measure, milliseconds. */
  handedOver(child: Child): { at: number; pause: number } {
    const line = child.stdout.split('\n').find((text) => text.includes('after a pause of'));
    assert.ok(line, child.tail());
    const { time, value } = JSON.parse(line) as { time: number; value: { message: string } };
    const pause = Number(/after a pause of ([0-9.]+) ms/.exec(value.message)?.[1]);
    return { at: time - pause / 2, pause };
  }

  /** Longest time without a frame for a guest that has instant `at` in it, milliseconds. */
  gapAt(at: number): number {
    const around = this.gaps.filter(({ from, to }) => from <= at && at <= to);
    return Math.max(0, ...around.map(({ from, to }) => to - from));
  }

  /** Files of this lab in /dev/shm. */
  states(): string[] {
    const files = globSync(`${this.state}*`);
    return files.sort();
  }

  counts(): string {
    return JSON.stringify(this.guests.map(({ sent, received, again }) => [sent, received, again]));
  }

  /** Asks the switch to hand over to this process, which does `part` of it and ends; gives the switch's answer. */
  async failing(part: (channel: Channel) => Promise<void>): Promise<string> {
    const to = this.path('new');
    const { pid } = await connectTo(this.control).get('/info');
    let answer: Promise<unknown> | undefined;
    const channel = await awaitCall(this.loop, to, pid, () => {
      answer = connectTo(this.control).post('/leave', { format: HANDOVER_FORMAT, to });
      return answer;
    });
    await part(channel);
    channel.close();
    return answer!.then(
      () => 'it left',
      (error: Error) => error.message,
    );
  }

  /** All that was sent arrived, once, on the connections of the beginning. */
  async checkWhole(): Promise<void> {
    const [a, b] = this.guests;
    const arrived = () => {
      for (const guest of this.guests) {
        guest.send(0);
        guest.receive();
      }
      return a.sent === b.received && b.sent === a.received;
    };
    await waitFor(arrived, 3000, 'every frame', () => this.counts());
    for (const { starts, errors, corrupt, again } of this.guests) {
      assert.deepEqual([starts, errors, corrupt, again], [1, 0, 0, 0], this.counts());
    }
  }

  async close(): Promise<void> {
    for (const front of this.#fronts) await front.close();
    for (const child of this.#children) child.kill('SIGTERM');
    for (const child of this.#children) await child.finish(10_000).catch(() => {});
    for (const guest of this.guests) guest.close();
    await this.loop.close();
    for (const file of this.states()) rmSync(file);
    removeFolder(this.folder);
  }
}

export const running = (child: Child) =>
  waitFor(
    () => child.stdout.includes('"started"'),
    20_000,
    'a switch',
    () => child.tail(),
  );
