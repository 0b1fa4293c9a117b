// Fuzzes rings in process: a valid ring first, then changes of its fields (rings/mutate.ts), and after
// each round the question whether every head came back or the ring is latched (rings/case.ts).
//
// Guided by counters: a case that reaches a combination of drop reasons and latches not seen before
// lends its world to later ones. An iteration is one field changed.

import { RING_LAST_AVAIL, RING_STATE } from '../src/abi/layout.ts';
import { theBench } from './bench.ts';
import { Random } from './random.ts';
import { Case, type CaseSpec } from './rings/case.ts';
import { FOLDER, keep, loadCorpus, reached } from './rings/corpus.ts';
import type { Outcome } from './rings/judge.ts';
import { kindOf, minimise, type Played, play, replay } from './rings/minimise.ts';
import { FIELDS } from './rings/mutate.ts';
import type { FuzzReport, FuzzTarget } from './target.ts';
import { Watchdog } from './watchdog.ts';

/** Milliseconds that one case may take; it takes less than 100 on an idle machine. */
const STUCK = 20_000;

/** All that tells one round's outcome from another's, as one number. */
function signature({ packed, tx, rx, peer, latched }: Outcome): number {
  // TX reasons but for the last few, RX reasons of one guest and of the other.
  const [own, theirs] = [(rx >>> 11) & 0x1ff, (peer >>> 11) & 0x1ff];
  const sent = (tx & 0x7ff) | ((tx >>> 6) & 0x800);
  return ((sent * 0x200 + own) * 0x200 + theirs) * 0x80 + latched * 2 + (packed ? 1 : 0);
}

export class RingFuzzer {
  readonly bench = theBench();
  /** Rounds by what they reached (corpus.ts). */
  readonly reached = new Map<string, number>();
  changes = 0;
  cases = 0;
  rounds = 0;
  frames = 0;
  latches = 0;
  readonly fields = new Float64Array(FIELDS.length);
  readonly #signatures = new Set<number>();
  /** Seeds of worlds that reached something new. */
  readonly #worlds: number[] = [];

  get combinations(): number {
    return this.#signatures.size;
  }

  /** The case that `seed` makes now: a world of its own, or one that was worth keeping. */
  next(seed: number): CaseSpec {
    const random = new Random(seed ^ 0x60d);
    const known = this.#worlds.length;
    const again = known > 0 && random.once(4);
    return { shape: again ? this.#worlds[random.below(known)]! : seed, seed };
  }

  /** Runs a case; throws what it fails with. */
  run(spec: CaseSpec): void {
    const made = new Case(this.bench, spec);
    try {
      made.run((outcome) => this.#note(outcome, spec));
    } finally {
      const { mutator } = made.world;
      this.changes += mutator.done;
      this.cases++;
      this.rounds += made.round;
      this.frames += made.judge.frames;
      for (let i = 0; i < FIELDS.length; i++) this.fields[i]! += mutator.counts[i]!;
    }
  }

  #note(outcome: Outcome, spec: CaseSpec): undefined {
    if (outcome.latched !== 0) this.latches++;
    const key = signature(outcome);
    if (this.#signatures.has(key)) return;
    this.#signatures.add(key);
    this.#worlds.push(spec.shape);
    for (const name of reached(outcome)) this.reached.set(name, (this.reached.get(name) ?? 0) + 1);
  }

  /** The failure in words, minimised, and where it was kept. */
  explain(spec: CaseSpec, error: Error, alive: () => void): string {
    const first = play(this.bench, spec);
    const told = `seed ${spec.seed}, world ${spec.shape}, round ${first.case.round}`;
    if (first.error === undefined) return `${told}: ${error.message}; it does not fail again`;
    const kind = kindOf(error);
    const only = minimise([...first.changes.keys()], (numbers) => {
      alive();
      return kindOf(play(this.bench, spec, numbers).error) === kind;
    });
    const last = play(this.bench, spec, new Set(only));
    const path = keep(`failed-${spec.shape}-${spec.seed}`, {
      reaches: `failure: ${(last.error ?? error).message}`,
      ...spec,
      round: last.case.round,
      only,
    });
    return [
      `${told}: ${error.stack}`,
      `with ${only.length} of ${first.changes.size} changes: ${last.error?.message}`,
      ...describe(last),
      `kept in ${path}; every run begins with what is kept:`,
      '  npm run fuzz -- --target rings --iterations 1',
    ].join('\n');
  }
}

function describe({ case: made, changes }: Played): string[] {
  const { tx, rx, shape } = made.world;
  const word = (_: string, value: unknown) =>
    typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
  const rings = [tx, rx].map((ring) => {
    const { desc, avail, usedRing } = ring.queue;
    const at = [desc, avail, usedRing].map((n) => `0x${n.toString(16)}`).join(', ');
    const state = `state ${ring.field(RING_STATE)}, taken to ${ring.field(RING_LAST_AVAIL)}`;
    return `  ${ring === tx ? 'TX' : 'RX'} ring of ${ring.size}: parts at ${at}; ${state}`;
  });
  const list = [...changes.values()].slice(-20).map(({ field, at, was, is }) => {
    return `  ${field} at 0x${at.toString(16)}: ${was} -> ${is >>> 0}`;
  });
  return [`  ${JSON.stringify(shape, word)}`, ...rings, ...list];
}

/** Fuzzes until `iterations` fields were changed; a failure is an Error that says how to replay it. */
export async function fuzzRings(o: {
  seed: number;
  iterations: number;
  onProgress?(done: number): void;
}): Promise<{ report: FuzzReport; fuzzer: RingFuzzer }> {
  const fuzzer = new RingFuzzer();
  const dog = new Watchdog(STUCK, 'rings: stuck in seed {0}, world {1}: a poll does not end');
  const start = performance.now();
  const attempt = (spec: CaseSpec) => {
    dog.beat(spec.seed, spec.shape);
    try {
      fuzzer.run(spec);
    } catch (error) {
      throw new Error(fuzzer.explain(spec, error as Error, () => dog.beat()));
    }
  };
  try {
    for (const { name, kept } of loadCorpus()) {
      dog.beat(kept.seed, kept.shape);
      const { error } = replay(fuzzer.bench, kept);
      if (error !== undefined) throw new Error(`${name} in ${FOLDER} fails: ${error.stack}`);
    }
    for (let seed = o.seed; fuzzer.changes < o.iterations; seed++) {
      attempt(fuzzer.next(seed >>> 0));
      o.onProgress?.(fuzzer.changes);
      // Lets signals and timers in.
      if (seed % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    await dog.stop();
  }
  const notes: Record<string, number> = {
    cases: fuzzer.cases,
    rounds: fuzzer.rounds,
    'frames taken': fuzzer.frames,
    'rings latched': fuzzer.latches,
    combinations: fuzzer.combinations,
  };
  for (const [i, field] of FIELDS.entries()) notes[field] = fuzzer.fields[i]!;
  const seconds = (performance.now() - start) / 1000;
  return { report: { iterations: fuzzer.changes, seconds, notes }, fuzzer };
}

export const rings: FuzzTarget = {
  name: 'rings',
  run: async (o) => (await fuzzRings(o)).report,
};
