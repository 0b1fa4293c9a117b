// The racing writer: a second thread flips one field between two values while the datapath works on it,
// field by field. Whatever comes of it must be what one of the two values comes to, whole.

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { theBench } from './bench.ts';
import type { Memory } from './memory.ts';
import { Arena } from './race/arena.ts';
import { DOING, FLIPS, JOB, PLACE, UNIT, WIDTH } from './race/flipper.ts';
import type { Flip, Race, Running } from './race/race.ts';
import { RACES } from './race/races.ts';
import type { FuzzTarget } from './target.ts';
import { Watchdog } from './watchdog.ts';

/** Rounds of a race at least. */
const ROUNDS = 20;
const STUCK = 20_000;

/** The second thread. */
class Flipper {
  readonly #control = new Int32Array(new SharedArrayBuffer(4096));
  readonly #thread: Worker;
  #job = 0;

  constructor(memory: ArrayBufferLike) {
    this.#thread = new Worker(new URL('race/flipper.ts', import.meta.url), {
      workerData: { memory, words: this.#control.buffer },
    });
  }

  async ready(): Promise<void> {
    await once(this.#thread, 'online');
    this.#thread.unref();
  }

  start({ places, width, a, b }: Flip): void {
    const control = this.#control;
    control.set([width, a, b, places.length, 0], WIDTH);
    control.set(places, PLACE);
    this.#to(++this.#job);
  }

  /** Stores so far in this job. */
  get flips(): number {
    return Atomics.load(this.#control, FLIPS) * UNIT;
  }

  rest(): void {
    this.#to(0);
  }

  /** Returns when the thread does job `n`. */
  #to(n: number): void {
    const control = this.#control;
    const before = Atomics.load(control, DOING);
    Atomics.store(control, JOB, n);
    Atomics.notify(control, JOB);
    for (let now = before; now !== n; now = Atomics.load(control, DOING)) {
      Atomics.wait(control, DOING, now, 10);
    }
  }

  async stop(): Promise<void> {
    Atomics.store(this.#control, JOB, -1);
    Atomics.notify(this.#control, JOB);
    await this.#thread.terminate();
  }
}

export interface RaceResult {
  name: string;
  flips: number;
  rounds: number;
  seconds: number;
  /** Outcomes of the race itself. */
  seen: Record<string, number>;
}

/** Each value by itself, without a race, comes to what it should. */
function alone(race: Race, running: Running, { u8 }: Memory): void {
  const { places, width, a, b } = running.flip;
  for (const value of [b, a]) {
    running.round(() => {
      for (const at of places) for (let i = 0; i < width; i++) u8[at + i] = value >> (8 * i);
    });
  }
  const unmet = race.wanted.filter((name) => !running.seen.has(name));
  if (unmet.length > 0) throw new Error(`${race.name}: no value comes to ${unmet.join(', ')}`);
  running.seen.clear();
}

/**
 * Runs races for `flips` stores each. A mixed read is an Error that names the field; so is a value that
 * alone does not come to what it should.
 */
export async function runRaces(
  races: readonly Race[],
  flips: number,
  each: (result: RaceResult) => void = () => {},
): Promise<RaceResult[]> {
  const bench = theBench();
  const flipper = new Flipper(bench.memory.u8.buffer);
  const dog = new Watchdog(STUCK, 'race: stuck in race {0}: a poll does not end');
  const results: RaceResult[] = [];
  try {
    await flipper.ready();
    for (const [i, race] of races.entries()) {
      const arena = new Arena(bench, race.spec);
      const running = race.start(arena);
      const start = performance.now();
      alone(race, running, bench.memory);
      let rounds = 0;
      flipper.start(running.flip);
      try {
        while (flipper.flips < flips || rounds < ROUNDS) {
          if (rounds++ % 64 === 0) dog.beat(i);
          running.round();
        }
      } catch (error) {
        const { name, message } = error as Error;
        if (name !== 'MixedRead') throw error;
        throw new Error(
          `${race.name}: mixed read after ${flipper.flips} flips, round ${rounds}: ${message}`,
        );
      } finally {
        flipper.rest();
      }
      const result = {
        name: race.name,
        flips: flipper.flips,
        rounds,
        seconds: (performance.now() - start) / 1000,
        seen: Object.fromEntries(running.seen),
      };
      results.push(result);
      each(result);
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    await flipper.stop();
    await dog.stop();
  }
  return results;
}

/** An iteration is a flip; each field gets its share. */
export const race: FuzzTarget = {
  name: 'race',
  async run({ iterations, onProgress }) {
    let done = 0;
    const start = performance.now();
    const share = Math.ceil(iterations / RACES.length);
    const results = await runRaces(RACES, share, (result) => {
      done += result.flips;
      onProgress?.(done);
    });
    const notes: Record<string, number> = {};
    for (const { name, flips } of results) notes[name] = flips;
    return { iterations: done, seconds: (performance.now() - start) / 1000, notes };
  },
};
