// Binds the models to the code: the head of each model names the functions it stands for, and
// bindings.json remembers both as they were when a person last held them against each other.
//
//   node models/bind.ts                  what has changed on one side alone
//   node models/bind.ts --renew MODEL    this model and its functions have been read: they agree

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Binding {
  /** Fingerprint of the model and of what it includes. */
  model: string;
  /** Fingerprints by `FILE NAME`. */
  functions: Record<string, string>;
}

const folder = import.meta.dirname;
const root = join(folder, '..');
const RECORD = join(folder, 'bindings.json');

/** Strings, then comments of either kind; what is neither passes. */
const TEXT =
  /('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`)|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;

export function withoutComments(source: string): string {
  return source.replace(TEXT, (_, text: string | undefined) => text ?? ' ');
}

/** Of code, not of its comments and layout. */
export function fingerprint(source: string): string {
  const code = withoutComments(source).replace(/\s+/g, '');
  return createHash('sha256').update(code).digest('hex').slice(0, 12);
}

/** Index behind the bracket that closes the one at `open`. */
function behind(code: string, open: number): number {
  const pairs: Record<string, string> = { '(': ')', '{': '}' };
  const [left, right] = [code[open]!, pairs[code[open]!]];
  let depth = 0;
  for (let i = open; i < code.length; i++) {
    if (code[i] === left) depth++;
    else if (code[i] === right && --depth === 0) return i + 1;
  }
  throw new Error('brackets do not match');
}

/**
 * The text of function or method `name` (`#name` too), from its name to its closing brace. Throws when
 * there is none, or more than one.
 */
export function functionText(source: string, name: string): string {
  const code = withoutComments(source);
  const word = name.replace('#', '\\#');
  // At the start of a line, two spaces in at most: a declaration, not a call.
  const start = new RegExp(`^(?:(?:export )?(?:async )?function | {2}(?:async )?)${word}\\(`, 'gm');
  const found: string[] = [];
  for (const match of code.matchAll(start)) {
    const parameters = match.index + match[0].length - 1;
    const body = code.indexOf('{', behind(code, parameters));
    if (body < 0 || code.slice(behind(code, parameters), body).includes(';')) continue;
    found.push(code.slice(match.index, behind(code, body)));
  }
  if (found.length !== 1) throw new Error(`${found.length} functions ${name}, expected 1`);
  return found[0]!;
}

/** The functions a model names under `Stands for:`, as `FILE NAME`. */
export function standsFor(model: string): string[] {
  const head = model.slice(0, model.indexOf('*/'));
  const lines = head.slice(head.indexOf('Stands for:')).matchAll(/^ \* {3}(\S+): (.+)$/gm);
  const names = [...lines].flatMap(([, file, list]) => list!.split(' ').map((n) => `${file} ${n}`));
  if (names.length === 0) throw new Error('names no functions under "Stands for:"');
  return names;
}

function read(name: string): string {
  return readFileSync(join(folder, name), 'utf8');
}

/** Models are the .pml and .cpp files that others do not include. */
export function modelNames(): string[] {
  const all = readdirSync(folder).filter((name) => /\.(pml|cpp)$/.test(name));
  const included = new Set(all.flatMap((name) => includes(read(name))));
  return all.filter((name) => !included.has(name)).sort();
}

function includes(model: string): string[] {
  return [...model.matchAll(/^#include "(.+)"$/gm)].map(([, name]) => name!);
}

/** Model and functions as they are now. */
export function bindingOf(name: string): Binding {
  const model = read(name);
  const parts = [model, ...includes(model).map(read)];
  const functions = standsFor(model).map((key): [string, string] => {
    const [file, fn] = key.split(' ') as [string, string];
    try {
      return [key, fingerprint(functionText(readFileSync(join(root, file), 'utf8'), fn))];
    } catch (error) {
      throw new Error(`models/${name} stands for ${key}: ${(error as Error).message}`);
    }
  });
  return { model: fingerprint(parts.join('\n')), functions: Object.fromEntries(functions) };
}

/** What changed on one side alone; a sentence each, with the cure. */
export function differences(name: string, was: Binding | undefined, is: Binding): string[] {
  const cure =
    'read both, mend the model where it no longer says what the code does, then run: ' +
    `node models/bind.ts --renew ${name}`;
  if (was === undefined) return [`models/${name} was never held against its functions: ${cure}`];
  const keys = new Set([...Object.keys(was.functions), ...Object.keys(is.functions)]);
  const changed = [...keys].filter((key) => was.functions[key] !== is.functions[key]);
  const told = changed.map((key) => {
    if (is.functions[key] === undefined) return `models/${name} stands for ${key} no more: ${cure}`;
    if (was.functions[key] === undefined) return `models/${name} stands for ${key} now: ${cure}`;
    return `${key} changed since models/${name} was checked against it: ${cure}`;
  });
  if (was.model !== is.model) {
    told.push(`models/${name} changed since it was checked against its functions: ${cure}`);
  }
  return told;
}

export function recorded(): Record<string, Binding> {
  return JSON.parse(readFileSync(RECORD, 'utf8'));
}

function main([option, ...names]: string[]): void {
  const known = modelNames();
  const was = recorded();
  if (option === '--renew') {
    for (const name of names.length > 0 ? names : [undefined]) {
      if (name === undefined || !known.includes(name)) {
        throw new Error(`--renew takes a model: ${known.join(', ')}`);
      }
      was[name] = bindingOf(name);
    }
    const kept = known.filter((name) => was[name]).map((name) => [name, was[name]]);
    writeFileSync(RECORD, `${JSON.stringify(Object.fromEntries(kept), undefined, 2)}\n`);
  } else if (option !== undefined) {
    throw new Error(`${option} is not known; --renew MODEL is`);
  }
  const told = known.flatMap((name) => differences(name, was[name], bindingOf(name)));
  for (const line of told) console.error(line);
  if (told.length > 0) process.exitCode = 1;
  else console.log(`models: ${known.length} bound to the code`);
}

if (import.meta.main) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    console.error(`models/bind.ts: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
