// npm run fuzz -- [--target rings] [--seed 1] [--iterations 1000000 | --seconds 60] [--json]
//
// Exit status: 0, 1 when a fuzzer found something (with how to see it again), 2 for wrong usage.

import { Command, CommanderError, Option } from 'commander';
import { wholeNumber } from '../src/cli/cli.ts';
import { type Column, printTable } from '../src/cli/table.ts';
import { duration, scaled } from '../src/cli/units.ts';
import type { FuzzReport } from './target.ts';
import { type Listed, TARGETS } from './targets.ts';

/** What is run between two looks at the clock: so many seconds, and at first a part of the long run. */
const SLICE = { seconds: 5, part: 1e-3, most: 1e6 };
/** Seeds from one slice to the next: more than a slice uses. */
const STRIDE = 0x10_0000;
/** Notes of a target that are not told one by one. */
const MANY = 40;
/** Milliseconds from one progress line to the next. */
const TICK = 250;

interface Options {
  target: string;
  seed: number;
  iterations?: number;
  seconds?: number;
  json?: boolean;
}

interface Result extends FuzzReport {
  target: string;
  seed: number;
  unit: string;
}

function parse(argv: readonly string[]): Options {
  const names = TARGETS.map(({ target }) => target.name);
  return new Command('npm run fuzz --')
    .description('Fuzzes: valid input first, then mutations. Long by default.')
    .addOption(
      new Option('--target <name>', 'what to fuzz').choices([...names, 'all']).default('all'),
    )
    .option('--seed <n>', 'the first seed', wholeNumber(0, 2 ** 32 - 1), 1)
    .option('--iterations <n>', 'how many, of each target', wholeNumber(1, 1e12))
    .addOption(
      new Option('--seconds <n>', 'for how long, each target')
        .argParser(wholeNumber(1, 1e6))
        .conflicts('iterations'),
    )
    .option('--json', 'print JSON for programs')
    .exitOverride()
    .configureOutput({
      outputError: (text, write) => {
        const sentence = text.replace(/^error: /, '').trim();
        write(`fuzz: ${sentence}${sentence.endsWith('.') ? '' : ': see npm run fuzz -- --help'}\n`);
      },
    })
    .allowExcessArguments(false)
    .parse([...argv], { from: 'user' })
    .opts<Options>();
}

/** A line that is written over, on a terminal only. */
class Progress {
  #last = 0;
  readonly #start = performance.now();

  show(name: string, done: number, of: string): void {
    const now = performance.now();
    if (!process.stderr.isTTY || now - this.#last < TICK) return;
    this.#last = now;
    const seconds = (now - this.#start) / 1000;
    const rate = scaled(done / seconds);
    process.stderr.write(
      `\r\x1b[K${name}: ${scaled(done)} of ${of}, ${rate}/s, ${duration(seconds)}`,
    );
  }

  clear(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }
}

async function fuzz({ target, unit, iterations: long }: Listed, options: Options): Promise<Result> {
  const { seed, seconds } = options;
  const wanted = options.iterations ?? (seconds === undefined ? long : Number.POSITIVE_INFINITY);
  const total: Result = {
    target: target.name,
    seed,
    unit,
    iterations: 0,
    seconds: 0,
    notes: {},
  };
  const progress = new Progress();
  const of = seconds === undefined ? scaled(wanted) : `${seconds}s`;
  let first = seed;
  const end = performance.now() + (seconds ?? Number.POSITIVE_INFINITY) * 1000;
  try {
    for (let slice = 0; total.iterations < wanted && performance.now() < end; slice++) {
      const rate = total.seconds > 0 ? total.iterations / total.seconds : 0;
      const left = Math.min(SLICE.seconds, (end - performance.now()) / 1000);
      const timed = Math.ceil(rate > 0 ? rate * left : Math.min(long * SLICE.part, SLICE.most));
      first = (seed + slice * STRIDE) % 2 ** 32;
      const report = await target.run({
        seed: first,
        iterations: seconds === undefined ? wanted : timed,
        onProgress: (done) => progress.show(target.name, total.iterations + done, of),
      });
      total.iterations += report.iterations;
      total.seconds += report.seconds;
      for (const [name, n] of Object.entries(report.notes)) {
        total.notes[name] = (total.notes[name] ?? 0) + n;
      }
    }
  } catch (error) {
    const again = `npm run fuzz -- --target ${target.name} --seed ${first}`;
    throw new Error(`${(error as Error).message}\nTo see it again: ${again}`);
  } finally {
    progress.clear();
  }
  return total;
}

/** The notes, or of very many the smallest. */
function told(notes: Record<string, number>): [name: string, n: number][] {
  const all = Object.entries(notes);
  if (all.length <= MANY) return all;
  const [name, least] = all.reduce((low, one) => (one[1] < low[1] ? one : low));
  return [[`the least of ${all.length} kinds (${name}); --json tells all`, least]];
}

function print(results: readonly Result[]): void {
  const right = (title: string): Column => ({ title, align: 'right' });
  const columns = [
    { title: 'TARGET' },
    right('DONE'),
    right('RATE/S'),
    right('TIME'),
    { title: '' },
  ];
  const rows = results.flatMap(({ target, unit, iterations, seconds, notes }) => [
    [target, iterations, scaled(iterations / seconds), duration(seconds), unit],
    ...told(notes).map(([name, n]) => [' ', Math.round(n), ' ', ' ', name]),
  ]);
  printTable(process.stdout, columns, rows);
}

async function main(): Promise<number> {
  let options: Options;
  try {
    options = parse(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : 2;
  }
  const chosen = TARGETS.filter(
    ({ target }) => options.target === 'all' || target.name === options.target,
  );
  const results: Result[] = [];
  for (const listed of chosen) {
    try {
      results.push(await fuzz(listed, options));
    } catch (error) {
      const { message } = error as Error;
      process.stderr.write(`fuzz: ${listed.target.name}: ${message}\n`);
      return 1;
    }
  }
  if (options.json) process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
  else print(results);
  return 0;
}

process.exitCode = await main();
