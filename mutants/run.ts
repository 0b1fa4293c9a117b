// The mutation score: each bug of the table is put into a copy of this checkout, and its tests are run
// until one fails. Exit status 1 when one survived.
//
// A test that fails without any mutant catches nothing: such failures are found first, told, and do not
// count.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MUTANTS } from './mutants.ts';
import type { Mutant } from './table.ts';

const ROOT = join(import.meta.dirname, '..');
const COPIED = ['src', 'test', 'script', 'build', 'package.json', 'tsconfig.json'];
const BUILT = ['build/datapath.wasm', 'build/datapath.wat'];
/** Milliseconds one test file may take: a mutant may make it spin. */
const PATIENCE = 30_000;

interface Verdict {
  name: string;
  class: number;
  caught: boolean;
  /** The test that failed, `hang` or what kept the mutant from being built. */
  by: string;
  seconds: number;
}

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', multiple: true },
    jobs: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
});

/** Process groups that run now: a mutant may spin, and outlive who started it. */
const running = new Set<number>();
const copies: string[] = [];

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // It ended by itself meanwhile.
  }
}

function clean(): void {
  for (const pid of running) killGroup(pid);
  for (const copy of copies.splice(0)) rmSync(copy, { recursive: true, force: true });
}

for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => {
    clean();
    process.exit(130);
  });
}

/** Runs a command in a copy; `ended` is false when it had to be killed. */
async function run(
  copy: string,
  command: string[],
): Promise<{ ok: boolean; ended: boolean; output: string }> {
  const child = spawn(command[0]!, command.slice(1), {
    cwd: copy,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: `${ROOT}/node_modules/node/bin:${process.env['PATH']}` },
  });
  const pid = child.pid!;
  running.add(pid);
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  child.stderr.on('data', (chunk) => {
    output += chunk;
  });
  let ended = true;
  const timer = setTimeout(() => {
    ended = false;
    killGroup(pid);
  }, PATIENCE);
  const [code] = (await once(child, 'close')) as [number | null];
  clearTimeout(timer);
  running.delete(pid);
  return { ok: code === 0, ended, output };
}

/** Titles of failed tests, innermost first; the file itself when it failed otherwise. */
async function failures(copy: string, file: string): Promise<string[]> {
  const { ok, ended, output } = await run(copy, [
    process.execPath,
    ...['--test-reporter=tap', file],
  ]);
  if (!ended) return [`hang: no end of it within ${PATIENCE / 1000} s`];
  if (ok) return [];
  const titles = [...output.matchAll(/^( *)not ok \d+ - (.*)$/gm)];
  titles.sort((a, b) => b[1]!.length - a[1]!.length);
  return titles.length > 0 ? titles.map(([, , title]) => title!) : ['the file itself'];
}

function freshCopy(): string {
  const copy = mkdtempSync(join(tmpdir(), 'vhop-mutant-'));
  for (const name of COPIED) cpSync(join(ROOT, name), join(copy, name), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
  return copy;
}

/** Whether a change of this file shows only in a new build. */
function isCompiled(file: string): boolean {
  return file.startsWith('src/datapath/') || file.startsWith('src/abi/');
}

async function judge(copy: string, mutant: Mutant, known: Map<string, string[]>): Promise<Verdict> {
  const start = performance.now();
  const verdict = (caught: boolean, by: string) => ({
    ...{ name: mutant.name, class: mutant.class, caught, by },
    seconds: (performance.now() - start) / 1000,
  });
  const path = join(copy, mutant.file);
  const source = readFileSync(path, 'utf8');
  const parts = source.split(mutant.find);
  if (parts.length !== 2) return verdict(false, `occurs ${parts.length - 1} times, not once`);
  writeFileSync(path, parts.join(mutant.replace));
  try {
    if (isCompiled(mutant.file)) {
      const { ok, output } = await run(copy, ['script/build-datapath']);
      if (!ok) return verdict(false, `does not build: ${output.trim().split('\n')[0]}`);
    }
    for (const test of mutant.tests) {
      const failed = await failures(copy, test);
      const new_ = failed.find((title) => !known.get(test)!.includes(title));
      if (new_ !== undefined) return verdict(true, `${test.replace(/^test\//, '')}: ${new_}`);
    }
    return verdict(false, 'SURVIVED');
  } finally {
    writeFileSync(path, source);
    if (isCompiled(mutant.file)) {
      for (const name of BUILT) cpSync(join(ROOT, name), join(copy, name));
    }
  }
}

/** Runs `work` over `items`, one at a time in each copy. */
async function spread<T>(
  copies: string[],
  items: readonly T[],
  work: (copy: string, item: T) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  await Promise.all(
    copies.map(async (copy) => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
        await work(copy, item);
      }
    }),
  );
}

const chosen = MUTANTS.filter(({ name }) => options.only?.includes(name) ?? true);
const unknown = options.only?.find((name) => !MUTANTS.some((mutant) => mutant.name === name));
if (unknown !== undefined) {
  console.error(`there is no mutant ${unknown}; mutants/*.ts list them`);
  process.exit(2);
}
const jobs = Number(options.jobs);
if (!(Number.isInteger(jobs) && jobs >= 1 && jobs <= 16)) {
  console.error(`--jobs is ${options.jobs}; it must be 1 to 16`);
  process.exit(2);
}
const say = options.json ? () => {} : console.log;
const verdicts: Verdict[] = [];
try {
  for (let i = 0; i < jobs; i++) copies.push(freshCopy());
  const built = await run(ROOT, ['script/build-datapath']);
  if (!built.ok) throw new Error(`the datapath does not build:\n${built.output}`);
  for (const copy of copies) for (const name of BUILT) cpSync(join(ROOT, name), join(copy, name));
  const known = new Map<string, string[]>();
  const files = [...new Set(chosen.flatMap(({ tests }) => tests))];
  await spread(copies, files, async (copy, file) => {
    const failed = await failures(copy, file);
    known.set(file, failed);
    for (const title of failed) say(`without any mutant: ${file}: ${title}`);
  });
  say(`${chosen.length} mutants, ${files.length} test files, ${jobs} at a time`);
  await spread(copies, chosen, async (copy, mutant) => {
    const verdict = await judge(copy, mutant, known);
    verdicts.push(verdict);
    const { name, caught, by, seconds } = verdict;
    const mark = caught ? 'caught  ' : 'SURVIVED';
    say(
      `${verdicts.length}/${chosen.length} ${mark} class ${mutant.class} ${name} ` +
        `(${seconds.toFixed(1)} s): ${by}`,
    );
  });
} finally {
  clean();
}
const survived = verdicts.filter(({ caught }) => !caught);
const score = { mutants: verdicts.length, caught: verdicts.length - survived.length };
if (options.json) console.log(JSON.stringify({ ...score, verdicts }, null, 2));
else {
  for (const { name, by } of survived) console.log(`survived: ${name}: ${by}`);
  const percent = ((100 * score.caught) / score.mutants).toFixed(1);
  console.log(`score: ${score.caught} of ${score.mutants} caught, ${percent} %`);
}
process.exitCode = survived.length > 0 ? 1 : 0;
