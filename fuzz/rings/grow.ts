// Makes the corpus anew: node fuzz/rings/grow.ts. Needed when what a seed draws has changed, for then the
// cases kept are other ones. One case for each drop reason and latch, with the fewest changes that reach it.

import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { theBench } from '../bench.ts';
import { FOLDER, keep, reached } from './corpus.ts';
import type { Outcome } from './judge.ts';
import { minimise, play } from './minimise.ts';

/** Seeds looked at. */
const SEEDS = 300;

const bench = theBench();
const known = new Set<string>();

for (const name of readdirSync(FOLDER)) {
  if (!name.startsWith('failed-')) rmSync(join(FOLDER, name));
}
for (let seed = 1; seed <= SEEDS; seed++) {
  const spec = { shape: seed, seed };
  const found = new Map<string, number>();
  const first = play(bench, spec, undefined, (outcome, round) => {
    for (const name of reached(outcome)) {
      if (!known.has(name) && !found.has(name)) found.set(name, round);
    }
    return false;
  });
  if (first.error !== undefined) throw first.error;
  for (const [name, round] of found) {
    const until = (_: Outcome, at: number) => at === round;
    const numbers = [...play(bench, spec, undefined, until).changes.keys()];
    const only = minimise(numbers, (left) => {
      let held = false;
      play(bench, spec, left, (outcome, at) => {
        held = at === round && reached(outcome).includes(name);
        return at === round;
      });
      return held;
    });
    known.add(name);
    keep(name.replaceAll(' ', '-'), { reaches: name, ...spec, round, only });
    console.log(
      `${name}: seed ${seed}, round ${round}, ${only.length} of ${numbers.length} changes`,
    );
  }
}
console.log(`${known.size} cases in ${FOLDER}`);
