// Every bug class has its test: by title, and on split and packed rings where it is about rings.

import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { FORMATS, type Format } from '../datapath/formats.ts';

const CLASSES = Array.from({ length: 28 }, (_, i) => i + 1);
/** Of rings, and not of how they are compiled (23). */
const RING_CLASSES = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 24, 25, 27, 28];
/** Packed rings only: what names a buffer there has no like on split ones but the head (16). */
const PACKED_ONLY = [20];

interface Titled {
  file: string;
  /** What its overRings() says; none: it makes its own rings, or needs none. */
  formats: Format[];
}

/** The lists of formats that tests name (formats.ts, sender.ts). */
const LISTS: Record<string, Format[]> = {
  BOTH: ['split', 'packed'],
  MIXED: Object.keys(FORMATS) as Format[],
  PACKED: ['packed'],
};

function formatsOf(list: string): Format[] {
  if (list in LISTS) return LISTS[list]!;
  const named = [...list.matchAll(/'([^']+)'/g)].map(([, name]) => name as Format);
  assert.ok(named.length > 0 && named.every((name) => name in FORMATS), `formats ${list}?`);
  return named;
}

/** Tests whose titles begin with a class, by that; also where a table gives the title, or its number. */
function titles(): Map<number, Titled[]> {
  const found = new Map<number, Titled[]>();
  for (const file of globSync('*.test.ts', { cwd: import.meta.dirname })) {
    const text = readFileSync(new URL(file, import.meta.url), 'utf8');
    let formats: Format[] = [];
    for (const line of text.split('\n')) {
      const over = /^overRings\(\w+, (\[.*?\]|\w+),/.exec(line);
      if (over) formats = formatsOf(over[1]!);
      else if (/^\S/.test(line) && !/^[)}\]]/.test(line)) formats = [];
      const title = /(?:^|\b(?:it|test|describe)\(|[[{(] ?)\s*['"`]class (\d+): /.exec(line);
      if (title) {
        const n = Number(title[1]);
        found.set(n, [...(found.get(n) ?? []), { file, formats }]);
      }
    }
  }
  return found;
}

describe('bug classes', () => {
  const found = titles();
  for (const n of CLASSES) {
    it(`${n} has a test of that title`, () => {
      const tests = found.get(n) ?? [];
      assert.ok(tests.length > 0, `no test is titled "class ${n}: "`);
      if (!RING_CLASSES.includes(n)) return;
      const formats = new Set(tests.flatMap((one) => one.formats));
      if (!PACKED_ONLY.includes(n)) assert.ok(formats.has('split'), 'none on split rings');
      assert.ok(formats.has('packed'), 'none on packed rings');
    });
  }

  it('no test claims a class that is none', () => {
    for (const n of found.keys()) assert.ok(CLASSES.includes(n), `class ${n}`);
  });
});
