// Runs spin on a model: exhaustive, or to the first error.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const FOLDER = join(import.meta.dirname, '../../models');

export interface Verdict {
  /** What was violated and at which depth, or undefined. */
  error: string | undefined;
  states: number;
  depth: number;
}

/** What a run is worth: of most of them the compiler's time is all there is. */
export interface Effort {
  /** 0 or 1, for the compiler. */
  optimise: number;
  /** Steps of a path at most; some 100 bytes each. */
  depth: number;
}

export const EXHAUSTIVE: Effort = { optimise: 1, depth: 2_000_000 };
export const TO_AN_ERROR: Effort = { optimise: 0, depth: 100_000 };

/** Of `pan` at most, MiB; a search cut short by it is an error here. */
const MEMORY = 8_000;

/**
 * Explores the states of `model`, with `defines` (`NAME` or `NAME=VALUE`): all, or up to the first
 * error. Throws when spin or a C compiler is missing, or when the search was cut short.
 */
export async function check(
  model: string,
  defines: readonly string[],
  effort: Effort,
): Promise<Verdict> {
  const work = await mkdtemp(join(tmpdir(), 'vhop-model-'));
  const flags = defines.map((define) => `-D${define}`);
  const { optimise, depth } = effort;
  try {
    await tool('spin', ['-a', ...flags, join(FOLDER, model)], work);
    if (!existsSync(join(work, 'pan.c'))) throw new Error(`spin made nothing of ${model}`);
    const options = [`-O${optimise}`, '-w', '-DSAFETY', '-DVECTORSZ=256', `-DMEMLIM=${MEMORY}`];
    await tool('gcc', [...options, '-o', 'pan', 'pan.c'], work);
    const { stdout } = await run('./pan', [`-m${depth}`, '-w22', '-n'], { cwd: work });
    return verdict(model, stdout);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

export async function tool(command: string, args: string[], cwd: string): Promise<void> {
  try {
    await run(command, args, { cwd });
  } catch (error) {
    const { code, stdout } = error as { code?: string; stdout?: string };
    if (code === 'ENOENT') throw new Error(`no ${command} on this machine: run script/peers`);
    throw new Error(`${command} ${args.join(' ')}: ${stdout || (error as Error).message}`);
  }
}

function verdict(model: string, output: string): Verdict {
  const number = (text: RegExp) => Number(text.exec(output)?.[1]);
  const errors = number(/errors: (\d+)/);
  const result = {
    error: /^pan:\d+: (.+)$/m.exec(output)?.[1],
    states: number(/^\s*(\d+) states, stored/m),
    depth: number(/depth reached (\d+)/),
  };
  const cut = /max search depth too small|out of memory|memory limit|Search not completed/.test(
    output,
  );
  if (Number.isNaN(errors) || Number.isNaN(result.states) || errors > 0 !== !!result.error) {
    throw new Error(`${model}: pan said what is not understood:\n${output}`);
  }
  if (errors === 0 && cut) throw new Error(`${model}: the search was cut short:\n${output}`);
  return result;
}
