// translate(): the wall between guests, against a model that counts in unbounded integers.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BOTH, overRings } from './formats.ts';
import { frame, header, Receiver, send } from './frames.ts';
import { gpaOf, Rig, type TestRegion } from './rig.ts';

const PAGE = 4096;
const TOP = 1n << 64n;
const rig = new Rig();

/** Regions in GPA order: by turns a gap and a region, in pages, from `start` on. */
function lay(start: bigint, spans: { gap: number; pages: number }[]): TestRegion[] {
  let gpa = start;
  let at = 0;
  return spans.flatMap(({ gap, pages }) => {
    const size = pages * PAGE;
    gpa += BigInt(gap * PAGE);
    const region = { gpa, size, at };
    // Never adjacent in linear memory, whatever they are in GPA.
    at += size + PAGE;
    gpa += BigInt(size);
    return gpa <= TOP ? [region] : [];
  });
}

const regions = fc
  .record({
    start: fc.oneof(
      fc.constant(0n),
      fc.bigInt(0n, (1n << 52n) - 1n).map((page) => page * 4096n),
      fc.integer({ min: 1, max: 40 }).map((pages) => TOP - BigInt(pages * PAGE)),
    ),
    spans: fc.array(fc.record({ gap: fc.nat({ max: 2 }), pages: fc.integer({ min: 1, max: 3 }) }), {
      minLength: 1,
      maxLength: 10,
    }),
    seed: fc.nat(),
  })
  .map(({ start, spans, seed }) => {
    const made = lay(start, spans);
    // Any order: the table is sorted by size, not by address.
    return made.sort((a, b) => Number((a.gpa * 31n + BigInt(seed)) % 7n) - (Number(b.gpa) % 7));
  });

const length = fc.oneof(
  fc.nat({ max: 3 * PAGE }),
  fc.constantFrom(0, 1, PAGE, 0x7fff_ffff, 0x8000_0000, 0xffff_f000, 0xffff_ffff),
);

/** Where the model says `len` bytes at `addr` are: an arena offset, or undefined. */
function model(table: TestRegion[], addr: bigint, len: number): number | undefined {
  const found = table.find(
    ({ gpa, size }) =>
      addr >= gpa && addr < gpa + BigInt(size) && addr + BigInt(len) <= gpa + BigInt(size),
  );
  return found && found.at + Number(addr - found.gpa);
}

function port(table: TestRegion[]) {
  rig.clear();
  return rig.port({ regions: table });
}

describe('translate', () => {
  it('agrees with a model to the byte, over random tables', () => {
    let inside = 0;
    let outside = 0;
    fc.assert(
      fc.property(
        regions,
        fc.array(fc.tuple(fc.nat({ max: 60 }), fc.integer({ min: -3, max: 3 }), length), {
          minLength: 1,
          maxLength: 40,
        }),
        (table, probes) => {
          fc.pre(table.length > 0);
          const made = port(table);
          for (const [where, delta, len] of probes) {
            // Near the edges of a region, where mistakes are made, or some pages off.
            const { gpa, size } = table[where % table.length]!;
            const edge = where % 3 === 0 ? gpa : where % 3 === 1 ? gpa + BigInt(size) : gpa + 4096n;
            for (const addr of [edge + BigInt(delta), edge + BigInt(delta - len)]) {
              const wrapped = BigInt.asUintN(64, addr);
              const at = model(table, wrapped, len);
              const got = rig.datapath.translate(0, wrapped, len) >>> 0;
              assert.equal(got, at === undefined ? 0 : made.base + at, `${wrapped} + ${len}`);
              if (at === undefined) outside++;
              else inside++;
            }
          }
        },
      ),
      { numRuns: 300 },
    );
    assert.ok(inside > 200 && outside > 200, `${inside} inside, ${outside} outside`);
  });

  it('knows only the regions of the port asked for', () => {
    rig.clear();
    const [a, b] = [rig.port(), rig.port()];
    assert.equal(rig.datapath.translate(0, gpaOf(0), 64) >>> 0, a.base);
    assert.equal(rig.datapath.translate(1, gpaOf(1), 64) >>> 0, b.base);
    assert.equal(rig.datapath.translate(0, gpaOf(1), 64), 0);
    assert.equal(rig.datapath.translate(1, gpaOf(0), 64), 0);
  });

  it('finds nothing in an empty table, whatever an earlier one left behind', () => {
    const made = port([{ gpa: 0n, size: PAGE, at: 0 }]);
    assert.equal(rig.datapath.translate(0, 0n, 1) >>> 0, made.base);
    made.setRegions([]);
    assert.equal(rig.datapath.translate(0, 0n, 1), 0);
  });
});

/** A sender and a receiver; both rings lie in the sender's usual region, which stays mapped. */
function pair(extra: TestRegion[]) {
  rig.clear();
  const spec = [{ gpa: gpaOf(0), size: 0x100_0000, at: 0 }, ...extra];
  const from = rig.port({ regions: spec });
  const to = rig.port();
  rig.wire(from, to);
  const tx = from.queue(1);
  const sink = new Receiver(to.queue(0)).fill(8);
  return { from, tx, sink };
}

