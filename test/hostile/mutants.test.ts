// The table of mutants stays true: each still applies, names tests that are there, and no class is left
// out. Whether they are caught is what `npm run mutants` tells.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { MUTANTS, NONE } from '../../mutants/mutants.ts';

const ROOT = join(import.meta.dirname, '../..');

describe('mutants', () => {
  it('each applies: its text occurs once in its file, and is changed', () => {
    const wrong: string[] = [];
    for (const { name, file, find, replace } of MUTANTS) {
      const times = readFileSync(join(ROOT, file), 'utf8').split(find).length - 1;
      if (times !== 1) wrong.push(`${name}: found ${times} times in ${file}`);
      if (find === replace) wrong.push(`${name}: changes nothing`);
    }
    assert.deepEqual(wrong, []);
  });

  it('each has a name of its own, and tests that are there', () => {
    assert.equal(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length);
    for (const { name, tests } of MUTANTS) {
      assert.ok(tests.length > 0, name);
      for (const test of tests) assert.ok(existsSync(join(ROOT, test)), `${name}: ${test}`);
    }
  });

  it('every class has one, or a reason why not', () => {
    for (let n = 1; n <= 28; n++) {
      const has = MUTANTS.some((mutant) => mutant.class === n);
      assert.notEqual(has, n in NONE, `class ${n}`);
    }
  });
});
