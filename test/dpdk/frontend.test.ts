// Our own driver as the guest of real back ends: this switch, DPDK's vhost and OVS. Each hands what
// comes in at one port to the other, in both directions, and every frame is counted.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { lacksOvs, startOvs } from '../../bench/peers/ovs.ts';
import { EventLoop } from '../../src/linux/index.ts';
import { Frontend, type FrontendOptions } from '../../src/vhost-user/index.ts';
import { openFds } from '../linux/fds.ts';
import { removeFolder, requirePeers, temporaryFolder, waitFor } from '../peers/process.ts';
import { Testpmd } from '../peers/testpmd.ts';
import { type Lab, scenario } from '../qemu/lab.ts';
import { OwnDriver, type Wanted } from './own-driver.ts';

/** Frames a queue pair sends at once; no ring on the way holds fewer. */
const LOT = 64;
const FRAMES = 20 * LOT;
const SIZES = [64, 1514];

const KINDS: Wanted[] = [false, true].flatMap((packed) =>
  [1, 2].map((pairs) => ({ packed, pairs })),
);

function label({ packed, pairs }: Wanted): string {
  return `${packed ? 'packed' : 'split'}, ${pairs} pair${pairs > 1 ? 's' : ''}`;
}

type Socket = Pick<FrontendOptions, 'path' | 'mode'>;

/** Two drivers, each behind a front end on a socket of its own. */
class Two {
  readonly drivers = [new OwnDriver(), new OwnDriver()] as const;
  readonly notices: string[] = [];
  readonly #loop = new EventLoop();
  readonly #fronts: Frontend[];

