// The benchmark: vhop and its peers in turn, in the same minutes, with the same generator.
// Run: npm run bench -- --help
//
// Quote the medians of ratios: absolute figures drift with the machine. The line latency (how long a
// cache line travels between the two CPUs) stands beside each run; only like is compared with like.

import { availableParallelism } from 'node:os';
import { requirePeers } from '../test/peers/process.ts';
import type { Case } from './case.ts';
import { circleCase } from './circle.ts';
import { driverCase } from './driver.ts';
import { guestsCase } from './guests.ts';
import { floodCase } from './hostile-socket.ts';
import { idleCase } from './idle.ts';
import { inprocCase } from './inproc.ts';
import { latencyCase } from './latency.ts';
import { lineLatency } from './line-latency.ts';
import { machine } from './machine.ts';
import { neighboursCase } from './neighbours.ts';
import { offloadCase } from './offload.ts';
import { type Command, help, parse, UsageError } from './options.ts';
import { overloadCase } from './overload.ts';
import { pagingCase } from './paging.ts';
import { lacksOvs } from './peers/ovs.ts';
import { type Report, textTable, writeMarkdown } from './report.ts';

/** What a run measures that names no cases; and what else there is. */
const USUAL: Case[] = [circleCase, driverCase, guestsCase, inprocCase, latencyCase, idleCase];
const CASES: Case[] = [...USUAL, offloadCase, pagingCase, neighboursCase, overloadCase, floodCase];

/** One line at the foot of a terminal, on stderr: which case, how long it has run, what is left. */
class Progress {
  readonly #command: Command;
  readonly #started = performance.now();
  #index = 0;
  #caseStarted = 0;
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(command: Command) {
    this.#command = command;
    if (process.stderr.isTTY) this.#timer = setInterval(() => this.#draw(), 1000);
  }

  begin(index: number): void {
    this.#index = index;
    this.#caseStarted = performance.now();
  }

  /** Makes room for a line on stdout. */
  clear(): void {
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  }

  end(): void {
    clearInterval(this.#timer);
    this.clear();
  }

  #draw(): void {
    const { cases } = this.#command;
    const estimates = cases.map((one) => one.estimate(this.#command));
    const gone = (performance.now() - this.#caseStarted) / 1000;
    const left =
      Math.max(0, estimates[this.#index]! - gone) +
      estimates.slice(this.#index + 1).reduce((sum, seconds) => sum + seconds, 0);
    const where = `${cases[this.#index]!.name} (${this.#index + 1} of ${cases.length})`;
    const total = (performance.now() - this.#started) / 1000;
    this.clear();
    process.stderr.write(`${where}, ${minutes(total)} gone, about ${minutes(left)} left`);
  }
}

/** Such as `3 min`. */
function minutes(seconds: number): string {
  return seconds < 60 ? `${seconds.toFixed(0)} s` : `${(seconds / 60).toFixed(0)} min`;
}

/** What a case lacks here, and the cure. */
function lack({ needs }: Case): string | undefined {
  const reasons: string[] = [];
  const peers = needs.filter((need) => need !== 'ovs');
  try {
    requirePeers({ skip: (why) => reasons.push(why) }, peers);
  } catch (error) {
    reasons.push((error as Error).message);
  }
  if (needs.includes('ovs')) reasons.push(...[lacksOvs()].filter((why) => why !== undefined));
  return reasons[0];
}

async function line(): Promise<string> {
  if (availableParallelism() < 2) return 'one CPU only';
  const { ns, label } = await lineLatency();
  return `${ns.toFixed(0)} ns, ${label}`;
}

async function run(command: Command, report: Report, raw: Record<string, unknown>): Promise<void> {
  const progress = new Progress(command);
  const say = (text: string): void => {
    if (command.json) return;
    progress.clear();
    console.log(text);
  };
  const seconds = command.cases.reduce((sum, one) => sum + one.estimate(command), 0);
  for (const [name, value] of report.machine) say(`${name.padEnd(8)}${value}`);
  say(`${command.cases.map(({ name }) => name).join(', ')}: about ${minutes(seconds)}`);
  try {
    for (const [i, one] of command.cases.entries()) {
      const { name } = one;
      progress.begin(i);
      try {
        const why = lack(one);
        if (why !== undefined) throw new Error(why);
        say(`\n== ${name}: ${one.about}`);
        const before = await line();
        const section = await one.run(command, say);
        report.done.push({ name, section, line: [before, await line()] });
        raw[name] = section.raw;
        say(`\n${section.title}`);
        for (const note of section.notes) say(`  ${note}`);
        for (const table of section.tables) say(`\n${textTable(table)}`);
      } catch (error) {
        // The other cases are worth having.
        report.failed.push({ name, why: (error as Error).message });
        progress.clear();
        console.error(`${name}: not measured: ${(error as Error).message}`);
        process.exitCode = 1;
      }
    }
  } finally {
    progress.end();
  }
}

async function main(args: string[]): Promise<void> {
  const command = parse(args, CASES, USUAL);
  if (command.help) {
    console.log(help(CASES, USUAL));
    return;
  }
  const report: Report = {
    date: new Date(),
    command: ['npm run bench', ...(args.length > 0 ? ['--', ...args] : [])].join(' '),
    machine: await machine(),
    done: [],
    failed: [],
  };
  const raw: Record<string, unknown> = {};
  await run(command, report, raw);
  if (command.markdown !== undefined) await writeMarkdown(report, command.markdown);
  if (command.json) {
    const { date, machine, failed } = report;
    console.log(JSON.stringify({ date, machine, failed, results: raw }, null, 2));
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`bench: ${error.message}`);
  process.exitCode = 2;
}
