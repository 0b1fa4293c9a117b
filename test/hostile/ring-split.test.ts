// What a hostile guest may write into split rings only: `next`, and the avail ring. A chain that cannot
// be costs one frame; an avail ring that cannot be is latched, and then left alone.
//
// class 15  DPDK 450539b47e, 6ec1778134, CVE-2020-14378, virtio-queue#236
// class 16  virtio-queue#196, CVE-2016-5403

import assert from 'node:assert/strict';
import { it } from 'node:test';
import {
  BROKEN_AVAIL_JUMP,
  BROKEN_HEAD,
  RING_BROKEN,
  RING_REASON,
  RING_STATE,
} from '../../src/abi/layout.ts';
import { overRings } from '../datapath/formats.ts';
import { frame, send } from '../datapath/frames.ts';
import type { SplitQueue } from '../datapath/queue-split.ts';
import { rig } from './guard.ts';
import { innocent, MODERN, refuses, type World, world } from './sender.ts';

const NEXT = 1;
const INDIRECT = 4;

/** The hostile ring, which is a split one. */
function splitWorld(): World<SplitQueue> {
  return world() as World<SplitQueue>;
}

overRings(rig, ['split'], 'hostile TX chains', () => {
  it('class 15: a chain that loops on itself', () => {
    const w = world();
    refuses('tx_bad_chain', w, [{ addr: w.good, len: 1, flags: NEXT, next: 0 }]);
  });

  it('class 15: a chain that loops after some descriptors', () => {
    const w = world();
    refuses('tx_bad_chain', w, [
      { addr: w.good, len: 76, flags: NEXT, next: 1 },
      { addr: w.good, len: 1, flags: NEXT, next: 2 },
      { addr: w.good, len: 0, flags: NEXT, next: 1 },
    ]);
  });

  it('class 15: a loop in a ring of 32768', () => {
    const w = world(MODERN, 32768);
    // Without empty descriptors scratch would run out first, and hide the loop.
    refuses('tx_bad_chain', w, [{ addr: w.good, len: 0, flags: NEXT, next: 0 }]);
  });

  it('class 15: a chain of 1025 descriptors, and not of 1024: walks are short on the longest ring', () => {
    const w = world(MODERN, 32768);
    const entries = (n: number) =>
      Array.from({ length: n }, (_, i) => ({
        addr: w.good + BigInt(i),
        len: 1,
        flags: i + 1 < n ? NEXT : 0,
        next: i + 1,
      }));
    w.tx.addRaw(entries(1024));
    w.tx.publish();
    rig.settle();
    assert.equal(w.sink.take()[0]?.frame.length, 1012);
    w.tx.used();
    refuses('tx_bad_chain', w, entries(1025), 1);
  });

  for (const next of [16, 17, 0x7fff, 0xffff]) {
    it(`class 15: next ${next} on a ring of 16`, () => {
      const w = world();
      refuses('tx_bad_chain', w, [{ addr: w.good, len: 76, flags: NEXT, next }]);
    });
  }

  it('class 15: next outside of an indirect table', () => {
    const w = world();
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76, flags: NEXT, next: 1 }]));
    refuses('tx_bad_chain', w, [{ addr: table, len: 16, flags: INDIRECT }]);
  });

  it('class 15: a loop in an indirect table', () => {
    const w = world();
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 0, flags: NEXT, next: 0 }]));
    refuses('tx_bad_chain', w, [{ addr: table, len: 16, flags: INDIRECT }]);
  });
});

overRings(rig, ['split'], 'hostile TX rings', () => {
  function latches(w: World<SplitQueue>, reason: number): void {
    rig.settle();
    assert.equal(w.tx.get(RING_STATE), RING_BROKEN);
    assert.equal(w.tx.get(RING_REASON), reason);
    assert.deepEqual(rig.latched, [w.tx.index]);
    // Latched is latched: nothing more is read or written, whatever the guest does.
    const used = w.tx.completed;
    const frames = w.tx.frames;
    send(w.tx, frame());
    w.tx.publish();
    rig.publish();
    rig.settle();
    assert.equal(w.tx.completed, used);
    assert.equal(w.tx.frames, frames);
    assert.equal(rig.latched.length, 1);
    innocent(w, true);
  }

  for (const head of [16, 17, 0x8000, 0xffff]) {
    it(`class 16: head ${head} on a ring of 16 latches it`, () => {
      const w = splitWorld();
      w.tx.post(head);
      w.tx.publish();
      latches(w, BROKEN_HEAD);
    });
  }

  it('class 16: a bad head behind good ones latches the ring before any of them is used', () => {
    const w = splitWorld();
    for (let i = 0; i < 5; i++) send(w.tx, frame());
    w.tx.post(99);
    w.tx.publish();
    latches(w, BROKEN_HEAD);
    assert.equal(w.tx.completed, 0);
  });

  for (const jump of [17, 18, 31, 32, 64, 0x7fff, 0x8000, 0xffff]) {
    it(`class 16: avail.idx ${jump} ahead on a ring of 16 latches it`, () => {
      const w = splitWorld();
      w.tx.publish(jump);
      latches(w, BROKEN_AVAIL_JUMP);
    });
  }

  it('class 16: avail.idx moved back latches the ring', () => {
    const w = splitWorld();
    send(w.tx, frame());
    w.tx.publish();
    rig.settle();
    w.sink.take();
    w.tx.publish(0);
    latches(w, BROKEN_AVAIL_JUMP);
  });

  it('class 16: one head posted many times at once comes back as often', () => {
    const w = splitWorld();
    w.tx.addRaw([{ addr: w.good, len: 76 }]);
    for (let i = 0; i < 15; i++) w.tx.post(0);
    w.tx.publish();
    assert.equal(rig.settle(), 16);
    assert.equal(w.tx.completed, 16);
    assert.equal(w.sink.take().length, 16);
  });
});
