// What a front end may cost: so much at once, then a share; it is held back, never cut off.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import * as vu from '../../src/abi/vhost-user.ts';
import { EventLoop, socketPair } from '../../src/linux/index.ts';
import { Budget, Connection, encodeMessage } from '../../src/vhost-user/index.ts';
import { SocketLab } from '../hostile/socket-lab.ts';
import { openFds } from '../linux/fds.ts';
import { FrontEnd, until } from './harness.ts';

/** A budget of `burst` microseconds on clocks that are set by hand. */
function byHand(burst: number) {
  const clock = { cpu: 0, now: 0 };
  const budget = new Budget({ burst, cpu: () => clock.cpu, now: () => clock.now });
  const use = (cpu: number) =>
    budget.charge(() => {
      clock.cpu += cpu;
    });
  return { budget, clock, use };
}

describe('a budget', () => {
  it('lasts for its burst, each request charged 50 us and what it took', () => {
    const { budget, use } = byHand(10_000);
    for (let i = 0; i < 99; i++) use(50);
    assert.equal(budget.exhausted, false);
    use(50);
    assert.equal(budget.exhausted, true);
    assert.equal(budget.used, 10_000);
  });

  it('comes back at 2 % of the time, up to its burst', () => {
    const { budget, clock, use } = byHand(10_000);
    use(10_950);
    assert.equal(budget.exhausted, true);
    clock.now += 50;
    assert.equal(budget.exhausted, true);
    clock.now += 1;
    assert.equal(budget.exhausted, false);
    clock.now += 1e9;
    assert.equal(budget.exhausted, false);
    use(9_900);
    assert.equal(budget.exhausted, false);
    use(0);
    assert.equal(budget.exhausted, true);
  });

  it('owes at most a burst, whatever one request took', () => {
    const { budget, clock, use } = byHand(10_000);
    use(1e9);
    assert.equal(budget.exhausted, true);
    clock.now += 501;
    assert.equal(budget.exhausted, false);
  });

  it('charges work that throws, too', () => {
    const { budget } = byHand(40);
    const fails = () => {
      throw new Error('no');
    };
    assert.throws(() => budget.charge(fails), /no/);
    assert.equal(budget.exhausted, true);
  });
});

describe('a front end without any budget left', { timeout: 30_000 }, () => {
  const ask = encodeMessage(vu.VU_GET_FEATURES, vu.VERSION, 'none', null);

  async function withConnection(
    body: (
      w: ReturnType<typeof byHand> & {
        front: FrontEnd;
        got: number[];
        ends: string[];
        connection: Connection;
      },
    ) => Promise<void>,
  ): Promise<void> {
    const before = openFds();
    const loop = new EventLoop();
    const [fd, other] = socketPair();
    const front = new FrontEnd(other);
    const hand = byHand(1000);
    const [got, ends]: [number[], string[]] = [[], []];
    const connection = new Connection(
      fd,
      loop,
      { onMessage: ({ request }) => got.push(request), onClosed: (reason) => ends.push(reason) },
      hand.budget,
    );
    try {
      await body({ ...hand, front, got, ends, connection });
    } finally {
      connection.close('the test is over');
      front.close();
      await loop.close();
    }
    assert.equal(ends.length, 1);
    assert.equal(openFds(), before);
  }

  it('is not read until there is some again; nothing is lost', async () => {
    await withConnection(async ({ front, got, clock, ends }) => {
      for (let i = 0; i < 100; i++) front.raw(ask);
      await until(() => got.length > 0);
      await sleep(120);
      // 20 of 50 us each, and the look that found nothing more to spend.
      assert.equal(got.length, 20);
      for (let time = 0; got.length < 100; time++) {
        clock.now += 51;
        await sleep(5);
        assert.ok(time < 1000, `${got.length} handled`);
      }
      assert.deepEqual(ends, []);
    });
  });

  it('may hang up meanwhile, or be hung up on', async () => {
    await withConnection(async ({ front, got, clock, ends }) => {
      for (let i = 0; i < 30; i++) front.raw(ask);
      await until(() => got.length === 20);
      front.close();
      await sleep(60);
      assert.deepEqual(ends, []);
      clock.now += 1e6;
      await until(() => ends.length === 1);
      assert.equal(got.length, 30);
    });
    await withConnection(async ({ front, got, connection }) => {
      for (let i = 0; i < 30; i++) front.raw(ask);
      await until(() => got.length === 20);
      connection.close('now');
      await front.expectClosed();
      await sleep(60);
      assert.equal(got.length, 20);
    });
  });

  it('is not let in either; who waits is, later', async () => {
    const { budget, clock } = byHand(500);
    const lab = new SocketLab(1, { budget });
    try {
      // Fewer than the socket's queue holds.
      for (let i = 0; i < 15; i++) (await lab.connect()).close();
      await sleep(120);
      const some = lab.visits;
      // 50 us for coming in, and 50 more for being seen to leave.
      assert.ok(some >= 5 && some <= 10, `${some} let in`);
      await sleep(60);
      assert.equal(lab.visits, some);
      for (let time = 0; lab.visits < 15; time++) {
        clock.now += 26;
        await sleep(5);
        assert.ok(time < 1000, `${lab.visits} let in`);
      }
      clock.now += 1e9;
      await lab.free();
    } finally {
      await lab.close();
    }
  });

  it('gets no further reply either, and those that wait for it go on', async () => {
    await withConnection(async ({ front, got, clock, connection }) => {
      for (let i = 0; i < 30; i++) front.raw(ask);
      await until(() => got.length === 20);
      const filler = encodeMessage(1, 5, 'opaque', new Uint8Array(4000));
      for (let i = 0; i < 200; i++) connection.send(filler);
      await sleep(120);
      assert.equal(got.length, 20);
      clock.now += 1e6;
      for (let i = 0; i < 200; i++) assert.notEqual(await front.reply(), 'closed');
      await until(() => got.length === 30);
    });
  });
});

describe('a front end that keeps the peace', { timeout: 30_000 }, () => {
  it('starts eight queue pairs five times over without being held back', async () => {
    const budget = new Budget();
    const lab = new SocketLab(8, { budget });
    for (let round = 0; round < 5; round++) {
      const front = await lab.connect();
      await lab.start(front, 16);
      assert.equal(lab.device.up, true);
      front.close();
      await lab.free();
      assert.equal(budget.exhausted, false, `round ${round}: ${budget.used} us used`);
    }
    await lab.close();
  });

  it('is served while another port is flooded', async () => {
    const labs = [new SocketLab(8, { budget: new Budget() }), new SocketLab()] as const;
    const [bad, good] = await Promise.all(labs.map((lab) => lab.connect()));
    await labs[0].start(bad!, 16);
    let flooding = true;
    const flood = async () => {
      for (let i = 0; flooding; i++) {
        const change = { index: i % 16, num: (i >> 4) & 1 };
        try {
          bad!.send(vu.VU_SET_VRING_ENABLE, 'state', change);
        } catch {
          // Its socket is full: it is not read.
          await new Promise(setImmediate);
        }
      }
    };
    const flooded = flood();
    for (let i = 0; i < 200; i++) await good!.barrier();
    flooding = false;
    await flooded;
    assert.equal(labs[0].endpoint.connected, true);
    for (const front of [bad!, good!]) front.close();
    for (const lab of labs) await lab.close();
  });
});
