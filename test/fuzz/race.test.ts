// The racing writer, a short while for each field (class 19; the long form: npm run fuzz -- --target race).

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RACES } from '../../fuzz/race/races.ts';
import { Stepper, step } from '../../fuzz/race/stepped.ts';
import { runRaces } from '../../fuzz/race.ts';

const FLIPS = process.env['VHOP_LONG'] ? 100_000_000 : 200_000;

describe('one field that changes at a certain load', { timeout: 600_000 }, () => {
  it('every outcome is one whole value', () => {
    const stepper = new Stepper();
    const steps = RACES.map((race) => step(stepper, race));
    // What the device writes it never reads; tables are copied, and only the copy is looked at.
    const unread = steps.filter(({ loads }) => loads === 0).map(({ name }) => name);
    const fields = [' table ', ' used idx', ' avail_event', ' device event'];
    const is = (name: string) => fields.some((field) => name.includes(field));
    assert.deepEqual(unread, RACES.map(({ name }) => name).filter(is));
  });
});

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
