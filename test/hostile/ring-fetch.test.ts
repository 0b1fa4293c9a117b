// One fetch (CVE-2020-14375, CVE-2024-11614 and what reopened it): a guest whose memory is paged gets the
// worker to call out in the middle of a walk, and there rewrites what was read. The first reading counts.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import {
  MAX_REGIONS,
  PAGER_REGIONS,
  PORT_BASE,
  PORT_PAGED,
  PORT_STRIDE,
  REGION_BASE,
  REGION_GPA,
  REGION_SIZE,
  REGION_SKEW,
  REGION_STRIDE,
  REGION_TABLE,
  SLOT,
  TABLES_BASE,
} from '../../src/abi/layout.ts';
import {
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  F_INDIRECT_DESC,
  F_VERSION_1,
} from '../../src/abi/virtio.ts';
import { Faults } from '../../src/memory/faults.ts';
import { Pager } from '../../src/memory/pager.ts';
import { BOTH, overRings } from '../datapath/formats.ts';
import { concat, frame, header } from '../datapath/frames.ts';
import type { Descriptor, TestQueue } from '../datapath/queue.ts';
import { features, PLAIN, type TestPort } from '../datapath/rig.ts';
import { kick, rig } from './guard.ts';
import * as receiver from './receiver.ts';
import { innocent, MODERN, type World, world } from './sender.ts';

/** Guest-physical address of the paged region, and how many pages it has. */
const PAGED = 0x40_0000_0000n;
const PAGES = 32;
/** Linear address of the slots. */
const FIRST = 0x8000_0000;

const bytes = frame({ length: 400 });
const whole = concat(header(), bytes);

/** Gives a port a paged region, none of it mapped, all of its pages `content`. */
function page(port: TestPort, content: Uint8Array): void {
  const { control } = rig;
  new Pager(control, 0, FIRST, 16, new Faults(control));
  rig.bytes.fill(0, TABLES_BASE, TABLES_BASE + PAGES * 4);
  const table = REGION_BASE + port.index * MAX_REGIONS * REGION_STRIDE;
  const at = table + port.regions.length * REGION_STRIDE;
  control.set64(at + REGION_GPA, PAGED);
  control.set64(at + REGION_SIZE, BigInt(PAGES * SLOT));
  control.set(at + REGION_SKEW, 0);
  control.set(at + REGION_TABLE, TABLES_BASE);
  control.set(PORT_BASE + port.index * PORT_STRIDE + PORT_PAGED, 1);
  control.set(PAGER_REGIONS, 1);
  rig.onPage = (_page, linear) => {
    rig.bytes.set(content, linear);
    return true;
  };
}

/** Runs `rewrite` when the next page is wanted. */
function atPage(rewrite: () => void): () => number {
  const { onPage } = rig;
  let times = 0;
  rig.onPage = (number, linear) => {
    times++;
    rewrite();
    return onPage(number, linear);
  };
  return () => times;
}

/** Where the descriptor of a queue that is added next will be. */
function slot(queue: TestQueue, n = 0): number {
  return queue.desc + n * 16;
}

/** Writes a field of a descriptor: 0 address, 8 length, 12 and 14 flags and next, or id and flags. */
function rewrite(at: number, part: 'addr' | 'len' | 'flags' | 'next', value: bigint): void {
  const packed = rig.packed(0) || rig.packed(1);
  if (part === 'addr') rig.view.setBigUint64(at, value, true);
  else if (part === 'len') rig.view.setUint32(at + 8, Number(value), true);
  else if ((part === 'flags') === packed) rig.view.setUint16(at + 14, Number(value), true);
  else rig.view.setUint16(at + 12, Number(value), true);
}

const REWRITES: [string, 'addr' | 'len' | 'flags', bigint[]][] = [
  ['address', 'addr', [0n, 1n << 63n, 0xffff_ffff_ffff_fff0n]],
  ['length', 'len', [0n, 76n, 5000n, 0xffff_ffffn]],
  ['flags', 'flags', [BigInt(DESC_F_WRITE), BigInt(DESC_F_NEXT), BigInt(DESC_F_INDIRECT)]],
];

/** The chain is sent, rewritten at its first page, and arrives as it was. */
function arrives(w: World, spoil: () => void, expected: Uint8Array): void {
  const times = atPage(spoil);
  kick(w.tx);
  assert.equal(rig.settle(), 1);
  assert.equal(times(), 1, 'the worker did not call out in the middle');
  assert.deepEqual(
    w.sink.take().map((got) => got.frame),
    [expected],
  );
  assert.deepEqual([w.tx.drops, rig.latched], [{}, []]);
  assert.equal(w.tx.completed, 1);
}

function paged(): World {
  const w = world(MODERN, 16);
  page(w.tx.port, whole);
  return w;
}

