// Sleep and kick racing: one frame in flight each way, so that guests and workers fall asleep after
// nearly every one. A wake-up lost is a stall, and a stall fails. VHOP_LONG=1: a million rounds.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openSwitch, startTraffic } from '../../src/api/index.ts';
import { checkKinds, finished, KIND_PAIRS, LONG, pairName, verify } from './stress.ts';

const ROUNDS = LONG ? 500_000 : 8_000;

describe('sleep and kick: no wake-up is lost', { timeout: LONG ? 7_200_000 : 120_000 }, () => {
  for (const [i, kinds] of KIND_PAIRS.entries()) {
    for (const workers of LONG ? [1, 2] : [1 + (i % 2)]) {
      it(`${pairName(kinds)}, workers: ${workers}`, async () => {
        const lab = await openSwitch({ workers });
        const sizes = kinds.map(({ packed }) => (packed ? 3 : 8)) as [number, number];
        const traffic = startTraffic(lab, {
          frames: ROUNDS,
          length: 64,
          window: 1,
          ringSize: sizes,
          features: [kinds[0].features, kinds[1].features],
          eager: true,
        });
        try {
          checkKinds(lab, kinds);
          await finished(lab, traffic, ROUNDS);
          await verify(lab, traffic);
          // On a busy machine the worker's spinning pays, and it sleeps far less than the guests.
          const slept = lab.stats().workers.reduce((sum, worker) => sum + worker.sleeps, 0);
          const [{ sleeps }] = traffic.counts();
          assert.ok(slept > 0 && sleeps > ROUNDS / 100, `${slept} and ${sleeps} sleeps: no race`);
        } finally {
          await traffic.stop();
          await lab.close();
        }
      });
    }
  }
});
