// Class 5 (hostile input): `vhop switch --require-sealed` takes no memory that could shrink.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { memfd } from '../../src/linux/index.ts';
import { run } from '../cli/fixtures/run.ts';
import { Started, VHOP } from '../cli/fixtures/spawn.ts';
import { unsealable } from '../memory/unsealable.ts';
import { MemoryGuest } from './memory-guest.ts';

const SIZE = 8 * 2 ** 20;

describe('class 5: sealed memory required', { timeout: 60_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'vhop-sealed-'));
  after(() => rmSync(folder, { recursive: true }));

  it('class 5: by the command line: memory that could shrink is refused, other memory is not', async () => {
    const path = join(folder, 'a.sock');
    const control = join(folder, 'control.sock');
    const vhop = new Started(
      VHOP,
      ['switch', path, join(folder, 'b.sock'), '--require-sealed', '--control', control, '--json'],
      { XDG_RUNTIME_DIR: folder },
    );
    try {
      await vhop.prints(/"started"/);
      const bad = new MemoryGuest({ path, fd: unsealable(SIZE), size: SIZE });
      await bad.open().catch(() => {});
      await vhop.prints(/SET_MEM_TABLE refused: .* this port requires sealed memory: give QEMU/);
      bad.close();
      const good = new MemoryGuest({ path, fd: memfd('good', SIZE), size: SIZE });
      await good.open();
      const ports = JSON.parse((await run(['ports', '--control', control, '--json'])).out);
      assert.deepEqual([ports[0].state, ports[0].sealed], ['up', true]);
      assert.equal('sealed' in ports[1], false);
      const text = await run(['ports', 'a', '--control', control]);
      assert.match(text.out, /^ sealed +yes: its memory cannot shrink$/m);
      assert.throws(() => good.shrink(0), { code: 'EPERM' });
      good.close();
    } finally {
      vhop.child.kill('SIGINT');
      await vhop.ended;
    }
  });
});
