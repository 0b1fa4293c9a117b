// Lengths: none at all, less than a header, a header in pieces (CVE-2016-6490, CVE-2020-10725,
// CVE-2019-14835; CVE-2022-2132, CVE-2026-86566, CVE-2026-46320/46321). Logging is not offered.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { F_INDIRECT_DESC, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { BOTH, overRings } from '../datapath/formats.ts';
import { concat, frame, header, place, Receiver, send } from '../datapath/frames.ts';
import type { Part } from '../datapath/queue.ts';
import { features, gpaOf, PLAIN } from '../datapath/rig.ts';
import { rig } from './guard.ts';
import * as receiver from './receiver.ts';
import { ARENA, innocent, MODERN, world } from './sender.ts';

const SINGLE = features(F_VERSION_1, F_INDIRECT_DESC);
/** Addresses of no bytes: in memory, at its end, in a gap, another's, and none. */
const NOWHERE = [
  ...[gpaOf(0), gpaOf(0) + BigInt(ARENA), gpaOf(0) + BigInt(ARENA + 8)],
  ...[gpaOf(1), gpaOf(2), 0n, (1n << 64n) - 1n],
];

overRings(rig, BOTH, 'hostile lengths', () => {
  it('class 13: descriptors of no bytes among others change nothing, wherever they point', () => {
    const bytes = frame({ length: 300 });
    for (const addr of NOWHERE) {
      const none: Part = { addr, len: 0 };
      const w = world(MODERN, 64);
      for (const inner of [undefined, 0]) {
        const parts = () => place(w.tx, concat(header(), bytes), [7, 12, 100]);
        const [a, b, c, d] = parts();
        w.tx.add([none, a!, b!, c!, d!], inner);
        w.tx.add([...parts(), none], inner);
        w.tx.add(
          parts().flatMap((part) => [none, part, none, none]),
          inner,
        );
        w.tx.publish();
        assert.equal(rig.settle(), 3);
        assert.deepEqual(
          w.sink.take().map((got) => got.frame),
          [bytes, bytes, bytes],
        );
        assert.equal(w.tx.used().length, 3);
      }
      assert.deepEqual(w.tx.drops, {});
    }
  });

  it('class 13: a batch of empty chains among good frames: all come back, the good ones pass', () => {
    for (const addr of NOWHERE) {
      const w = world(MODERN, 64);
      const good: Uint8Array[] = [];
      for (let i = 0; i < 64; i++) {
        const bytes = frame({ length: 64, seed: i });
        if (i % 3 === 1) {
          send(w.tx, bytes);
          good.push(bytes);
        } else {
          w.tx.add([{ addr, len: 0 }], i % 3 === 2 ? 0 : undefined);
        }
      }
      w.tx.publish();
      assert.equal(rig.settle(), 64);
      assert.equal(w.tx.used().length, 64);
      assert.deepEqual(w.tx.drops, { tx_too_short: 64 - good.length });
      assert.deepEqual(
        w.sink.take().map((got) => got.frame),
        good,
      );
    }
  });

  for (const [kind, acked] of [
    ['merged', PLAIN],
    ['single', SINGLE],
  ] as const) {
    it(`class 13: receive buffers of no bytes (${kind}): every frame delivered or counted`, () => {
      for (const addr of [gpaOf(1), gpaOf(1) + BigInt(ARENA), gpaOf(2), 0n, (1n << 64n) - 1n]) {
        const w = receiver.world(acked, 64);
        const none: Part = { addr, len: 0, write: true };
        for (let i = 0; i < 8; i++) {
          w.rx.add([none], i % 2 ? 0 : undefined);
          w.rx.add([none, { addr: w.room, len: 2048, write: true }, none], i % 2 ? 0 : undefined);
        }
        w.rx.publish();
        receiver.broadcast(w, 20);
        assert.equal(w.rx.frames + w.rx.dropped, 20);
        const used = w.rx.used();
        assert.ok(used.every(({ len }) => len === 0 || len === 112));
        assert.equal(used.filter(({ len }) => len > 0).length, w.rx.frames);
        assert.deepEqual(rig.latched, []);
        assert.equal(used.length + w.rx.outstanding.size, 16);
      }
    });
  }

  it('class 14: a header in pieces is one header, down to single bytes', () => {
    const w = world(MODERN, 64);
    const cuts = [
      [1, 2, 3],
      [4, 8, 12],
      Array.from({ length: 13 }, (_, i) => i + 1),
      Array.from({ length: 40 }, (_, i) => i + 1),
      [11],
      [11, 12, 13, 27, 28],
    ];
    for (const [i, each] of cuts.entries()) {
      for (const inner of [undefined, 0]) {
        const bytes = frame({ length: 60 + i, seed: i });
        assert.ok(send(w.tx, bytes, { cuts: each, inner }) >= 0);
        w.tx.publish();
        assert.equal(rig.settle(), 1);
        assert.deepEqual(
          w.sink.take().map((got) => got.frame),
          [bytes],
        );
        w.tx.used();
      }
    }
    assert.deepEqual(w.tx.drops, {});
  });

  it('class 14: every chain shorter than a header and 14 bytes is dropped, however it is cut', () => {
    const w = world(MODERN, 64);
    let dropped = 0;
    for (let total = 0; total < 26; total++) {
      for (const pieces of [1, 2, 3, 5]) {
        const parts = Array.from({ length: pieces }, (_, i) => ({
          addr: w.good + BigInt(i),
          len: Math.floor(total / pieces) + (i < total % pieces ? 1 : 0),
        }));
        for (const inner of [undefined, 0]) {
          w.tx.add(parts, inner);
          w.tx.publish();
          assert.equal(rig.settle(), 1);
          assert.equal(w.tx.used().length, 1);
          assert.deepEqual(w.tx.drops, { tx_too_short: ++dropped });
        }
      }
    }
    // None of them cost more than its frame.
    assert.equal(w.tx.free, 64);
    w.tx.add([{ addr: w.good, len: 26 }]);
    w.tx.publish();
    rig.settle();
    assert.equal(w.sink.take()[0]?.frame.length, 14);
    assert.equal(w.tx.used().length, 1);
    innocent(w, false);
  });

  it('class 14: a thousand drops leak nothing', () => {
    const w = world(MODERN, 64);
    for (let round = 0; round < 16; round++) {
      for (let i = 0; i < 64; i++) w.tx.add([{ addr: w.good, len: i % 26 }]);
      w.tx.publish();
      assert.equal(rig.settle(), 64);
      assert.equal(w.tx.used().length, 64);
      assert.equal(w.tx.free, 64);
    }
    assert.deepEqual(w.tx.drops, { tx_too_short: 1024 });
    innocent(w, false);
  });

  it('class 14: receive buffers shorter than the header: whole or counted, never under or over', () => {
    for (let size = 1; size < 13; size++) {
      for (const acked of [PLAIN, SINGLE]) {
        const w = receiver.world(acked, 64);
        const sink = new Receiver(w.rx).fill(40, size);
        receiver.broadcast(w, 1, 14);
        const used = w.rx.used();
        if (used.length === 0) sink.checkPosted();
        const total = used.reduce((sum, { len }) => sum + len, 0);
        assert.equal(total, acked === SINGLE ? 0 : 26);
        assert.deepEqual(w.rx.drops, acked === SINGLE ? { rx_too_small: 1 } : {});
        assert.ok(used.every(({ len }) => len <= size));
      }
    }
  });

  it('class 14: without room for the header in the first of several buffers it goes on in the next', () => {
    const w = receiver.world(PLAIN, 64);
    const sink = new Receiver(w.rx);
    for (let round = 0; round < 5; round++) {
      sink.post([1, 2, 3, 2000]);
      w.rx.publish();
      const [sent] = receiver.broadcast(w, 1, 700);
      const [got] = sink.take();
      assert.deepEqual([got?.frame, got?.buffers], [sent, 1]);
    }
  });
});
