// The file that outlives a switch: what it gives back, and what it does not trust.

import assert from 'node:assert/strict';
import {
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { FDB_KEYS, RING_FRAMES, RING_STRIDE } from '../../src/abi/layout.ts';
import { Control, ringAddress, ringIndex } from '../../src/memory/control.ts';
import { StateFile, StateInUse } from '../../src/memory/state.ts';
import { openFds } from '../linux/fds.ts';
import { removeFolder, temporaryFolder } from '../peers/process.ts';

const folder = temporaryFolder();
after(() => removeFolder(folder));
let files = 0;
const fresh = (): string => join(folder, `s${files++}`);

describe('a state file', () => {
  it('gives back what stood in memory, by name', () => {
    const path = fresh();
    const fds = openFds();
    const control = new Control();
    const first = new StateFile(path, control);
    assert.equal(first.kept.size, 0);
    first.write([{ name: 'a', index: 0 }]);
    first.write([
      { name: 'a', index: 0 },
      { name: 'b', index: 3, peer: '17:4', restarts: 2 },
    ]);
    const ring = ringAddress(ringIndex(3, 1));
    control.set64(ring + RING_FRAMES, 4711n);
    control.set64(FDB_KEYS + 8 * 77, (4n << 48n) | 0x0605_0403_0202n);
    first.close(true);

    // As after a kill: nobody put anything in order.
    const again = new Control();
    const second = new StateFile(path, again);
    assert.deepEqual([...second.kept.keys()], ['a', 'b']);
    const { rings, macs, peer, restarts } = second.kept.get('b')!;
    assert.equal(Buffer.from(rings).readBigUInt64LE(RING_STRIDE + RING_FRAMES), 4711n);
    assert.deepEqual(macs, [0x0605_0403_0202n]);
    assert.equal(peer, '17:4');
    // This restart included.
    assert.deepEqual([second.kept.get('a')!.restarts, restarts], [1, 3]);
    assert.equal(again.counter(ring + RING_FRAMES), 4711, 'until a port takes it');
    assert.equal(again.counter(FDB_KEYS + 8 * 77), 0, 'the FDB begins with zeros');
    second.close(false);
    assert.equal(existsSync(path), false);
    assert.equal(openFds(), fds);
  });

  it('has all of it for the next one, too, if nothing was taken up before the kill', () => {
    const path = fresh();
    const control = new Control();
    const first = new StateFile(path, control);
    first.write([{ name: 'b', index: 3, peer: '17:4' }]);
    control.set64(ringAddress(ringIndex(3, 1)) + RING_FRAMES, 4711n);
    first.close(true);
    for (let restarts = 1; restarts < 4; restarts++) {
      const next = new StateFile(path, new Control());
      const { rings, ...kept } = next.kept.get('b')!;
      assert.deepEqual(kept, { macs: [], peer: '17:4', restarts, index: 3 });
      assert.equal(Buffer.from(rings).readBigUInt64LE(RING_STRIDE + RING_FRAMES), 4711n);
      next.close(true);
    }
    assert.deepEqual(
      readdirSync(folder).filter((name) => name.endsWith('.new')),
      [],
    );
  });

  it('is one switch at a time', () => {
    const path = fresh();
    const first = new StateFile(path, new Control());
    assert.throws(() => new StateFile(path, new Control()), StateInUse);
    first.close(true);
    new StateFile(path, new Control()).close(false);
  });

  it('of a write that was cut off, the one before counts', () => {
    const path = fresh();
    const first = new StateFile(path, new Control());
    first.write([{ name: 'old', index: 1 }]);
    first.write([{ name: 'new', index: 2 }]);
    first.close(true);
    // That write went to the second half: the file begins with one that has no ports.
    const fd = openSync(path, 'r+');
    writeSync(fd, Buffer.from('x'), 0, 1, 32768 + 30);
    const second = new StateFile(path, new Control());
    assert.deepEqual([...second.kept.keys()], ['old']);
    second.close(false);
  });

  for (const [what, spoil] of [
    ['is shorter', (path: string) => truncateSync(path, 5000)],
    ['is something else', (path: string) => writeFileSync(path, Buffer.alloc(6_356_992, 0xa5))],
  ] as const) {
    it(`that ${what} is begun anew`, () => {
      const path = fresh();
      const first = new StateFile(path, new Control());
      first.write([{ name: 'a', index: 0 }]);
      first.close(true);
      const { length } = readFileSync(path);
      spoil(path);
      const second = new StateFile(path, new Control());
      assert.equal(second.kept.size, 0);
      assert.equal(readFileSync(path).length, length);
      second.close(false);
    });
  }

  it('is not followed elsewhere', () => {
    const path = fresh();
    writeFileSync(`${path}.target`, 'precious');
    symlinkSync(`${path}.target`, path);
    assert.throws(() => new StateFile(path, new Control()), { code: 'ELOOP' });
    assert.equal(readFileSync(`${path}.target`, 'utf8'), 'precious');
  });
});
