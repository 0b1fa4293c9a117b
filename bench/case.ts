// What every part of the benchmark is to the report: a name, what it needs, and tables and charts of
// what it found. And how runs are compared: in turn, round by round, like with like.

import type { Peer } from '../test/peers/process.ts';
import { type LineLabel, labelOf } from './line-latency.ts';

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
  /** Another checkout of vhop, ready to run, to compare with. */
  against?: string | undefined;
}

export interface Case {
  /** As --cases names it. */
  name: string;
  /** One line for --help. */
  about: string;
  /** What it cannot do without: see test/peers/process.ts. */
  needs: readonly (Peer | 'ovs')[];
  /** Seconds it takes, about. */
  estimate(options: Options): number;
  /** Measures. `say` prints a line at once: what is being measured, and each row when it is known. */
  run(options: Options, say: (line: string) => void): Promise<Section>;
}

/** What a case found. */
export interface Section {
  title: string;
  /** How it was measured, and what to know when reading it; a paragraph each. */
  notes: string[];
  /** Command lines of what was measured. */
  commands?: string[];
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

/** The frame lengths that are plain numbers: what a case without mixes measures. */
export function lengths({ sizes }: Options): number[] {
  return sizes.filter((size) => size !== 'imix');
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

/** A run with two CPUs in it. */
export interface OnLine {
  /** The line latency before it and after it, nanoseconds. */
  line: readonly [before: number, after: number];
  /** Share of its time in which some thread waited for a CPU; undefined where that is not known. */
  waited?: number | undefined;
}

/** 'mixed': the CPUs were moved meanwhile. 'crowded': something else wanted them. */
export type Placement = LineLabel | 'mixed' | 'crowded';

/** Where a run had its CPUs, and whether it had them to itself. */
export function placement({ line: [before, after], waited = 0 }: OnLine): Placement {
  if (waited > 0.05) return 'crowded';
  const moved = Math.max(before, after) > 1.5 * Math.min(before, after);
  return moved ? 'mixed' : labelOf((before + after) / 2);
}

/**
 * Whether two runs had their CPUs at the same distance: by name, or, as names have edges, by time within a
 * quarter.
 */
export function alike(a: OnLine, b: OnLine): boolean {
  const [here, there] = [placement(a), placement(b)];
  if ([here, there].some((each) => each === 'mixed' || each === 'crowded')) return false;
  const [one, other] = [a, b].map(({ line }) => line[0] + line[1]) as [number, number];
  return here === there || Math.max(one, other) <= 1.25 * Math.min(one, other);
}

/** Such as `55 > 58 ns, near`. */
export function lineText(run: OnLine): string {
  return `${run.line.map((ns) => ns.toFixed(0)).join(' > ')} ns, ${placement(run)}`;
}

/** Such as `1.24x (3)`: of so many rounds. */
export function ratioText({ ratio, pairs }: Ratio): string {
  return `${Number.isFinite(ratio) ? ratio.toFixed(2) : '-'}x (${pairs})`;
}

export interface Ratio {
  /** The median of the pairs' ratios; NaN of none. */
  ratio: number;
  /** Rounds in which both ran alike. */
  pairs: number;
}

/**
 * How `runs` compare with `reference`, round by round, by a value of each run. Only like is compared
 * with like; a round without the other run or the value does not count.
 */
export function compare<R extends OnLine>(
  runs: readonly (R | undefined)[],
  reference: readonly (R | undefined)[],
  value: (run: R) => number | undefined,
): Ratio {
  const ratios = runs.flatMap((run, round) => {
    const other = reference[round];
    if (!run || !other || !alike(run, other)) return [];
    const ratio = (value(run) ?? Number.NaN) / (value(other) ?? Number.NaN);
    return Number.isFinite(ratio) ? [ratio] : [];
  });
  return { ratio: median(ratios), pairs: ratios.length };
}
