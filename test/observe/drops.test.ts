// Drop reasons: the numbers the datapath counts under and the names people read are one list.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import * as drops from '../../src/abi/drops.ts';
import { DROP_HELP, DROP_NAMES } from '../../src/observe/drops.ts';

it('every drop reason has its own name, at its own number', () => {
  const { DROP_REASONS, ...numbers } = drops;
  const expected: string[] = [];
  for (const [name, number] of Object.entries(numbers)) {
    expected[number] = name.replace('DROP_', '').toLowerCase();
  }
  assert.deepEqual(DROP_NAMES, expected);
  assert.equal(DROP_NAMES.length, DROP_REASONS);
  for (const name of DROP_NAMES) assert.ok(DROP_HELP[name], name);
});