overRings(rig, BOTH, 'buffers across regions', () => {
  const LOW = 0x2000_0000n;
  const bytes = frame({ length: 1000 });
  const whole = new Uint8Array(Buffer.concat([header(), bytes]));

  /** Sends the frame from one buffer at GPA `addr`, its bytes laid into the regions by hand. */
  function sendAt(world: ReturnType<typeof pair>, addr: bigint, extra: TestRegion[]) {
    for (const [i, byte] of whole.entries()) {
      const at = model(extra, BigInt.asUintN(64, addr + BigInt(i)), 1);
      if (at !== undefined) rig.bytes[world.from.base + at] = byte;
    }
    world.tx.add([{ addr, len: whole.length }]);
    world.tx.publish();
    assert.equal(rig.settle(), 1);
  }

  it('a buffer over two adjacent regions is delivered whole, wherever it is cut', () => {
    const regions = [
      { gpa: LOW, size: PAGE, at: 0x180_0000 },
      { gpa: LOW + 4096n, size: PAGE, at: 0x190_0000 },
    ];
    for (let before = 1; before < whole.length; before += 7) {
      const world = pair(regions);
      sendAt(world, LOW + BigInt(PAGE - before), regions);
      const [got] = world.sink.take();
      assert.deepEqual(got?.frame, bytes, `${before} bytes in the first region`);
    }
  });

  it('a buffer over three regions is delivered whole', () => {
    const regions = [
      { gpa: LOW, size: PAGE, at: 0x180_0000 },
      { gpa: LOW + 4096n, size: 16, at: 0x190_0000 },
      { gpa: LOW + 4112n, size: PAGE, at: 0x1a0_0000 },
    ];
    const world = pair(regions);
    sendAt(world, LOW + BigInt(PAGE - 20), regions);
    assert.deepEqual(world.sink.take()[0]?.frame, bytes);
  });

  it('a buffer over a gap is dropped with tx_bad_address', () => {
    const regions = [
      { gpa: LOW, size: PAGE, at: 0x180_0000 },
      { gpa: LOW + 8192n, size: PAGE, at: 0x190_0000 },
    ];
    const world = pair(regions);
    sendAt(world, LOW + BigInt(PAGE - 500), regions);
    assert.deepEqual(world.sink.take(), []);
    assert.deepEqual(world.tx.drops, { tx_bad_address: 1 });
    assert.equal(world.tx.used().length, 1);
  });

  it('a buffer that runs past 2^64 is dropped, though memory goes on at 0', () => {
    const regions = [
      { gpa: TOP - 4096n, size: PAGE, at: 0x180_0000 },
      { gpa: 0n, size: PAGE, at: 0x190_0000 },
    ];
    const world = pair(regions);
    sendAt(world, TOP - 500n, regions);
    assert.deepEqual(world.sink.take(), []);
    assert.deepEqual(world.tx.drops, { tx_bad_address: 1 });
  });

  it('a buffer that ends exactly at 2^64 is delivered', () => {
    const regions = [{ gpa: TOP - 4096n, size: PAGE, at: 0x180_0000 }];
    const world = pair(regions);
    sendAt(world, TOP - BigInt(whole.length), regions);
    assert.deepEqual(world.sink.take()[0]?.frame, bytes);
  });

  it('an indirect table over two regions is read whole, over a gap not at all', () => {
    for (const gap of [0n, 4096n]) {
      const world = pair([
        { gpa: LOW, size: PAGE, at: 0x180_0000 },
        { gpa: LOW + 4096n + gap, size: PAGE, at: 0x190_0000 },
      ]);
      const half = Math.floor(whole.length / 2);
      const at = world.from.base + 0x100;
      rig.bytes.set(whole, at);
      const entry = (k: number) => ({
        addr: world.from.gpa(at + k * half),
        len: half,
        flags: k === 0 ? 1 : 0,
        next: 1,
      });
      world.tx.descriptor(world.from.base + 0x180_0000 + PAGE - 16, entry(0));
      world.tx.descriptor(world.from.base + 0x190_0000, entry(1));
      world.tx.addRaw([{ addr: LOW + BigInt(PAGE - 16), len: 32, flags: 4 }]);
      world.tx.publish();
      rig.settle();
      assert.equal(world.sink.take().length, gap === 0n ? 1 : 0);
      assert.deepEqual(world.tx.drops, gap === 0n ? {} : { tx_bad_address: 1 });
    }
  });

  it('a receive buffer over two adjacent regions is filled in both', () => {
    rig.clear();
    const from = rig.port();
    const regions = [
      { gpa: gpaOf(1), size: 0x100_0000, at: 0 },
      { gpa: LOW, size: PAGE, at: 0x180_0000 },
      { gpa: LOW + 4096n, size: PAGE, at: 0x190_0000 },
    ];
    const to = rig.port({ regions });
    rig.wire(from, to);
    const tx = from.queue(1);
    const rx = to.queue(0);
    const split = 300;
    const head = rx.add([{ addr: LOW + BigInt(PAGE - split), len: 2048, write: true }]);
    rx.publish();
    send(tx, bytes);
    tx.publish();
    rig.settle();
    assert.deepEqual(rx.used(), [{ head, len: whole.length }]);
    const first = to.base + 0x180_0000 + PAGE - split;
    const got = Buffer.concat([
      rig.bytes.slice(first, first + split),
      rig.bytes.slice(to.base + 0x190_0000, to.base + 0x190_0000 + whole.length - split),
    ]);
    const expected = Buffer.concat([header({ buffers: 1 }), bytes]);
    assert.deepEqual(got, expected);
    // Not a byte further: the page behind the first region is somebody else's.
    assert.equal(rig.bytes[first + split], 0);
  });
});
