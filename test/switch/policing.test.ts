// What a policed port gets through a running switch, by the clock; and that a hostile one's eventfd
// holds nobody up.

import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import koffi from 'koffi';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import { TrafficGuest, TrafficThread } from '../../src/port/traffic.ts';

const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));

describe('a policed port', { timeout: 60_000 }, () => {
  let lab: Switch;
  let thread: TrafficThread;
  let guests: TrafficGuest[];
  const length = 1000;

  before(async () => {
    lab = await openSwitch({ workers: 2 });
    const [a, b] = ['a', 'b'].map((name) => lab.addMemoryPort({ type: 'memory', name }));
    guests = [
      new TrafficGuest(lab.control, a!, b!.info().mac, { frames: Infinity, length }),
      new TrafficGuest(lab.control, b!, a!.info().mac, { frames: Infinity, length }),
    ];
    thread = new TrafficThread(lab.control, guests);
  });
  after(async () => {
    await thread.stop();
    await lab.close();
  });

  /** Frames a second that arrive from a. */
  async function rate(seconds: number): Promise<number> {
    const count = () => {
      const { received, missing } = guests[1]!.counts();
      return { received, missing, at: performance.now() };
    };
    const from = count();
    await sleep(seconds * 1000);
    const to = count();
    return ((to.received - from.received) * 1000) / (to.at - from.at);
  }

  for (const [name, limits, expected] of [
    ['20k frames', { frames: 20_000 }, 20_000],
    ['80 Mbit', { bits: 80e6 }, 10_000],
    ['both', { frames: 5000, bits: 80e6 }, 5000],
  ] as const) {
    it(`gets within 5 % of ${name} a second, whatever it sends`, async () => {
      lab.setPolicing('a', { rate: limits, burst: { ...limits, ...saved(limits) } });
      await sleep(300);
      const got = await rate(2);
      assert.ok(Math.abs(got / expected - 1) < 0.05, `${got} instead of ${expected}`);
      const { drops } = lab.stats().ports.find(({ port }) => port === 'a')!;
      assert.ok(drops['tx_policed']! > 0);
      assert.deepEqual(lab.ports()[0]!.rate, limits);
    });
  }

  it('is free again once the limits are lifted, and the other one never was bound', async () => {
    const others = guests[0]!.counts().received;
    assert.ok(others > 100_000, `${others} frames the other way`);
    lab.setPolicing('a', {});
    const before = lab.stats().ports[0]!.drops['tx_policed'];
    assert.ok((await rate(0.5)) > 25_000);
    assert.equal(lab.stats().ports[0]!.drops['tx_policed'], before);
    assert.equal(lab.ports()[0]!.rate, undefined);
  });

  it('refuses limits that cannot be, and ports that are not there', () => {
    assert.throws(() => lab.setPolicing('c', {}), /no port c: there are a, b/);
    assert.throws(() => lab.setPolicing('a', { rate: { bits: 0 } }), /rate: bits is 0/);
    assert.throws(() => lab.setPolicing('a', { burst: { bits: 5 } }), /without a rate/);
  });

  /** 50 ms: a shorter pause of the machine takes nothing away, and what it saves up adds 2.5 %. */
  function saved(limits: { frames?: number; bits?: number }) {
    return Object.fromEntries(Object.entries(limits).map(([kind, n]) => [kind, n / 20]));
  }
});

describe('a call eventfd that is full and blocking', { timeout: 30_000 }, () => {
  it('holds no worker up', async () => {
    const lab = await openSwitch();
    const fcntl = koffi.load(null).func('int fcntl(int fd, int command, ...)');
    const ports = ['a', 'b'].map((name) => lab.addMemoryPort({ type: 'memory', name }));
    const guests = ports.map(
      (port, i) =>
        new TrafficGuest(lab.control, port, ports[1 - i]!.info().mac, { frames: Infinity }),
    );
    // Each of a's eventfds: no more than one count from full, and O_NONBLOCK off.
    for (const { callFd } of ports[0]!.queues) {
      writeSync(callFd, new Uint8Array(new BigUint64Array([0xffff_ffff_ffff_fffdn]).buffer));
      assert.equal(fcntl(callFd, 4, 'int', 0), 0);
    }
    const thread = new TrafficThread(lab.control, guests);
    try {
      const sent = () => guests.map((guest) => guest.counts().sent);
      // A worker that is held up sends no more than it had begun.
      for (let target = 10_000; target <= 50_000; target += 10_000) {
        const end = performance.now() + 10_000;
        while (sent().some((n) => n < target)) {
          assert.ok(performance.now() < end, `${sent()} of ${target} sent`);
          await sleep(20);
        }
      }
    } finally {
      await thread.stop();
      await lab.close();
    }
  });
});
