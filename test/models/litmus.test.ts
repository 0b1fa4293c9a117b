// The barriers under the C++11 memory model, each also with its orders weakened: models/litmus.cpp.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { promisify } from 'node:util';
import { tool } from './spin.ts';

const LITMUS = join(import.meta.dirname, '../../models/litmus.cpp');

it('barriers: as they are nothing is lost, any of them weaker and something is', async (t) => {
  assert.ok(existsSync('/usr/include/relacy/relacy.hpp'), 'no Relacy here: run script/peers');
  const work = await mkdtemp(join(tmpdir(), 'vhop-litmus-'));
  try {
    await tool('g++', ['-std=c++11', '-O0', '-w', '-o', 'litmus', LITMUS], work);
    const { stdout } = await promisify(execFile)('./litmus', { cwd: work }).catch((error) => error);
    const lines = String(stdout).trim().split('\n');
    for (const line of lines) t.diagnostic(line);
    assert.deepEqual(
      lines.filter((line) => !line.startsWith('ok ')),
      [],
    );
    // Five tests: each as it is, and with either order weakened.
    assert.equal(lines.length, 15);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
});
