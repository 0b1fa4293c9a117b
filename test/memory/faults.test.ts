// Guest memory that goes away, in the window: what becomes zeros with it, and whose it is said to be.

import assert from 'node:assert/strict';
import { ftruncateSync } from 'node:fs';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { PAGER_FREE, SLOT } from '../../src/abi/layout.ts';
import { close, drain, eventfd, whyUnguarded } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { RegionTable } from '../../src/memory/regions.ts';
import { Window } from '../../src/memory/window.ts';
import { loadDatapath, pager } from '../../src/worker/datapath.ts';
import { mappings, unsealable } from './unsealable.ts';

const PAGE = 4096;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const SLOTS = 8;
const skip = whyUnguarded() ?? false;

const region = (size: number, gpa = 0n) => ({ gpa, uva: gpa, size: BigInt(size), mmapOffset: 0n });

describe('memory that goes away', { skip }, () => {
  const control = new Control();
  const window = new Window(control, { whole: GIB + 2 * SLOT, slots: SLOTS });
  const { faults } = window;
  const event = eventfd();
  const unguard = window.guard(event);
  const datapath = loadDatapath(control.memory, {
    call() {},
    latched() {},
    pageIn: pager(control.memory, () => {}),
  });
  datapath.init(0);
  let one: RegionTable;
  let other: RegionTable;
  beforeEach(() => {
    one = new RegionTable(control, window, 0);
    other = new RegionTable(control, window, 1);
  });
  afterEach(() => {
    one.clear();
    other.clear();
    assert.deepEqual(faults.pages(), []);
    assert.equal(control.get(PAGER_FREE), SLOTS);
    assert.equal(mappings(control, true), 0);
  });
  after(() => {
    unguard();
    close(event);
  });

  /** A file of `size` bytes as a region of `table`. */
  function add(table: RegionTable, size: number): number {
    const fd = unsealable(size);
    table.add(region(size), fd);
    table.publish();
    return fd;
  }

  it('a guest cannot break it into more mappings than the kernel allows a process', () => {
    const fd = add(one, GIB);
    const before = mappings(control);
    ftruncateSync(fd, 0);
    const at = one.fromUva(0n, 1);
    // 131072 pages: each would be two mappings more, and a process may have 65530.
    for (let page = 0; page < GIB; page += 2 * PAGE) {
      if (control.bytes[at + page] !== 0) assert.fail(`page ${page}`);
    }
    assert.ok(mappings(control) <= before + GIB / SLOT, `${mappings(control)} mappings`);
    assert.equal(faults.pages().length, GIB / SLOT);
    assert.match(one.lossAt(faults.pages()[0]!)!, /GPA 0x0 \(1073741824 bytes\) shrank/);
    assert.equal(other.lossAt(faults.pages()[0]!), undefined);
    close(fd);
  });

  it('is forgotten with its mapping: who comes to lie there is not blamed', () => {
    const fd = add(one, MIB);
    const at = one.fromUva(0n, 1);
    ftruncateSync(fd, 0);
    assert.equal(control.bytes[at + 5 * PAGE], 0);
    assert.deepEqual(faults.pages(), [at + 5 * PAGE]);
    one.clear();
    assert.deepEqual(faults.pages(), []);
    close(fd);
    const next = add(other, MIB);
    assert.equal(other.fromUva(0n, 1), at);
    control.bytes[at + 5 * PAGE] = 3;
    assert.deepEqual(faults.pages(), []);
    close(next);
  });

  it('leaves the rings beside it alone', () => {
    // Paged, rings in views of a few pages each, side by side.
    const [lost, kept] = [add(one, 2 * GIB), add(other, 2 * GIB)];
    const desc = one.fromUva(0n, PAGE, 'desc of ring 0');
    const beside = other.fromUva(0n, PAGE, 'desc of ring 0');
    assert.equal(beside, desc + PAGE);
    control.bytes[beside + 8] = 42;
    ftruncateSync(lost, 0);
    assert.equal(control.bytes[desc], 0);
    assert.equal(control.bytes[beside + 8], 42);
    const [page, ...more] = faults.pages();
    assert.deepEqual([page, more], [desc, []]);
    assert.match(one.lossAt(desc)!, /shrank/);
    assert.equal(other.lossAt(desc), undefined);
    close(lost);
    close(kept);
  });

  it('rings that lie among whole regions have their 2 MiB to themselves', () => {
    const hold = window.pin(add(one, 2 * GIB), 0, 64 * MIB, PAGE);
    const fds = [add(other, 2 * GIB)];
    const [a, b] = ['desc of ring 0', 'used of ring 0'].map((part) =>
      other.fromUva(0n, PAGE, part),
    );
    assert.equal(Math.abs(a! - b!), SLOT);
    hold.unmap();
    for (const fd of fds) close(fd);
  });

  it('in a slot: whoever shows a page there next is not blamed, since nobody does', () => {
    const [lost, kept] = [add(one, 2 * GIB), add(other, 2 * GIB)];
    const at = datapath.translate(0, BigInt(SLOT), 8) >>> 0;
    assert.notEqual(at, 0);
    ftruncateSync(lost, 0);
    assert.equal(control.get(at), 0);
    assert.equal(drain(event), true);
    assert.deepEqual(faults.pages(), [at]);
    // The other guest goes round all slots several times.
    const seen = new Set<number>();
    for (let page = 0; page < 64; page++) {
      const linear = datapath.translate(1, BigInt(page * SLOT), 8) >>> 0;
      if (linear !== 0) seen.add(linear);
      datapath.poll();
    }
    assert.ok(seen.size > 2, `${seen.size} slots`);
    assert.ok(!seen.has(at), 'the slot was used again');
    assert.match(one.lossAt(at)!, /shrank/);
    assert.equal(other.lossAt(at), undefined);
    close(lost);
    close(kept);
  });
});
