// What every part of the benchmark is to the report: a name, what it needs, and tables and charts of
// what it found.

/** How much to measure. */
export interface Options {
  /** Times each contender has its turn. */
  rounds: number;
  /** Seconds of one measurement. */
  seconds: number;
  /** Frame lengths, bytes; 'imix' is 7 x 64, 4 x 594, 1 x 1518. */
  sizes: readonly (number | 'imix')[];
  /** Ring formats, see circle.ts. */
  formats: readonly string[];
  /** Entries of a ring. */
  rings: readonly number[];
  /** Whether receive buffers may be merged. */
  mergeable: readonly boolean[];
}

export interface Case {
  /** As --cases names it. */
  name: string;
  /** One line for --help. */
  about: string;
  /** Programs it cannot do without (test/peers/process.ts). */
  needs: readonly ('qemu' | 'testpmd' | 'ovs')[];
  /** Measures. `say` prints a line at once: what is being measured, and each row when it is known. */
  run(options: Options, say: (line: string) => void): Promise<Section>;
}

/** What a case found. */
export interface Section {
  title: string;
  /** How it was measured, and what to know when reading it; a paragraph each. */
  notes: string[];
  tables: Table[];
  charts: Chart[];
  /** Every single measurement, for --json. */
  raw: unknown;
}

export interface Table {
  caption: string;
  head: string[];
  rows: string[][];
}

/** Bars, grouped: one group a frame length, say, and in it one bar a contender. */
export interface Chart {
  title: string;
  /** Of the values. */
  unit: string;
  bars: { group: string; name: string; value: number }[];
}

/** The middle one; of two, their mean. NaN of none. */
export function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2
    ? sorted[middle]!
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

/** Takes every contender in turn, `rounds` times; the results contender by contender. */
export async function inTurn<C, R>(
  contenders: readonly C[],
  rounds: number,
  run: (contender: C) => Promise<R>,
): Promise<R[][]> {
  const all: R[][] = contenders.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, contender] of contenders.entries()) all[i]!.push(await run(contender));
  }
  return all;
}
