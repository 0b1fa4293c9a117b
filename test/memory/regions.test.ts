// One port's memory table: what is refused, and that a refusal changes nothing.

import assert from 'node:assert/strict';
import { openSync } from 'node:fs';
import { after, describe, it } from 'node:test';
import {
  MAX_REGIONS,
  PORT_BASE,
  PORT_REGIONS,
  REGION_BASE,
  REGION_GPA,
  REGION_LINEAR,
  REGION_SIZE,
  REGION_STRIDE,
} from '../../src/abi/layout.ts';
import { close, memfd } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { BadRegion, type Region, RegionTable } from '../../src/memory/regions.ts';
import { Window } from '../../src/memory/window.ts';
import { openFds } from '../linux/fds.ts';

const PAGE = 4096n;
const TOP = 1n << 64n;
const control = new Control();
const window = new Window(control);
const ALL = window.largestFree();
const fd = memfd('regions', 1 << 20);
after(() => close(fd));

const region = (over: Partial<Region> = {}): Region => ({
  gpa: 0x10_0000n,
  size: 16n * PAGE,
  uva: 0x7f00_0000_0000n,
  mmapOffset: 0n,
  ...over,
});

function table(): RegionTable {
  return new RegionTable(control, window, 0);
}

describe('RegionTable', () => {
  const refusals: [string, Partial<Region>, RegExp][] = [
    ['empty', { size: 0n }, /empty/],
    ['GPA past 2^64', { gpa: TOP - PAGE, size: 2n * PAGE }, /wraps/],
    ['UVA past 2^64', { uva: TOP - PAGE, size: 2n * PAGE }, /wraps/],
    ['offset past 2^64', { mmapOffset: TOP - PAGE, size: 2n * PAGE }, /wraps/],
    ['unaligned GPA', { gpa: 0x10_0001n }, /not aligned/],
    ['unaligned UVA', { uva: 0x7f00_0000_0800n }, /not aligned/],
    ['unaligned size', { size: 4095n }, /not aligned/],
    ['unaligned offset', { mmapOffset: 512n }, /not aligned/],
    ['end past the file', { size: 257n * PAGE }, /ends past its file of 1048576 bytes/],
    ['offset past the file', { mmapOffset: 256n * PAGE, size: PAGE }, /ends past its file/],
    ['end just past the file', { mmapOffset: 241n * PAGE }, /ends past its file/],
    ['size of 2^63', { size: 1n << 63n, gpa: 0n, uva: 0n }, /ends past its file/],
  ];
  for (const [what, over, expected] of refusals) {
    it(`refuses: ${what}`, () => {
      const made = table();
      assert.throws(
        () => made.add(region(over), fd),
        (error) => error instanceof BadRegion && expected.test(error.message),
      );
      assert.equal(made.bytes, 0);
      assert.equal(window.largestFree(), ALL);
      made.add(region(), fd);
      made.clear();
    });
  }

  it('refuses any overlap in GPA or UVA, and allows neighbours', () => {
    const made = table();
    const { gpa, uva, size } = region();
    made.add(region(), fd);
    const far = { gpa: 0x100_0000n, uva: 0x1000_0000n };
    for (const delta of [0n, PAGE, -PAGE, size - PAGE, PAGE - size]) {
      const inGpa = region({ gpa: gpa + delta, uva: far.uva });
      const inUva = region({ gpa: far.gpa, uva: uva + delta });
      assert.throws(() => made.add(inGpa, fd), /overlaps the memory region at GPA 0x100000/);
      assert.throws(() => made.add(inUva, fd), /overlaps/);
    }
    assert.throws(
      () => made.add(region({ gpa: gpa + PAGE, uva: far.uva, size: PAGE }), fd),
      /over/,
    );
    made.add(region({ gpa: gpa + size, uva: uva + size }), fd);
    made.add(region({ gpa: gpa - size, uva: uva - size }), fd);
    assert.equal(made.bytes, Number(size) * 3);
    made.clear();
    assert.equal(window.largestFree(), ALL);
  });

  it('refuses the 65th region', () => {
    const made = table();
    for (let i = 0; i < MAX_REGIONS; i++) {
      const at = BigInt(i) * 2n * PAGE;
      made.add(region({ gpa: at, uva: at, size: PAGE }), fd);
    }
    const last = region({ gpa: 0x4000_0000n, uva: 0x4000_0000n, size: PAGE });
    assert.throws(() => made.add(last, fd), /one more than the 64/);
    made.clear();
    made.add(last, fd);
    made.clear();
    assert.equal(window.largestFree(), ALL);
  });

  it('without paging, says how much room is left when a region does not fit the window', () => {
    const made = new RegionTable(control, window, 0, { paging: false });
    const big = memfd('big', 4096 * 2 ** 20);
    const huge = region({ size: 4096n << 20n });
    assert.throws(() => made.add(huge, big), /does not fit: \d+ MiB of the window are free/);
    close(big);
    assert.equal(made.bytes, 0);
  });

  it('refuses an fd that cannot be mapped, with the cause', () => {
    const made = table();
    const readOnly = openSync('/proc/self/exe', 'r');
    assert.throws(() => made.add(region({ size: PAGE }), readOnly), /cannot be mapped.*mmap/s);
    close(readOnly);
    assert.equal(made.bytes, 0);
    assert.equal(window.largestFree(), ALL);
  });

  it('a region may end at 2^64 exactly', () => {
    const made = table();
    made.add(region({ gpa: TOP - 16n * PAGE, uva: TOP - 16n * PAGE }), fd);
    const at = made.fromUva(TOP - 16n, 16);
    assert.ok(at > 0);
    assert.equal(made.fromUva(TOP - 16n, 17), 0);
    made.clear();
  });

  it('removes what has the same GPA, UVA and size, whatever the offset; a second time nothing', () => {
    const made = table();
    made.add(region({ mmapOffset: PAGE }), fd);
    assert.equal(made.has(region()), true);
    assert.equal(made.remove(region({ size: PAGE })), false);
    assert.equal(made.remove(region({ uva: 0n })), false);
    assert.equal(made.remove(region()), true);
    assert.equal(made.remove(region()), false);
    assert.equal(window.largestFree(), ALL);
  });

  it('publishes the largest region first, and only as many as there are', () => {
    const made = table();
    const at = (i: number, field: number) => REGION_BASE + i * REGION_STRIDE + field;
    const sizes = [2n, 9n, 4n].map((pages) => pages * PAGE);
    for (const [i, size] of sizes.entries()) {
      const where = BigInt(i) << 24n;
      made.add(region({ gpa: where, uva: where, size, mmapOffset: BigInt(i) * PAGE }), fd);
    }
    made.publish();
    assert.equal(control.get(PORT_BASE + PORT_REGIONS), 3);
    const published = [0, 1, 2].map((i) => control.get64(at(i, REGION_SIZE)));
    assert.deepEqual(
      published,
      [9n, 4n, 2n].map((pages) => pages * PAGE),
    );
    assert.equal(control.get64(at(0, REGION_GPA)), 1n << 24n);
    assert.equal(control.get(at(0, REGION_LINEAR)), made.fromUva(1n << 24n, 1));
    made.clear();
    made.publish();
    assert.equal(control.get(PORT_BASE + PORT_REGIONS), 0);
  });

  it('finds nothing by UVA across two regions, however adjacent', () => {
    const made = table();
    const { gpa, uva, size } = region();
    made.add(region(), fd);
    made.add(region({ gpa: gpa + size, uva: uva + size }), fd);
    assert.ok(made.fromUva(uva + size - 16n, 16) > 0);
    assert.ok(made.fromUva(uva + size, 16) > 0);
    assert.equal(made.fromUva(uva + size - 15n, 16), 0);
    assert.equal(made.fromUva(uva - 1n, 1), 0);
    made.clear();
  });

  it('leaves the fd to its owner', () => {
    const before = openFds();
    const made = table();
    made.add(region(), fd);
    made.clear();
    assert.throws(() => made.add(region({ size: 0n }), fd));
    assert.equal(openFds(), before);
  });
});
