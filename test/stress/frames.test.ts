// Numbered, checked frames of 1-4 segments between two threads, through the switch's workers: none
// lost unaccounted, duplicated, reordered or corrupted. VHOP_LONG=1: 10^8 frames.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openSwitch, startTraffic } from '../../src/api/index.ts';
import { checkKinds, finished, KIND_PAIRS, LONG, PACKED, pairName, verify } from './stress.ts';

/** In each direction. */
const FRAMES = LONG ? 6_250_000 : 300_000;
const KIND_FRAMES = LONG ? 6_250_000 : 80_000;

describe('a stream of checked frames', { timeout: LONG ? 7_200_000 : 120_000 }, () => {
  for (const forwarding of ['wire', 'switch'] as const) {
    for (const workers of [1, 2]) {
      for (const length of [0, 64]) {
        const size = length === 0 ? 'mixed lengths' : `${length} B`;
        it(`${forwarding}, workers: ${workers}, ${size}`, async () => {
          const lab = await openSwitch({ forwarding, workers });
          const traffic = startTraffic(lab, { frames: FRAMES, segments: 4, length, ringSize: 512 });
          try {
            await finished(lab, traffic, FRAMES);
            await verify(lab, traffic);
            assert.ok(traffic.counts().every(({ sent }) => sent === FRAMES));
          } finally {
            await traffic.stop();
            await lab.close();
          }
        });
      }
    }
  }
});

describe('over every kind of ring', { timeout: LONG ? 7_200_000 : 120_000 }, () => {
  for (const [i, kinds] of KIND_PAIRS.entries()) {
    it(pairName(kinds), async () => {
      const lab = await openSwitch({ workers: 1 + (i % 2) });
      // Packed rings have no need of a power of two.
      const sizes = kinds.map(({ packed }) => (packed ? 397 + i : 512)) as [number, number];
      const traffic = startTraffic(lab, {
        frames: KIND_FRAMES,
        segments: 4,
        ringSize: sizes,
        features: [kinds[0].features, kinds[1].features],
      });
      try {
        checkKinds(lab, kinds);
        await finished(lab, traffic, KIND_FRAMES);
        await verify(lab, traffic);
      } finally {
        await traffic.stop();
        await lab.close();
      }
    });
  }

  for (const ringSize of [2, 3, 1000, 32768]) {
    it(`packed, ${ringSize} entries`, async () => {
      const lab = await openSwitch();
      const frames = 5_000;
      const traffic = startTraffic(lab, { frames, segments: 4, ringSize, features: PACKED });
      try {
        assert.ok(lab.rings().every(({ type, size }) => type === 'packed' && size === ringSize));
        await finished(lab, traffic, frames);
        await verify(lab, traffic);
      } finally {
        await traffic.stop();
        await lab.close();
      }
    });
  }
});
