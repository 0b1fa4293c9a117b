// Cases worth keeping, each with the changes that make it one: fuzz/corpus/rings/*.json.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DROP_REASONS } from '../../src/abi/drops.ts';
import { BROKEN_AVAIL_JUMP, BROKEN_CHAIN, BROKEN_HEAD, BROKEN_ID } from '../../src/abi/layout.ts';
import { DROP_NAMES } from '../../src/observe/drops.ts';
import type { CaseSpec } from './case.ts';
import type { Outcome } from './judge.ts';

export const FOLDER = join(import.meta.dirname, '../corpus/rings');

export interface Kept extends CaseSpec {
  /** What it reaches, a key of `reached`; of a failure: its message. */
  reaches: string;
  round: number;
  /** Numbers of the changes that are made (mutate.ts). */
  only: number[];
}

const LATCHES: Record<number, string> = {
  [BROKEN_AVAIL_JUMP]: 'avail_jump',
  [BROKEN_HEAD]: 'head',
  [BROKEN_CHAIN]: 'chain',
  [BROKEN_ID]: 'id',
};

/** What a round came to, by name: the format, and a drop reason or why a ring was latched. */
export function reached(outcome: Outcome): string[] {
  const format = outcome.packed ? 'packed' : 'split';
  const found: string[] = [];
  for (let reason = 0; reason < DROP_REASONS; reason++) {
    const bit = 1 << reason;
    const own = (outcome.tx | outcome.rx) & bit;
    if (own) found.push(`${format} ${DROP_NAMES[reason]}`);
    else if (outcome.peer & bit) found.push(`peer ${DROP_NAMES[reason]}`);
  }
  for (const [reason, name] of Object.entries(LATCHES)) {
    if (outcome.latched & (1 << Number(reason))) found.push(`${format} latched ${name}`);
  }
  return found;
}

export function loadCorpus(): { name: string; kept: Kept }[] {
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => ({
      name,
      kept: JSON.parse(readFileSync(join(FOLDER, name), 'utf8')) as Kept,
    }));
}

/** Writes a case; returns its path. */
export function keep(name: string, kept: Kept): string {
  mkdirSync(FOLDER, { recursive: true });
  const path = join(FOLDER, `${name}.json`);
  writeFileSync(path, `${JSON.stringify(kept)}\n`);
  return path;
}
