// Guest memory of huge pages, from memfds with MFD_HUGETLB (memfd_create(2)): 2 MiB pages are mapped
// whole or paged, 1 GiB pages whole or not at all.

import assert from 'node:assert/strict';
import { ftruncateSync, readSync } from 'node:fs';
import { describe, it } from 'node:test';
import koffi from 'koffi';
import { PAGER_FREE, SLOT } from '../../src/abi/layout.ts';
import { close, drain, eventfd, fileShape, whyUnguarded } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { RegionTable } from '../../src/memory/regions.ts';
import { Window } from '../../src/memory/window.ts';
import { loadDatapath, pager } from '../../src/worker/datapath.ts';
import { withHugePages } from './reserve.ts';

const GIB = 2 ** 30;
const create = koffi.load(null).func('int memfd_create(const char *name, unsigned int flags)');
const MFD_CLOEXEC = 1;
const MFD_HUGETLB = 4;

/** A sparse memfd of pages of 2^`shift` bytes; none of them is reserved. */
function hugeFile(shift: number, size: number): number {
  const fd: number = create('huge', MFD_CLOEXEC | MFD_HUGETLB | (shift << 26));
  assert.ok(fd >= 0, `memfd_create: this kernel has no pages of ${2 ** shift} bytes`);
  ftruncateSync(fd, size);
  return fd;
}

function region(size: number, over: { gpa?: bigint; mmapOffset?: bigint } = {}) {
  return { gpa: 0n, uva: 0n, size: BigInt(size), mmapOffset: 0n, ...over };
}

describe('pages of 2 MiB', () => {
  it('are mapped whole where they fit', (t) => {
    return withHugePages(t, SLOT, 4, () => {
      const control = new Control();
      const table = new RegionTable(control, new Window(control), 0);
      const fd = hugeFile(21, 4 * SLOT);
      table.add(region(4 * SLOT - 8192, { mmapOffset: 8192n }), fd);
      assert.equal(table.pagedBytes, 0);
      const at = table.fromUva(BigInt(3 * SLOT), 8);
      control.set(at, 4711);
      const got = Buffer.alloc(4);
      readSync(fd, got, 0, 4, 3 * SLOT + 8192);
      assert.equal(got.readUInt32LE(), 4711);
      table.clear();
      close(fd);
    });
  });

  it('are paged where they do not, rings in views of their own', (t) => {
    const pages = 24;
    return withHugePages(t, SLOT, pages, () => {
      const control = new Control();
      const window = new Window(control, { whole: 4 * SLOT, slots: 8 });
      const table = new RegionTable(control, window, 0);
      const datapath = loadDatapath(control.memory, {
        call() {},
        latched() {},
        pageIn: pager(control.memory, () => {}),
      });
      datapath.init(0);
      const fd = hugeFile(21, pages * SLOT);
      assert.equal(fileShape(fd).blockSize, SLOT);
      const size = pages * SLOT - 8192;
      table.add(region(size, { gpa: 1n << 32n, mmapOffset: 8192n }), fd);
      table.publish();
      assert.equal(table.pagedBytes, size);
      const gpa = (page: number) => (1n << 32n) + BigInt(page * SLOT);
      for (let page = 0; page < pages - 1; page++) {
        const at = datapath.translate(0, gpa(page), 64) >>> 0;
        assert.notEqual(at, 0, `page ${page}`);
        control.set(at, page + 1);
        datapath.poll();
      }
      for (let page = 0; page < pages - 1; page++) {
        const at = datapath.translate(0, gpa(page), 64) >>> 0;
        assert.equal(control.get(at), page + 1);
        const got = Buffer.alloc(4);
        readSync(fd, got, 0, 4, page * SLOT + 8192);
        assert.equal(got.readUInt32LE(), page + 1);
        datapath.poll();
      }
      // A view over the edge of two huge pages.
      const edge = BigInt(5 * SLOT - 8192 - 16);
      const view = table.fromUva(edge, 64, 'desc of ring 0');
      assert.notEqual(view, 0);
      control.set(view + 16, 815);
      const at = datapath.translate(0, (1n << 32n) + edge + 16n, 8) >>> 0;
      assert.equal(control.get(at), 815);
      table.clear();
      assert.equal(control.get(PAGER_FREE), 8);
      close(fd);
    });
  });

  it('that the host has run out of are a page that cannot be had, no crash', () => {
    const control = new Control();
    const window = new Window(control, { whole: 0, slots: 8 });
    const table = new RegionTable(control, window, 0);
    const datapath = loadDatapath(control.memory, {
      call() {},
      latched() {},
      pageIn: pager(control.memory, () => {}),
    });
    datapath.init(0);
    // More than any machine has reserved.
    const fd = hugeFile(21, 2 ** 43);
    const far = 2 ** 42;
    table.add(region(far + SLOT), fd);
    table.publish();
    let mapped = 0;
    for (let page = 0; page < 8 && mapped < 8; page++) {
      if (datapath.translate(0, BigInt(far - page * SLOT), 8) !== 0) mapped++;
    }
    assert.equal(control.get(PAGER_FREE), 8 - mapped);
    table.clear();
    assert.equal(control.get(PAGER_FREE), 8);
    close(fd);
  });
});

describe('pages of 1 GiB', () => {
  it('that do not fit are refused, with the reason and the cure', () => {
    const control = new Control();
    const window = new Window(control);
    const table = new RegionTable(control, window, 0);
    const free = window.largestFree();
    const fd = hugeFile(30, 4 * GIB);
    assert.equal(fileShape(fd).blockSize, GIB);
    assert.throws(
      () => table.add(region(4 * GIB), fd),
      /does not fit: its pages of 1 GiB can only be mapped whole, .* use memory-backend-memfd or pages of 2 MiB/,
    );
    assert.equal(table.bytes, 0);
    assert.equal(window.largestFree(), free);
    close(fd);
  });

  it('that fit are mapped whole, at addresses that suit them; they go away as a whole', (t) => {
    return withHugePages(t, GIB, 1, () => {
      const control = new Control();
      const window = new Window(control);
      const table = new RegionTable(control, window, 0);
      const fd = hugeFile(30, GIB);
      table.add(region(GIB), fd);
      const at = table.fromUva(BigInt(GIB - 8), 8);
      control.set(at, 99);
      const got = Buffer.alloc(4);
      readSync(fd, got, 0, 4, GIB - 8);
      assert.equal(got.readUInt32LE(), 99);
      if (whyUnguarded() === undefined) {
        const event = eventfd();
        const unguard = window.guard(event);
        ftruncateSync(fd, 0);
        assert.equal(control.get(at), 0);
        assert.equal(drain(event), true);
        const [page] = window.faults.pages();
        assert.match(
          table.lossAt(page!)!,
          /shrank while it was mapped, or the host has no huge page/,
        );
        unguard();
        close(event);
      }
      table.clear();
      close(fd);
    });
  });
});
