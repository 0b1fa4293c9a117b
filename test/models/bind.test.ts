// Models and code change together, or this fails: models/bind.ts.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import {
  bindingOf,
  differences,
  fingerprint,
  functionText,
  modelNames,
  recorded,
  standsFor,
} from '../../models/bind.ts';

const root = join(import.meta.dirname, '../..');

describe('models are bound to the code', () => {
  it('there are some, and no record without a model', () => {
    assert.ok(modelNames().length >= 9);
    assert.deepEqual(Object.keys(recorded()).sort(), modelNames());
  });

  for (const name of modelNames()) {
    it(name, () => assert.deepEqual(differences(name, recorded()[name], bindingOf(name)), []));
  }

  it('a change on either side alone is told with its cure', () => {
    const is = bindingOf('kick-split.pml');
    const key = 'src/datapath/split.ts splitArm';
    const code = { ...is, functions: { ...is.functions, [key]: 'was another' } };
    const [told, ...more] = differences('kick-split.pml', code, is);
    assert.match(told!, /^src\/datapath\/split.ts splitArm changed since models\/kick-split.pml /);
    assert.match(told!, /node models\/bind.ts --renew kick-split.pml$/);
    assert.deepEqual(more, []);
    const model = { ...is, model: 'was another' };
    assert.match(
      differences('kick-split.pml', model, is).join(),
      /^models\/kick-split.pml changed/,
    );
    assert.match(differences('kick-split.pml', undefined, is).join(), /never held against/);
    const { [key]: _, ...fewer } = is.functions;
    assert.match(differences('x', { ...is, functions: fewer }, is).join(), /stands for .* now/);
    assert.match(differences('x', is, { ...is, functions: fewer }).join(), /stands for .* no more/);
  });

  it('a fence taken from splitArm changes its fingerprint, a comment does not', () => {
    const source = readFileSync(join(root, 'src/datapath/split.ts'), 'utf8');
    const print = (text: string) => fingerprint(functionText(text, 'splitArm'));
    const plain = source.replace(/publish\(used \+ 4/, 'store<u16>(used + 4');
    assert.notEqual(plain, source);
    assert.notEqual(print(plain), print(source));
    const told = source.replace('export function splitArm(ring: u32): bool {', (head) => {
      return `${head} // Is told "{" of.\n`;
    });
    assert.notEqual(told, source);
    assert.equal(print(told), print(source));
    assert.throws(() => functionText(source, 'splitNothing'), /0 functions splitNothing/);
  });

  it('methods are found, calls are not', () => {
    const source = `class A {\n  #f(a: () => void): void {\n    this.#f(() => {});\n  }\n  g(): void {}\n}\n`;
    assert.equal(functionText(source, '#f').trim().split('\n').length, 3);
    assert.match(functionText(source, 'g'), /g\(\): void \{\}$/);
    assert.throws(() => standsFor('/* nothing */'), /names no functions/);
  });
});
