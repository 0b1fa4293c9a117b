// Front ends that come and go without end: nothing of them stays.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { LONG } from '../stress/stress.ts';
import type { Visits } from './come-and-go.ts';

/** Of each kind. */
const CONNECTS = LONG ? 25_000 : 1_250;
/** Growth of resident memory that is no leak: in the short form V8 is still compiling. */
const RSS = LONG ? 0.01 : 0.1;
/** Bytes that a connection may leave in the heap: noise over the number of them. */
const HEAP = LONG ? 20 : 1000;

const KINDS = [
  'plain',
  'with descriptors that no message wants',
  'that end in the middle of a message with descriptors',
  'with memory and sixteen rings',
];

describe('connections', { timeout: LONG ? 7_200_000 : 120_000 }, () => {
  let visits: Visits;

  before(async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [
      '--expose-gc',
      '--max-semi-space-size=1',
      join(import.meta.dirname, 'come-and-go.ts'),
      `${CONNECTS}`,
    ]);
    visits = JSON.parse(stdout) as Visits;
  });

  for (const name of KINDS) {
    it(`class 1: ${CONNECTS} of them ${name} leave no descriptor and no memory`, (t) => {
      const [, first, last] = visits.kinds.find(([kind]) => kind === name)!;
      const grown = last.rss / first.rss - 1;
      const each = (last.heap - first.heap) / CONNECTS;
      const percent = `${(grown * 100).toFixed(2)} %`;
      t.diagnostic(
        `RSS ${percent} of ${first.rss >> 20} MiB, heap ${each.toFixed(0)} bytes a connection`,
      );
      assert.equal(last.fds, first.fds, 'descriptors');
      assert.equal(last.free, first.free, 'mapped memory');
      assert.ok(each < HEAP, `each left ${each.toFixed(0)} bytes in the heap`);
      assert.ok(grown < RSS, `resident memory grew by ${percent}`);
    });
  }

  it('class 1: the port still serves, and its log is short', () => {
    assert.equal(visits.served, true);
    assert.ok(visits.notices < 60, `${visits.notices} notices`);
    assert.deepEqual(visits.errors, []);
  });
});