overRings(rig, BOTH, 'one fetch', (format) => {
  for (const [what, part, values] of REWRITES) {
    it(`class 19: the ${what} of a buffer rewritten while its page is mapped`, () => {
      for (const value of values) {
        const w = paged();
        w.tx.addRaw([{ addr: PAGED, len: 412 }], 0);
        arrives(w, () => rewrite(slot(w.tx), part, value), bytes);
      }
    });

    it(`class 19: the ${what} of a chain's first descriptor, the same`, () => {
      for (const value of values) {
        const w = paged();
        w.tx.addRaw(
          [
            { addr: PAGED, len: 400, flags: DESC_F_NEXT, next: 1 },
            { addr: PAGED + 400n, len: 12 },
          ],
          0,
        );
        arrives(w, () => rewrite(slot(w.tx), part, value), bytes);
      }
    });

    it(`class 18: the ${what} in both entries of an indirect table, the same`, () => {
      for (const value of values) {
        const w = paged();
        const entries: Descriptor[] = [
          { addr: PAGED, len: 400, flags: DESC_F_NEXT, next: 1 },
          { addr: PAGED + 400n, len: 12 },
        ];
        const table = w.tx.table(entries);
        w.tx.addRaw([{ addr: w.tx.port.gpa(table), len: 32, flags: DESC_F_INDIRECT }], 0);
        const spoil = () => {
          rewrite(table, part, value);
          rewrite(table + 16, part, value);
        };
        arrives(w, spoil, bytes);
      }
    });

    it(`class 18: the ${what} of an indirect descriptor, while its table's page is mapped`, () => {
      for (const value of values) {
        const w = world(MODERN, 16);
        const table = w.tx.table([
          { addr: w.good, len: 40, flags: DESC_F_NEXT, next: 1 },
          { addr: w.good + 40n, len: 36 },
        ]);
        page(w.tx.port, Uint8Array.from(rig.bytes.slice(table, table + 32)));
        w.tx.addRaw([{ addr: PAGED, len: 32, flags: DESC_F_INDIRECT }], 0);
        const expected = frame({ length: 4000 }).subarray(0, 64);
        arrives(w, () => rewrite(slot(w.tx), part, value), expected);
      }
    });
  }

  if (format === 'packed') {
    it('class 19: a chain that ends elsewhere than it was counted to costs itself', () => {
      const chain = [
        { addr: PAGED, len: 300, flags: DESC_F_NEXT },
        { addr: PAGED + 300n, len: 100, flags: DESC_F_NEXT },
        { addr: PAGED + 400n, len: 12 },
      ];
      for (const [n, flags] of [
        [1, 0],
        [2, DESC_F_NEXT],
      ] as const) {
        const w = paged();
        w.tx.addRaw(chain, 0);
        atPage(() => rewrite(slot(w.tx, n), 'flags', BigInt(flags)));
        kick(w.tx);
        assert.equal(rig.settle(), 1);
        assert.deepEqual(w.tx.drops, { tx_bad_chain: 1 });
        assert.deepEqual([w.tx.completed, rig.latched], [1, []]);
        assert.deepEqual(w.sink.take(), []);
      }
    });
  }

  if (format === 'split') {
    it('class 18: where a chain goes on, rewritten while a page is mapped', () => {
      for (const next of [0n, 2n, 15n, 16n, 0xffffn]) {
        const w = paged();
        w.tx.addRaw(
          [
            { addr: PAGED, len: 400, flags: DESC_F_NEXT, next: 1 },
            { addr: PAGED + 400n, len: 12 },
          ],
          0,
        );
        arrives(w, () => rewrite(slot(w.tx), 'next', next), bytes);
      }
    });
  }

  it('class 19: the length of a receive buffer, the same: the first one says how much fits', () => {
    for (const [first, then] of [
      [100, 2048],
      [2048, 100],
    ] as const) {
      const w = receiver.world(features(F_VERSION_1, F_INDIRECT_DESC));
      page(w.rx.port, new Uint8Array(4096));
      const head = w.rx.addRaw([{ addr: PAGED, len: first, flags: DESC_F_WRITE }], 0);
      kick(w.rx);
      atPage(() => rewrite(slot(w.rx), 'len', BigInt(then)));
      receiver.broadcast(w, 1, 200);
      assert.deepEqual(w.rx.drops, first === 100 ? { rx_too_small: 1 } : {});
      assert.equal(w.rx.completed, first === 100 ? 0 : 1);
      assert.equal(typeof head, 'number');
    }
  });

  it('class 19: what is not rewritten goes on as ever', () => {
    const w = world(MODERN, 16, PLAIN);
    page(w.tx.port, whole);
    w.tx.addRaw([{ addr: PAGED, len: 412 }], 0);
    arrives(w, () => {}, bytes);
    w.tx.used();
    innocent(w, false);
  });
});
