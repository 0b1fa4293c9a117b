// A front end that goes while the worker polls (DPDK 73ea44370d, 21d9fb6bad), or whose memory does: what
// a worker may still use stays until it has let go.

import assert from 'node:assert/strict';
import { fstatSync } from 'node:fs';
import { afterEach, beforeEach, describe, it } from 'node:test';
import {
  RING_STOPPED,
  WORKER_ACK,
  WORKER_BASE,
  WORKER_GENERATION,
  WORKER_PARKED,
  WORKER_SPIN,
} from '../../src/abi/layout.ts';
import { close, eventfd } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { WorkerPool } from '../../src/worker/pool.ts';
import { DeviceBench, FrontEnd } from '../virtio/bench.ts';
import { PackedFrontEnd } from '../virtio/packed-front-end.ts';

for (const Made of [FrontEnd, PackedFrontEnd]) {
  describe(`teardown: ${Made === FrontEnd ? 'split' : 'packed'}`, () => {
    let bench: DeviceBench;
    let front: FrontEnd;

    beforeEach(() => {
      bench = new DeviceBench();
      front = new Made(bench, bench.device(2).device).open();
    });
    afterEach(() => front.close());

    /** What `change` had done when it first waited for the workers. */
    function atFirstQuiesce<T>(change: () => void, look: () => T): T {
      let seen: T | undefined;
      bench.onQuiesce = () => {
        seen ??= look();
      };
      change();
      bench.onQuiesce = () => {};
      assert.ok(seen !== undefined, 'nobody waited for the workers');
      return seen;
    }

    const running = () => front.device.rings.filter(({ state }) => state !== RING_STOPPED).length;

    for (const [n, what, change] of [
      [10, 'a connection that ends', () => front.device.disconnected('gone')],
      [6, 'a new table', () => front.device.setMemTable([])],
      [
        6,
        'a region that goes',
        () => {
          const { fd, ...region } = front.region();
          close(fd);
          front.device.removeMemRegion(region);
        },
      ],
    ] as const) {
      it(`class ${n}: ${what}: rings stop, workers let go, then memory is unmapped`, () => {
        const linear = front.linear(0);
        const seen = atFirstQuiesce(change, () => ({
          running: running(),
          mapped: front.linear(0),
        }));
        assert.deepEqual(seen, { running: 0, mapped: linear });
        assert.equal(front.linear(0), 0);
      });
    }

    it('class 10: a call descriptor is closed when no worker can be about to signal it', () => {
      const first = eventfd();
      front.device.setVringCall(1, first);
      const open = atFirstQuiesce(
        () => front.device.setVringCall(1, eventfd()),
        () => fstatSync(first).ino > 0,
      );
      assert.ok(open);
      assert.throws(() => fstatSync(first), /EBADF/);
    });

    it('class 10: a kick after the end wakes nothing', () => {
      bench.settle();
      const rings = front.device.rings.map(({ index }) => index);
      front.device.disconnected('gone');
      bench.settle();
      for (const ring of rings) bench.datapath.activate(ring);
      assert.equal(bench.datapath.activeRings(), 0);
      assert.equal(bench.settle(), 0);
    });
  });
}

describe('quiesce', () => {
  it('class 10: main goes on only when a polling worker has seen the change', async () => {
    const control = new Control();
    const mainFd = eventfd();
    const failures: Error[] = [];
    const pool = new WorkerPool(control, 1, mainFd, (error) => failures.push(error));
    try {
      // Never asleep, so that it is not parked when it is asked.
      control.set(WORKER_BASE + WORKER_SPIN, 0xffff_ffff);
      while (control.get(WORKER_BASE + WORKER_PARKED) === 1) {
        pool.quiesce();
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      let polled = 0;
      for (let i = 0; i < 2000; i++) {
        pool.quiesce();
        const generation = control.get(WORKER_BASE + WORKER_GENERATION);
        const parked = control.get(WORKER_BASE + WORKER_PARKED) === 1;
        if (!parked) polled++;
        assert.ok(parked || control.get(WORKER_BASE + WORKER_ACK) === generation, `round ${i}`);
      }
      assert.ok(polled > 0, 'the worker slept all the time');
      assert.deepEqual(failures, []);
    } finally {
      await pool.close();
      close(mainFd);
    }
  });
});
