// Queues disabled and enabled in the middle of traffic: a burst that is under way ends on the rings
// it began with, so every frame is received once or counted, and nobody's ring is latched.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openSwitch } from '../../src/api/index.ts';
import { TrafficGuest, TrafficThread } from '../../src/port/traffic.ts';
import { LONG, PACKED, sleep, state } from './stress.ts';

const ROUNDS = LONG ? 200_000 : 3_000;
const PAIRS = 4;

describe('reconfiguration under load', { timeout: LONG ? 7_200_000 : 60_000 }, () => {
  for (const workers of [1, 2]) {
    it(`queues enabled and disabled at random, workers: ${workers}`, async () => {
      const lab = await openSwitch({ workers });
      const port = { type: 'memory', queues: PAIRS } as const;
      const a = lab.addMemoryPort({ ...port, name: 'a', ringSize: 256 });
      const b = lab.addMemoryPort({ ...port, name: 'b', ringSize: 251, features: PACKED });
      const options = { frames: Number.POSITIVE_INFINITY, segments: 4, length: 200 };
      const guests = [
        new TrafficGuest(lab.control, a, b.info().mac, options),
        new TrafficGuest(lab.control, b, a.info().mac, options),
      ];
      const thread = new TrafficThread(lab.control, guests);
      try {
        while (guests.some((guest) => guest.counts().received < 1000)) await sleep(1);
        for (let round = 0; round < ROUNDS; round++) {
          // All but the TX queues in use: those would only hold their frames back.
          const queue = (round * 7) % (PAIRS * 2);
          for (const { device } of [a, b]) {
            if (queue !== 1) device.setVringEnable(queue, round % 3 !== 0);
          }
          if (round % 20 === 0) await sleep(1);
        }
        for (const { device } of [a, b]) {
          for (const [queue] of device.rings.entries()) device.setVringEnable(queue, true);
        }
        for (const guest of guests) guest.halt();
        let last = -1;
        for (let now = 0; now !== last; ) {
          last = now;
          await sleep(50);
          now = guests.reduce((sum, guest) => sum + guest.counts().received, 0);
        }
        const stats = lab.stats();
        const dropped = stats.ports
          .flatMap(({ drops }) => Object.values(drops))
          .reduce((sum, n) => sum + n, 0);
        const counts = guests.map((guest) => guest.counts());
        const sum = (field: 'sent' | 'received' | 'corrupt' | 'reordered' | 'foreign') =>
          counts.reduce((total, one) => total + one[field], 0);
        const context = `${JSON.stringify(counts)}\n${state(lab)}`;
        assert.deepEqual([sum('corrupt'), sum('reordered'), sum('foreign')], [0, 0, 0], context);
        assert.equal(sum('received') + dropped, sum('sent'), context);
        assert.ok(sum('received') > ROUNDS, context);
        assert.ok(
          lab.ports().every((port) => port.state === 'up'),
          context,
        );
      } finally {
        await thread.stop();
        await lab.close();
      }
    });
  }
});
