// The racing writer, a short while for each field (class 19; the long form: npm run fuzz -- --target race).

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RACES, runRaces } from '../../fuzz/race.ts';

const FLIPS = process.env['VHOP_LONG'] ? 100_000_000 : 200_000;

describe('a second thread that flips one field', { timeout: 3_600_000 }, () => {
  it('every outcome is one whole value', async () => {
    assert.ok(RACES.length > 90, `${RACES.length} races`);
    assert.equal(new Set(RACES.map(({ name }) => name)).size, RACES.length);
    const results = await runRaces(RACES, FLIPS);
    assert.equal(results.length, RACES.length);
    for (const { name, flips, rounds } of results) {
      assert.ok(flips >= FLIPS && rounds > 0, `${name}: ${flips} flips, ${rounds} rounds`);
    }
  });
});