  constructor(sockets: readonly [Socket, Socket]) {
    const onNotice = (message: string) => this.notices.push(message);
    this.#fronts = this.drivers.map(
      (driver, i) => new Frontend({ ...sockets[i]!, loop: this.#loop, driver, onNotice }),
    );
  }

  /** Connects both, and waits until they run. */
  async open(wanted: Wanted): Promise<void> {
    for (const [i, front] of this.#fronts.entries()) {
      this.drivers[i]!.wanted = wanted;
      front.open();
    }
    await this.ready();
  }

  async ready(): Promise<void> {
    const up = () => this.drivers.every((driver) => driver.up);
    await waitFor(up, 10_000, 'both drivers up', () => this.notices.join('\n'));
  }

  /** Stops and disconnects both, in good order. */
  async leave(): Promise<void> {
    for (const [i, front] of this.#fronts.entries()) {
      await front.close();
      assert.equal(this.drivers[i]!.ends.at(-1), 'the port was closed');
    }
  }

  async close(): Promise<void> {
    for (const front of this.#fronts) await front.close();
    for (const driver of this.drivers) driver.close();
    await this.#loop.close();
  }

  /**
   * Waits until frames pass on every pair in both directions: OVS takes new rings into use by and by,
   * and drops what comes for them until then.
   */
  async warmUp(): Promise<void> {
    for (const [from, to] of [this.drivers, this.drivers.toReversed()]) {
      for (let pair = 0; pair < from!.wanted.pairs; pair++) {
        const before = arrived(to!);
        let sent = 0;
        const passes = () => {
          to!.poll();
          if (arrived(to!) > before) return true;
          if (from!.send(pair, 64, 0)) sent++;
          return false;
        };
        await waitFor(passes, 10_000, `pair ${pair} passes`, () => `${sent} frames sent`);
      }
    }
    await sleep(50);
    for (const driver of this.drivers) driver.poll();
  }

  /** Sends on every pair in both directions; all must arrive, on the same pair if `straight`. */
  async exchange(straight: boolean): Promise<void> {
    for (const length of SIZES) {
      for (const [from, to] of [this.drivers, this.drivers.toReversed()]) {
        await pass(from!, to!, length, straight);
      }
    }
    for (const driver of this.drivers) assert.equal(driver.errors, 0);
  }
}

function arrived(driver: OwnDriver): number {
  return driver.received.reduce((sum, { frames }) => sum + frames, 0);
}

async function pass(
  from: OwnDriver,
  to: OwnDriver,
  length: number,
  straight: boolean,
): Promise<void> {
  const { pairs } = from.wanted;
  const before = to.received.map((each) => ({ ...each }));
  const gained = () =>
    to.received.map(({ frames, bytes, sum }, i) => ({
      frames: frames - before[i]!.frames,
      bytes: bytes - before[i]!.bytes,
      sum: sum - before[i]!.sum,
    }));
  const total = (what: 'frames' | 'bytes' | 'sum') =>
    gained().reduce((sum, each) => sum + each[what], 0);
  let sent = 0;
  let numbers = 0;
  for (let number = 0; number < FRAMES; ) {
    for (let i = 0; i < LOT; i++, number++) {
      for (let pair = 0; pair < pairs; pair++) {
        assert.ok(from.send(pair, length, number), 'room in the ring');
        sent++;
        numbers += number;
      }
    }
    const end = performance.now() + 5000;
    for (to.poll(); total('frames') < sent; to.poll()) {
      assert.ok(
        performance.now() < end,
        `${sent} frames of ${length}: ${JSON.stringify(gained())}`,
      );
      await sleep(1);
    }
  }
  const got = { frames: total('frames'), bytes: total('bytes'), sum: total('sum') };
  assert.deepEqual(got, { frames: sent, bytes: sent * length, sum: numbers });
  if (straight) for (const { frames } of gained()) assert.equal(frames, FRAMES);
}

/** Runs `body`; afterwards there are as many descriptors as before. */
async function flat(body: () => Promise<void>): Promise<void> {
  const before = openFds();
  await body();
  const same = () => openFds() === before;
  await waitFor(same, 5000, 'descriptors closed', () => `${openFds()} instead of ${before}`);
}

async function atSwitch(lab: Lab, mode: 'server' | 'client'): Promise<void> {
  const other = mode === 'server' ? 'client' : 'server';
  for (const name of ['a', 'b']) await lab.port(name, { mode, queues: 2 });
  const two = new Two([
    { path: lab.path('a'), mode: other },
    { path: lab.path('b'), mode: other },
  ]);
  lab.closing(() => two.close());
  for (const wanted of KINDS) {
    const before = lab.stats('b');
    await two.open(wanted);
    // Whether a port looked while nobody listened is up to time.
    lab.notices = lab.notices.filter((notice) => !/^[ab]: waiting for /.test(notice));
    for (const name of ['a', 'b']) await lab.state(name, 'up');
    const { features, queuesEnabled } = lab.portInfo('a');
    assert.equal(features.includes('RING_PACKED'), wanted.packed);
    assert.equal(queuesEnabled, wanted.pairs);
    await two.exchange(false);
    const { rxFrames, drops } = lab.stats('b');
    assert.equal(rxFrames - before.rxFrames, SIZES.length * FRAMES * wanted.pairs);
    assert.deepEqual(drops, {});
    await lab.check();
    await two.leave();
    assert.deepEqual(two.notices, []);
  }
}

for (const mode of ['server', 'client'] as const) {
  scenario(`our driver at this switch, mode ${mode}`, [], { forwarding: 'wire' }, (lab) =>
    atSwitch(lab, mode),
  );
}

test('our driver at DPDK, which listens on one port and connects to the other', async (t) => {
  if (!requirePeers(t, ['testpmd'])) return;
  const folder = temporaryFolder();
  const [a, b] = [join(folder, 'a'), join(folder, 'b')];
  const start = () =>
    Testpmd.start({
      name: `vhop-${process.pid}`,
      ports: [
        { vhost: a, queues: 2 },
        { vhost: b, queues: 2, client: true },
      ],
      memory: 128,
      cpu: 1,
      mainCpu: 1,
    });
  await flat(async () => {
    let testpmd = await start();
    const two = new Two([
      { path: a, mode: 'client' },
      { path: b, mode: 'server' },
    ]);
    try {
      await testpmd.start();
      for (const wanted of KINDS) {
        await t.test(label(wanted), async () => {
          await two.open(wanted);
          await testpmd.waitLinkUp();
          await testpmd.clearStats();
          await two.exchange(true);
          const frames = SIZES.length * FRAMES * wanted.pairs;
          const counted = (await testpmd.stats()).map(({ rxPackets, txPackets, rxErrors }) => [
            rxPackets,
            txPackets,
            rxErrors,
          ]);
          assert.deepEqual(counted, [
            [frames, frames, 0],
            [frames, frames, 0],
          ]);
          await two.leave();
          assert.deepEqual(two.notices, []);
        });
      }
      await t.test('it is killed and comes back', async () => {
        await two.open(KINDS[0]!);
        await testpmd.kill();
        await waitFor(() => !two.drivers.some(({ up }) => up), 5000, 'both drivers down');
        testpmd = await start();
        await testpmd.start();
        await two.ready();
        await two.exchange(true);
        await two.leave();
      });
    } finally {
      await two.close();
      await testpmd.quit();
      removeFolder(folder);
    }
  });
});

test('our driver at OVS, which listens on one port and connects to the other', async (t: TestContext) => {
  if (!requirePeers(t, ['testpmd'])) return;
  const lack = lacksOvs();
  if (lack !== undefined) {
    if (process.env.CI) throw new Error(lack);
    t.skip(lack);
    return;
  }
  const folder = temporaryFolder();
  const sockets = [join(folder, 'a'), join(folder, 'b')] as const;
  await flat(async () => {
    const ovs = await startOvs({
      ...{ folder, sockets, pmdCpu: 1, mainCpu: 0, hugePages: false },
      clients: [sockets[1]],
    });
    const two = new Two([
      { path: sockets[0], mode: 'client' },
      { path: sockets[1], mode: 'server' },
    ]);
    try {
      for (const wanted of KINDS) {
        await t.test(label(wanted), async () => {
          await two.open(wanted);
          await two.warmUp();
          await two.exchange(false);
          await two.leave();
          assert.deepEqual(two.notices, []);
        });
      }
    } finally {
      await two.close();
      await ovs.stop();
      removeFolder(folder);
    }
  });
});
