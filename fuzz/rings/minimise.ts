// From a case that does something to the few changes that make it do so.

import type { Bench } from '../bench.ts';
import { Case, type CaseSpec } from './case.ts';
import type { Kept } from './corpus.ts';
import { Failure, type Outcome } from './judge.ts';
import type { Change } from './mutate.ts';

/** Runs of the case that minimising may cost. */
const RUNS = 600;

export interface Played {
  case: Case;
  /** What it failed with. */
  error: Error | undefined;
  changes: Map<number, Change>;
}

/** Runs a case, with the changes of these numbers only; up to the round that `until` names. */
export function play(
  bench: Bench,
  spec: CaseSpec,
  only?: ReadonlySet<number>,
  until?: (outcome: Outcome, round: number) => boolean,
): Played {
  const made = new Case(bench, spec);
  made.world.mutator.only = only;
  const changes = new Map<number, Change>();
  made.world.mutator.log = changes;
  let error: Error | undefined;
  try {
    made.run((outcome, round) => until?.(outcome, round));
  } catch (thrown) {
    error = thrown as Error;
  }
  return { case: made, error, changes };
}

/** Runs a kept case, as far as what it was kept for; `seen` is told of that round. */
export function replay(bench: Bench, kept: Kept, seen?: (outcome: Outcome) => void): Played {
  return play(bench, kept, new Set(kept.only), (outcome, round) => {
    if (round === kept.round) seen?.(outcome);
    return round === kept.round;
  });
}

/** What kind of failure it is, whatever its numbers. */
export function kindOf(error: Error | undefined): string {
  if (error === undefined) return '';
  return error instanceof Failure ? error.message.replace(/[0-9a-f]*[0-9][0-9a-f]*/g, '#') : 'trap';
}

/** The least of `numbers`, as far as trying goes, with which `holds` is still true. */
export function minimise(
  numbers: readonly number[],
  holds: (only: ReadonlySet<number>) => boolean,
): number[] {
  let left = [...numbers];
  let runs = 0;
  for (let size = left.length; size >= 1 && runs < RUNS; size = size === 1 ? 0 : (size + 1) >> 1) {
    for (let at = 0; at < left.length && runs < RUNS; runs++) {
      const fewer = [...left.slice(0, at), ...left.slice(at + size)];
      if (holds(new Set(fewer))) left = fewer;
      else at += size;
    }
  }
  return left;
}
