// Buffers across the end of a region, a gap, or the end of the address space (CVE-2018-1059,
// CVE-2016-7422, OpenVMM#4047). What lies behind a region in linear memory is a canary page.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { BOTH, overRings } from '../datapath/formats.ts';
import { concat, frame, header, Receiver } from '../datapath/frames.ts';
import { gpaOf, PLAIN, type TestRegion } from '../datapath/rig.ts';
import { rig } from './guard.ts';
import * as receiver from './receiver.ts';
import * as sender from './sender.ts';

const PAGE = 4096;
const TOP = 1n << 64n;
const LOW = 0x2000_0000n;
const AT = sender.ARENA + 4 * PAGE;
const bytes = frame({ length: 1000 });
const whole = concat(header(), bytes);
/** And what the sender's good frame begins with. */
const longer = concat(bytes, frame({ length: 4000 }).subarray(0, 16));

/** Pages at these GPAs, each behind a canary page in linear memory. */
function pages(...gpas: bigint[]): TestRegion[] {
  return gpas.map((gpa, i) => ({ gpa, size: PAGE, at: AT + i * 2 * PAGE }));
}

/** Lays the frame out from GPA `addr` on, as far as there is memory. */
function lay(base: number, regions: TestRegion[], addr: bigint): void {
  for (const [i, byte] of whole.entries()) {
    const gpa = BigInt.asUintN(64, addr + BigInt(i));
    const region = regions.find((r) => gpa >= r.gpa && gpa < r.gpa + BigInt(r.size));
    if (region) rig.bytes[base + region.at + Number(gpa - region.gpa)] = byte;
  }
}

/** Where a 1012 byte buffer lies, the pages around it, and whether all of it is memory. */
const CASES: [number, string, bigint, bigint[], boolean][] = [
  [11, 'over two adjacent regions', LOW + 3596n, [LOW, LOW + 4096n], true],
  [11, 'but for one byte in the first of two', LOW + 3085n, [LOW, LOW + 4096n], true],
  [11, 'that ends with its region', LOW + 3084n, [LOW], true],
  [11, 'one byte over the end of its region', LOW + 3085n, [LOW], false],
  [11, 'over a gap of a page', LOW + 3596n, [LOW, LOW + 8192n], false],
  [11, 'that begins one byte before its region', LOW - 1n, [LOW], false],
  [11, 'in the gap', LOW + 4200n, [LOW, LOW + 8192n], false],
  [12, 'that ends with the address space', TOP - 1012n, [TOP - 4096n], true],
  [12, 'past 2^64, where memory goes on at 0', TOP - 500n, [TOP - 4096n, 0n], false],
  [12, 'one byte past 2^64, where memory goes on at 0', TOP - 1011n, [TOP - 4096n, 0n], false],
];

overRings(rig, BOTH, 'buffers across regions', () => {
  for (const [n, what, addr, gpas, good] of CASES) {
    it(`class ${n}: a buffer to send ${what}`, () => {
      const regions = pages(...gpas);
      const w = sender.world(sender.MODERN, 16, PLAIN, regions);
      for (const inner of [undefined, 0]) {
        lay(w.tx.port.base, regions, addr);
        w.tx.add([{ addr, len: whole.length }], inner);
        // With more behind it, so that the walk sees it as well as the short form.
        w.tx.add(
          [
            { addr, len: whole.length },
            { addr: w.good + 12n, len: 16 },
          ],
          inner,
        );
        w.tx.publish();
        assert.equal(rig.settle(), 2);
        const got = w.sink.take().map((one) => one.frame);
        assert.deepEqual(got, good ? [bytes, longer] : []);
        assert.equal(w.tx.used().length, 2);
      }
      assert.deepEqual(w.tx.drops, good ? {} : { tx_bad_address: 4 });
      sender.innocent(w, false);
    });

    it(`class ${n}: a receive buffer ${what}`, () => {
      const regions = pages(...gpas);
      for (const inner of [undefined, 0]) {
        const w = receiver.world(PLAIN, 16, regions);
        const head = w.rx.add([{ addr, len: 1012, write: true }], inner);
        w.rx.publish();
        const [sent] = receiver.broadcast(w, 1, 1000);
        assert.deepEqual(w.rx.used(), [{ head, len: good ? 1012 : 0 }]);
        assert.deepEqual(w.rx.drops, good ? {} : { rx_bad_chain: 1 });
        const got = Array.from(whole, (_, i) => {
          const gpa = addr + BigInt(i);
          const region = regions.find((r) => gpa >= r.gpa && gpa < r.gpa + BigInt(r.size));
          return region ? rig.bytes[w.rx.port.base + region.at + Number(gpa - region.gpa)]! : 0;
        });
        const expected = good ? concat(header({ buffers: 1 }), sent!) : new Uint8Array(1012);
        assert.deepEqual(Uint8Array.from(got), expected);
      }
    });
  }

  it('class 11: an indirect table over two regions is read whole, over a gap not at all', () => {
    for (const gap of [0n, 4096n]) {
      const regions = pages(LOW, LOW + 4096n + gap);
      const w = sender.world(sender.MODERN, 16, PLAIN, regions);
      const { base } = w.tx.port;
      w.tx.descriptor(base + AT + PAGE - 16, { addr: w.good, len: 40, flags: 1, next: 1 });
      w.tx.descriptor(base + AT + 2 * PAGE, { addr: w.good + 40n, len: 36 });
      w.tx.addRaw([{ addr: LOW + BigInt(PAGE - 16), len: 32, flags: 4 }], 0);
      w.tx.publish();
      assert.equal(rig.settle(), 1);
      assert.equal(w.sink.take().length, gap === 0n ? 1 : 0);
      assert.deepEqual(w.tx.drops, gap === 0n ? {} : { tx_bad_address: 1 });
      assert.equal(w.tx.used().length, 1);
      sender.innocent(w, false);
    }
  });

  it('class 12: an indirect table past 2^64 is none, though memory goes on at 0', () => {
    const regions = pages(TOP - 4096n, 0n);
    const w = sender.world(sender.MODERN, 16, PLAIN, regions);
    const { base } = w.tx.port;
    w.tx.descriptor(base + AT + PAGE - 16, { addr: w.good, len: 40, flags: 1, next: 1 });
    w.tx.descriptor(base + AT + 2 * PAGE, { addr: w.good + 40n, len: 36 });
    w.tx.addRaw([{ addr: TOP - 16n, len: 32, flags: 4 }], 0);
    w.tx.publish();
    assert.equal(rig.settle(), 1);
    assert.deepEqual(w.tx.drops, { tx_bad_address: 1 });
    assert.equal(w.tx.used().length, 1);
    sender.innocent(w, false);
  });

  it("class 11: another guest's buffers are no room for this one's frames", () => {
    const w = receiver.world(PLAIN);
    for (const port of [0, 2]) {
      for (const offset of [0n, 4096n, 0x10_0000n]) {
        w.rx.add([{ addr: gpaOf(port) + offset, len: 2048, write: true }]);
      }
    }
    w.rx.publish();
    receiver.broadcast(w, 6);
    assert.deepEqual(w.rx.drops, { rx_bad_chain: 6 });
    assert.equal(w.rx.used().length, 6);
    const sink = new Receiver(w.rx).fill(1);
    receiver.broadcast(w, 1);
    assert.equal(sink.take().length, 1);
  });
});
