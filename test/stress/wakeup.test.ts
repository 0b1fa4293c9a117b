// Sleep and kick racing: one frame in flight each way, so that guests and workers fall asleep after
// nearly every one. A wake-up lost is a stall, and a stall fails. VHOP_LONG=1: a million rounds.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { F_EVENT_IDX, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { openSwitch, startTraffic } from '../../src/api/index.ts';
import { bit } from '../../src/virtio/features.ts';
import { finished, LONG, verify } from './stress.ts';

const ROUNDS = LONG ? 500_000 : 20_000;

describe('sleep and kick', { timeout: LONG ? 7_200_000 : 120_000 }, () => {
  for (const events of [true, false]) {
    for (const workers of [1, 2]) {
      it(`${events ? 'EVENT_IDX' : 'flags'}, workers: ${workers}: no wake-up is lost`, async () => {
        const features = bit(F_VERSION_1) | (events ? bit(F_EVENT_IDX) : 0n);
        const lab = await openSwitch({ workers });
        const traffic = startTraffic(lab, {
          frames: ROUNDS,
          length: 64,
          window: 1,
          ringSize: 8,
          features,
          eager: true,
        });
        try {
          await finished(lab, traffic, ROUNDS);
          await verify(lab, traffic);
          const sleeps = lab.stats().workers.reduce((sum, worker) => sum + worker.sleeps, 0);
          assert.ok(sleeps > ROUNDS / 100, `only ${sleeps} sleeps: nothing raced`);
        } finally {
          await traffic.stop();
          await lab.close();
        }
      });
    }
  }
});
