// An idle switch asks nothing of the machine: with 64 ports of 8 queue pairs its worker sleeps and
// polls nothing, and the first kick wakes it.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { openSwitch, type Switch, startTraffic } from '../../src/api/index.ts';

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('an idle switch with 64 ports', { timeout: 60_000 }, () => {
  let lab: Switch;

  before(async () => {
    lab = await openSwitch();
    for (let i = 0; i < 62; i++) {
      await lab.addPort({ type: 'memory', name: `idle${i}`, queues: 8, ringSize: 64 });
    }
  });
  after(() => lab.close());

  const worker = () => lab.stats().workers[0]!;

  /** Waits until the worker has worked, and rests; one that never rests runs into the time-out. */
  async function asleep(): Promise<void> {
    for (let last = -1; worker().state !== 'sleeping' || worker().polls !== last; ) {
      last = worker().polls || -1;
      await sleep(100);
    }
  }

  it('polls nothing', async () => {
    await asleep();
    const { polls, sleeps } = worker();
    await sleep(500);
    assert.deepEqual({ polls: worker().polls, sleeps: worker().sleeps }, { polls, sleeps });
    assert.ok(lab.rings().every((ring) => ring.direction === 'rx' || ring.notify));
  });

  it('wakes for a kick, carries what came, and sleeps again', async () => {
    const traffic = startTraffic(lab, { frames: 1000, length: 64 });
    try {
      while (traffic.counts().some(({ sent }) => sent < 1000)) await sleep(5);
      const counts = await traffic.drain();
      // The first frames are flooded; ports without buffers count them as theirs to drop.
      assert.deepEqual(
        counts.map(({ received, corrupt }) => ({ received, corrupt })),
        [
          { received: 1000, corrupt: 0 },
          { received: 1000, corrupt: 0 },
        ],
      );
      await asleep();
      const { polls } = worker();
      await sleep(300);
      assert.equal(worker().polls, polls);
    } finally {
      await traffic.stop();
    }
  });
});
