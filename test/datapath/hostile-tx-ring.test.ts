// Avail rings a hostile guest may write: what cannot be is latched, and then left alone.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BROKEN_AVAIL_JUMP,
  BROKEN_HEAD,
  RING_BROKEN,
  RING_REASON,
  RING_STATE,
} from '../../src/abi/layout.ts';
import { frame, send } from './frames.ts';
import { innocent, rig, type World, world } from './hostile.ts';

describe('hostile TX rings', () => {
  function latches(w: World, reason: number): void {
    rig.settle();
    assert.equal(w.tx.get(RING_STATE), RING_BROKEN);
    assert.equal(w.tx.get(RING_REASON), reason);
    assert.deepEqual(rig.latched, [w.tx.index]);
    // Latched is latched: nothing more is read or written, whatever the guest does.
    const used = w.tx.usedIdx;
    const frames = w.tx.frames;
    send(w.tx, frame());
    w.tx.publish();
    rig.publish();
    rig.settle();
    assert.equal(w.tx.usedIdx, used);
    assert.equal(w.tx.frames, frames);
    assert.equal(rig.latched.length, 1);
    innocent(w, true);
  }

  for (const head of [16, 17, 0x8000, 0xffff]) {
    it(`head ${head} on a ring of 16 latches it`, () => {
      const w = world();
      w.tx.post(head);
      w.tx.publish();
      latches(w, BROKEN_HEAD);
    });
  }

  it('a bad head behind good ones latches the ring before any of them is used', () => {
    const w = world();
    for (let i = 0; i < 5; i++) send(w.tx, frame());
    w.tx.post(99);
    w.tx.publish();
    latches(w, BROKEN_HEAD);
    assert.equal(w.tx.usedIdx, 0);
  });

  for (const jump of [17, 18, 31, 32, 64, 0x7fff, 0x8000, 0xffff]) {
    it(`avail.idx ${jump} ahead on a ring of 16 latches it`, () => {
      const w = world();
      w.tx.publish(jump);
      latches(w, BROKEN_AVAIL_JUMP);
    });
  }

  it('avail.idx moved back latches the ring', () => {
    const w = world();
    send(w.tx, frame());
    w.tx.publish();
    rig.settle();
    w.sink.take();
    w.tx.publish(0);
    latches(w, BROKEN_AVAIL_JUMP);
  });

  it('one head posted many times at once comes back as often', () => {
    const w = world();
    w.tx.addRaw([{ addr: w.good, len: 76 }]);
    for (let i = 0; i < 15; i++) w.tx.post(0);
    w.tx.publish();
    assert.equal(rig.settle(), 16);
    assert.equal(w.tx.usedIdx, 16);
    assert.equal(w.sink.take().length, 16);
  });
});
