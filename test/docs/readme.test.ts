// The README's commands, in its order, in this checkout: every `sh` block runs. A switch is started in
// the background when its block comes, and ended by Ctrl-C when the next one comes, or at the end.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { Child, waitFor } from '../peers/process.ts';

const root = join(import.meta.dirname, '../..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const blocks = [...readme.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map(([, text]) => text!.trim());

/** These serve until they are told to end. */
const SERVES = /^bin\/vhop (switch|wire|up) /;

describe('README', { timeout: 180_000 }, () => {
  let running: Child | undefined;

  async function end(): Promise<void> {
    const child = running;
    running = undefined;
    if (!child) return;
    child.kill('SIGINT');
    assert.equal(await child.finish(10_000), 0, child.tail());
  }
  after(end);

  it('has commands to run', () => {
    assert.ok(blocks.length >= 5, `${blocks.length} blocks`);
  });

  for (const line of blocks.flatMap((block) => block.split('\n'))) {
    it(line, async () => {
      const child = line.startsWith('bin/vhop doctor') || !SERVES.test(line) ? undefined : line;
      if (child) await end();
      const process = new Child('sh', ['-c', `exec ${line}`], { cwd: root });
      if (child) {
        running = process;
        await waitFor(
          () => process.stdout.includes('runs (pid'),
          20_000,
          line,
          () => process.tail(),
        );
        return;
      }
      assert.equal(await process.finish(60_000), 0, process.tail());
      assert.notEqual(process.stdout.trim(), '', 'it prints something');
    });
  }

  it('leaves no socket behind', async () => {
    await end();
    for (const path of readme.match(/\/tmp\/\w+\.sock/g) ?? []) assert.ok(!existsSync(path), path);
  });

  it('links only to files that exist', () => {
    for (const [, path] of readme.matchAll(/\]\(([^)#:]+)\)/g)) {
      assert.ok(existsSync(join(root, path!)), `${path}`);
    }
  });
});

describe('examples', () => {
  it('library.ts exchanges every frame', async () => {
    const node = join(root, 'node_modules/node/bin/node');
    const child = new Child(node, ['examples/library.ts'], { cwd: root });
    assert.equal(await child.finish(60_000), 0, child.tail());
    assert.match(child.stdout, /received 500000 frames intact, b 500000/);
  });
  it('netmap.ts receives what it sends', async () => {
    const node = join(root, 'node_modules/node/bin/node');
    const child = new Child(node, ['examples/netmap.ts'], { cwd: root });
    assert.equal(await child.finish(60_000), 0, child.tail());
    assert.match(child.stdout, /received 1000000 frames/);
  });
});
