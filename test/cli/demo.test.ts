// `vhop demo` as a user runs it.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Child } from '../peers/process.ts';

const vhop = join(import.meta.dirname, '../../bin/vhop');

describe('vhop demo', () => {
  it('ends by itself with every frame accounted for', async () => {
    const child = new Child(vhop, ['demo', '--seconds', '2']);
    assert.equal(await child.finish(30_000), 0, child.tail());
    assert.match(child.stdout, /every frame accounted for/);
    assert.match(child.stdout, /next: plug in your own VM/);
    // Without a terminal: one line a second.
    assert.match(child.stdout, /guest-a tx \S+ rx \S+/);
  });

  it('--json gives figures that add up', async () => {
    const child = new Child(vhop, ['demo', '--seconds', '1', '--json', '--length', '64']);
    assert.equal(await child.finish(30_000), 0, child.tail());
    const { guests, dropped, unaccounted, ok } = JSON.parse(child.stdout);
    assert.equal(ok, true);
    assert.equal(unaccounted, 0);
    const sum = (key: string) =>
      guests.reduce((total: number, guest: Record<string, number>) => total + guest[key]!, 0);
    assert.ok(sum('sent') > 1000, `${sum('sent')} frames`);
    assert.equal(sum('sent'), sum('received') + dropped);
    assert.equal(sum('corrupt') + sum('reordered') + sum('foreign'), 0);
  });

  it('ends early, and cleanly, on Ctrl-C', async () => {
    const child = new Child(vhop, ['demo', '--seconds', '60']);
    await new Promise((resolve) => setTimeout(resolve, 2500));
    child.kill('SIGINT');
    assert.equal(await child.finish(15_000), 0, child.tail());
    assert.match(child.stdout, /every frame accounted for/);
  });

  it('refuses a length no frame has', async () => {
    const child = new Child(vhop, ['demo', '--length', '9000']);
    assert.equal(await child.finish(10_000), 2);
    assert.match(child.stderr, /whole number from 0 to 1514/);
  });
});
