// The racing writer: a second thread flips one field between two values while the datapath works on it,
// field by field. Whatever comes of it must be what one of the two values comes to, whole.

import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { theBench } from './bench.ts';
import { Arena } from './race/arena.ts';
import { DOING, FLIPS, JOB, PLACE, UNIT, WIDTH } from './race/flipper.ts';
import type { Flip, Race } from './race/race.ts';
import { RECEIVED } from './race/received.ts';
import { SENT } from './race/sent.ts';
import type { FuzzTarget } from './target.ts';
import { Watchdog } from './watchdog.ts';

export const RACES: readonly Race[] = [...SENT, ...RECEIVED];

/** Rounds of a race after which outcomes not yet met are given up on. */
const MOST = 20_000;
const STUCK = 20_000;

/** The second thread. */
class Flipper {
  readonly #control = new Int32Array(new SharedArrayBuffer(4096));
  readonly #thread: Worker;
  readonly #memory: Uint8Array;
  #job = 0;

  constructor(memory: ArrayBufferLike) {
    this.#memory = new Uint8Array(memory);
    this.#thread = new Worker(new URL('race/flipper.ts', import.meta.url), {
      workerData: { memory, words: this.#control.buffer },
    });
  }

  async ready(): Promise<void> {
    await once(this.#thread, 'online');
    this.#thread.unref();
  }

  start({ places, width, a, b }: Flip): void {
    for (const at of places) {
      for (let i = 0; i < width; i++) this.#memory[at + i] = a >> (8 * i);
    }
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
  seen: Record<string, number>;
  /** Outcomes that were wanted and not met. */
  unseen: string[];
}

/**
 * Runs races for `flips` stores each, and until each wanted outcome was met (within bounds). A mixed read is
 * an Error that names the field.
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
      const unseen = () => race.wanted.filter((name) => !running.seen.has(name));
      let rounds = 0;
      flipper.start(running.flip);
      try {
        while (flipper.flips < flips || (rounds < MOST && unseen().length > 0)) {
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
        unseen: unseen(),
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
    for (const { name, flips, unseen } of results) {
      if (unseen.length > 0) throw new Error(`${name}: never met ${unseen.join(', ')}`);
      notes[name] = flips;
    }
    return { iterations: done, seconds: (performance.now() - start) / 1000, notes };
  },
};
