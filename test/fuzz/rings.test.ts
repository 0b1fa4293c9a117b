// The ring fuzzer, a short while (the long form: npm run fuzz -- --target rings), and its corpus.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { theBench } from '../../fuzz/bench.ts';
import { loadCorpus, reached } from '../../fuzz/rings/corpus.ts';
import { replay } from '../../fuzz/rings/minimise.ts';
import { fuzzRings } from '../../fuzz/rings.ts';
import { DROP_NAMES } from '../../src/observe/drops.ts';

const CHANGES = process.env['VHOP_LONG'] ? 1_000_000_000 : 4_000_000;

/** On a hostile ring of either format, but for: */
const EXCEPT: Record<string, string> = {
  'split tx_policed': 'a port is policed, whatever its rings hold',
  'packed tx_policed': 'a port is policed, whatever its rings hold',
  'packed tx_bad_chain': 'flags would have to change between two looks: race.test.ts has that',
  'split rx_mtu': 'it is the peer that has an MTU',
  'packed rx_mtu': 'it is the peer that has an MTU',
  'split rx_bad_gso': 'it is the hostile guest that asks for what cannot be segmented',
  'packed rx_bad_gso': 'it is the hostile guest that asks for what cannot be segmented',
};
const OTHERS = [
  'peer rx_mtu',
  'peer rx_bad_gso',
  'split latched avail_jump',
  'split latched head',
  'packed latched chain',
  'packed latched id',
];

function all(): string[] {
  const formats = ['split', 'packed'];
  const drops = formats.flatMap((format) => DROP_NAMES.map((name) => `${format} ${name}`));
  return [...drops.filter((name) => EXCEPT[name] === undefined), ...OTHERS];
}

describe('hostile rings', { timeout: 3_600_000 }, () => {
  const known = new Set<string>();

  for (const { name, kept } of loadCorpus()) {
    it(`corpus: ${name}`, () => {
      let found: string[] = [];
      const { error } = replay(theBench(), kept, (outcome) => {
        found = reached(outcome);
      });
      assert.ifError(error);
      // One that failed once, and is kept for that, need not reach anything.
      if (kept.reaches.startsWith('failure')) return;
      // Where this fails because what a seed draws has changed: node fuzz/rings/grow.ts.
      assert.ok(found.includes(kept.reaches), `${kept.reaches} is now ${found.join(', ')}`);
      known.add(kept.reaches);
    });
  }

  it('changed at random: every head comes back, or the ring is latched', async () => {
    const { report, fuzzer } = await fuzzRings({ seed: 1, iterations: CHANGES });
    assert.ok(report.iterations >= CHANGES);
    for (const [name, n] of Object.entries(report.notes)) assert.ok(n > 0, `${name}: none`);
    for (const name of fuzzer.reached.keys()) known.add(name);
  });

  it('reaches every drop reason and latch there is', () => {
    const missing = all().filter((name) => !known.has(name));
    assert.deepEqual(missing, []);
    const stale = Object.keys(EXCEPT).filter((name) => known.has(name));
    assert.deepEqual(stale, [], 'exceptions that are none');
  });
});
