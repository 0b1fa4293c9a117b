// translate() over paged regions: against a model that knows files, not slots. Every 4 KiB of a file
// begins with its own number, so a wrong mapping shows whatever its address.

import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { after, beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import {
  MAX_REGIONS,
  PAGER_CLOCK,
  PAGER_FIRST,
  PAGER_FREE,
  PAGER_LIMBO,
  PORT_BASE,
  PORT_PAGED,
  PORT_REGIONS,
  PORT_STRIDE,
  REGION_BASE,
  REGION_FD,
  REGION_STRIDE,
  SLOT,
  SLOT_STAMPS,
  SWITCH_WORKERS,
  WORKER_BASE,
  WORKER_EVICTIONS,
  WORKER_PARKED,
  WORKER_ROUND,
  WORKER_STRIDE,
} from '../../src/abi/layout.ts';
import { addressOf, close, memfd } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { type Region, RegionTable } from '../../src/memory/regions.ts';
import { Window } from '../../src/memory/window.ts';
import { loadDatapath, pager } from '../../src/worker/datapath.ts';

const PAGE = 4096;
const SLOTS = 16;
const TOP = 1n << 64n;
const control = new Control();
const base = addressOf(control.bytes.subarray(0, 65536));
const window = new Window(control, { whole: 4 * SLOT, slots: SLOTS });
/** Calls of the host's pageIn, and what it answers when it is not to work. */
let failing = false;
let pageIns = 0;
const mapPage = pager(control.memory, () => pageIns++);
const datapath = loadDatapath(control.memory, {
  call() {},
  latched() {},
  pageIn: (fd, page, linear) => (failing ? 0 : mapPage(fd, page, linear)),
});
datapath.init(0);

/** A file whose 4 KiB pages begin with {which file, page number}. */
function numbered(which: number, size: number): number {
  const fd = memfd('numbered', size);
  const word = Buffer.alloc(8);
  for (let at = 0; at < size; at += PAGE) {
    word.writeUInt32LE(which, 0);
    word.writeUInt32LE(at / PAGE, 4);
    writeSync(fd, word, 0, 8, at);
  }
  return fd;
}

const SIZE = 40 * SLOT;
const files = [numbered(1, SIZE), numbered(2, SIZE)];
after(() => files.forEach(close));
const tables = files.map((_, port) => new RegionTable(control, window, port));

beforeEach(() => {
  for (const table of tables) {
    table.clear();
    table.publish();
  }
  failing = false;
  control.set(SWITCH_WORKERS, 1);
  assert.equal(control.get(PAGER_FREE), SLOTS);
});
after(() => {
  for (const table of tables) table.clear();
});

function add(port: number, region: Partial<Region>): Region {
  const made = { gpa: 0n, size: BigInt(SIZE), mmapOffset: 0n, ...region };
  const whole = { ...made, uva: region.uva ?? made.gpa };
  tables[port]!.add(whole, files[port]!);
  tables[port]!.publish();
  return whole;
}

/** File offset of `len` bytes at `addr`, or undefined where no one 2 MiB page of the file has them. */
function model(regions: Region[], addr: bigint, len: number): number | undefined {
  const found = regions.find(({ gpa, size }) => addr >= gpa && addr < gpa + size);
  if (!found || addr + BigInt(len) > found.gpa + found.size) return undefined;
  const offset = Number(addr - found.gpa + found.mmapOffset);
  return (offset % SLOT) + len <= SLOT ? offset : undefined;
}

function translate(port: number, addr: bigint, len: number): number {
  return datapath.translate(port, BigInt.asUintN(64, addr), len) >>> 0;
}

/** Which file and offset linear address `at` shows, from the number at the start of its page. */
function shown(at: number): { file: number; offset: number } {
  const down = at - ((base + at) % PAGE);
  const page = control.get(down + 4);
  return { file: control.get(down), offset: page * PAGE + (at - down) };
}

describe('translate over paged regions', () => {
  it('agrees with a model to the byte, whatever is mapped at the time', () => {
    const cuts = fc.record({
      gpa: fc.constantFrom(0n, 0x1000n, 0x1f_f000n, 1n << 40n, TOP - BigInt(SIZE)),
      from: fc.nat({ max: 600 }),
      first: fc.integer({ min: 4 * 512 + 1, max: 9000 }),
      second: fc.integer({ min: 4 * 512 + 1, max: 9000 }),
      gap: fc.nat({ max: 2 }),
    });
    const probe = fc.tuple(
      fc.nat(),
      fc.constantFrom('page', 'start', 'end', 'other') as fc.Arbitrary<string>,
      fc.integer({ min: -3, max: 3 }),
      fc.oneof(fc.nat({ max: 9000 }), fc.constantFrom(0, 1, SLOT, SLOT + 1, 0xffff_ffff)),
    );
    const seen = { inside: 0, outside: 0 };
    fc.assert(
      fc.property(cuts, fc.array(probe, { minLength: 10, maxLength: 60 }), (cut, probes) => {
        tables[0]!.clear();
        const size = (pages: number) => BigInt(pages * PAGE);
        const regions = [
          add(0, { gpa: cut.gpa, size: size(cut.first), mmapOffset: size(cut.from) }),
          add(0, {
            gpa: BigInt.asUintN(64, cut.gpa + size(cut.first + cut.gap)),
            size: size(cut.second),
            mmapOffset: size(cut.from + cut.first),
            uva: 1n << 60n,
          }),
        ];
        for (const [which, kind, delta, len] of probes) {
          const region = regions[which % 2]!;
          const page = BigInt(which % 30) * BigInt(SLOT) - (region.mmapOffset % BigInt(SLOT));
          const edge = {
            page: region.gpa + page,
            start: region.gpa,
            end: region.gpa + region.size,
            other: BigInt(which) << 20n,
          }[kind]!;
          for (const at of [edge + BigInt(delta), edge + BigInt(delta - len)]) {
            const addr = BigInt.asUintN(64, at);
            const expected = model(regions, addr, len);
            const got = translate(0, addr, len);
            if (expected === undefined) {
              seen.outside++;
              assert.equal(got, 0, `${addr} + ${len}`);
            } else {
              seen.inside++;
              assert.notEqual(got, 0, `${addr} + ${len}`);
              assert.deepEqual(shown(got), { file: 1, offset: expected });
            }
          }
          // A round ends: from here on slots may be taken away.
          datapath.poll();
        }
      }),
      { numRuns: 100 },
    );
    assert.ok(seen.inside > 500 && seen.outside > 500, JSON.stringify(seen));
  });

  it('never answers with a page of another port', () => {
    add(0, { gpa: 0n });
    add(1, { gpa: 0n });
    for (let i = 0; i < 400; i++) {
      const [port, page] = [i % 2, (i * 7) % 40];
      const got = translate(port, BigInt(page * SLOT + 8192), 100);
      assert.deepEqual(shown(got), { file: port + 1, offset: page * SLOT + 8192 });
      datapath.poll();
    }
    assert.ok(control.counter(WORKER_BASE + WORKER_EVICTIONS) > 300);
    assert.equal(translate(1, BigInt(SIZE), 1), 0);
    assert.equal(translate(2, 0n, 1), 0);
  });

  it('maps a region whole where it fits, and pages the rest behind it in the table', () => {
    add(0, { gpa: 1n << 33n, size: BigInt(SIZE - SLOT), mmapOffset: BigInt(SLOT) });
    add(0, { gpa: 0n, size: BigInt(SLOT), uva: 1n << 50n });
    const port = PORT_BASE;
    assert.deepEqual([control.get(port + PORT_REGIONS), control.get(port + PORT_PAGED)], [1, 1]);
    assert.equal(tables[0]!.bytes, SIZE);
    assert.equal(tables[0]!.pagedBytes, SIZE - SLOT);
    assert.equal(shown(translate(0, 0n, SLOT)).offset, 0);
    assert.equal(control.get(PAGER_FREE), SLOTS);
    assert.equal(shown(translate(0, (1n << 33n) + 5n, 1)).offset, SLOT + 5);
    assert.equal(control.get(PAGER_FREE), SLOTS - 1);
    const record = REGION_BASE + REGION_STRIDE;
    assert.ok(control.get(record + REGION_FD) > 2);
    assert.equal(control.get(PORT_BASE + PORT_STRIDE + PORT_PAGED), 0);
    assert.ok(MAX_REGIONS > 2);
  });

  it('what it answered holds until the round ends, also when every slot is taken', () => {
    add(0, {});
    const held = Array.from({ length: SLOTS }, (_, page) => translate(0, BigInt(page * SLOT), 8));
    assert.equal(translate(0, BigInt(SLOTS * SLOT), 8), 0, 'no slot left');
    for (const [page, at] of held.entries()) assert.equal(shown(at).offset, page * SLOT);
    datapath.poll();
    assert.notEqual(translate(0, BigInt(SLOTS * SLOT), 8), 0);
  });

  it('a page that the kernel refuses is not there, costs no slot, and may work later', () => {
    add(0, {});
    failing = true;
    for (let i = 0; i < 100; i++) assert.equal(translate(0, 0n, 8), 0);
    assert.equal(control.get(PAGER_FREE), SLOTS);
    failing = false;
    assert.equal(shown(translate(0, 0n, 8)).offset, 0);
    // For real: a file that is not there any more leaves zeroes, not a hole.
    const record = REGION_BASE + REGION_FD;
    const fd = control.get(record);
    control.set(record, 9999);
    assert.equal(translate(0, BigInt(SLOT), 8), 0);
    control.set(record, fd);
    const first = control.get(PAGER_FIRST);
    for (let slot = 0; slot < SLOTS; slot++) control.get(first + slot * SLOT);
    assert.equal(shown(translate(0, BigInt(SLOT), 8)).offset, SLOT);
  });
});

describe('slots', () => {
  const evictions = () => control.counter(WORKER_BASE + WORKER_EVICTIONS);

  it('the page not used for longest goes first', () => {
    add(0, {});
    const touch = (page: number) => translate(0, BigInt(page * SLOT), 8);
    for (let page = 0; page < 10; page++) touch(page);
    // Two pages are in use all the time, 30 others one after the other.
    for (let i = 0; i < 200; i++) {
      touch(3);
      touch(7);
      const before = pageIns;
      touch(3);
      touch(7);
      assert.equal(pageIns, before);
      touch(10 + (i % 30));
      datapath.poll();
    }
    const before = pageIns;
    touch(3);
    touch(7);
    assert.equal(pageIns, before, 'pages in use were given up');
  });

  it('a slot given up is free only when the other workers have begun a round, or sleep', () => {
    add(0, {});
    const other = WORKER_BASE + WORKER_STRIDE;
    control.set(SWITCH_WORKERS, 2);
    // The other worker is in the middle of a round that began now.
    control.set(other + WORKER_PARKED, 0);
    control.set(other + WORKER_ROUND, control.get(PAGER_CLOCK));
    const held = Array.from({ length: SLOTS }, (_, page) => translate(0, BigInt(page * SLOT), 8));
    const before = evictions();
    datapath.poll();
    assert.ok(control.get(PAGER_LIMBO) > 0);
    for (let i = 0; i < 10; i++) datapath.poll();
    const limbo = control.get(PAGER_LIMBO);
    assert.equal(evictions() - before, limbo);
    assert.equal(control.get(PAGER_FREE), 0);
    // What it looked up is as it was, though nobody else finds it any more.
    for (const [page, at] of held.entries()) assert.equal(shown(at).offset, page * SLOT);
    control.set(other + WORKER_ROUND, control.get(PAGER_CLOCK));
    datapath.poll();
    assert.equal(control.get(PAGER_LIMBO), 0);
    assert.equal(control.get(PAGER_FREE), limbo);
    // And again, asleep.
    for (let page = 20; page < 36; page++) translate(0, BigInt(page * SLOT), 8);
    datapath.poll();
    assert.equal(control.get(PAGER_FREE), 0);
    control.set(other + WORKER_PARKED, 1);
    datapath.poll();
    assert.equal(control.get(PAGER_LIMBO), 0);
    assert.ok(control.get(PAGER_FREE) > 0);
    control.set(other + WORKER_PARKED, 0);
  });

  it('the clock may wrap', () => {
    add(0, {});
    control.set(PAGER_CLOCK, 0xffff_fffa);
    for (let slot = 0; slot < SLOTS; slot++) control.set(SLOT_STAMPS + slot * 4, 0xffff_fff0);
    for (let i = 0; i < 200; i++) {
      const page = (i * 3) % 40;
      assert.equal(shown(translate(0, BigInt(page * SLOT), 8)).offset, page * SLOT);
      datapath.poll();
    }
    assert.ok(control.get(PAGER_CLOCK) < 1000);
  });
});
