// Floods, and peers that hardly receive (CVE-2019-3900, CVE-2020-16843, CVE-2015-7295,
// CVE-2021-28714/28715): memory is what it was, others get their share, receiving resumes.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { MIXED, overRings } from '../datapath/formats.ts';
import { BROADCAST, frame, mac, Receiver, send } from '../datapath/frames.ts';
import type { TestQueue } from '../datapath/queue.ts';
import { PLAIN } from '../datapath/rig.ts';
import { kick, rig, watch } from './guard.ts';
import * as receiver from './receiver.ts';
import { MODERN, world } from './sender.ts';

/** Keeps a hostile sender's ring full of the same frame; returns how many it got back. */
function refill(tx: TestQueue, addr: bigint, len: number): number {
  const back = tx.used().length;
  while (tx.free > 0) tx.add([{ addr, len }]);
  kick(tx);
  return back;
}

overRings(rig, MIXED, 'floods', () => {
  for (const [what, len] of [
    ['small frames', 76],
    ['long frames', 1526],
    ['nothing but drops', 5],
  ] as const) {
    it(`class 27: a flood of ${what}: who shares the worker gets a burst a round all the same`, () => {
      const w = world(MODERN, 256);
      const other = rig.ports[2]!.queues[1]!;
      const sink = new Receiver(w.sink.rx.port.queue(0)).fill(256, 1600);
      let flooded = 0;
      let sent = 0;
      let back = 0;
      let polls = 0;
      for (let round = 0; round < 20; round++) {
        flooded += refill(w.tx, w.good, len);
        const bytes = frame({ from: mac(3), to: mac(9), seed: round });
        for (let i = 0; i < 4; i++) send(other, bytes);
        kick(other);
        sent += 4;
        // At most so many looks of a worker that moves as much as it can.
        watch(() => {
          for (let i = 0; i < 16; i++, polls++) rig.datapath.poll();
        });
        back += other.used().length;
        assert.ok(sent - back <= 8, `round ${round}: ${sent - back} frames wait`);
        const got = sink.take();
        sink.fill(
          got.reduce((sum, one) => sum + one.buffers, 0),
          1600,
        );
      }
      assert.ok(flooded > 500, `${flooded} is no flood`);
      assert.ok(w.tx.frames <= polls * 64, 'more than a burst a poll');
      assert.deepEqual([other.drops, rig.latched], [{}, []]);
    });
  }

  it('class 27: a peer that never posts: each frame counted, none kept, and it resumes', () => {
    const w = receiver.world(PLAIN, 64);
    for (let round = 1; round <= 20; round++) {
      receiver.broadcast(w, 10);
      assert.deepEqual(w.rx.drops, { rx_full: round * 10 });
      w.good.fill(10);
    }
    const sink = new Receiver(w.rx).fill(20);
    // Nothing of what was sent before comes late.
    assert.equal(rig.settle(), 0);
    assert.deepEqual(sink.take(), []);
    const sent = receiver.broadcast(w, 10);
    assert.deepEqual(
      sink.take().map((got) => got.frame),
      sent,
    );
  });

  it('class 27: a peer with one free buffer at a time gets one frame of each burst, in order', () => {
    const w = receiver.world(PLAIN, 64);
    const sink = new Receiver(w.rx);
    for (let round = 1; round <= 40; round++) {
      sink.fill(1);
      const sent = receiver.broadcast(w, 6);
      assert.deepEqual(
        sink.take().map((got) => got.frame),
        [sent[0]],
      );
      assert.deepEqual(w.rx.drops, { rx_full: round * 5 });
      w.good.fill(6);
    }
    assert.equal(w.rx.frames, 40);
  });

  it('class 27: a peer that is full does not keep a burst from the others', () => {
    const w = receiver.world(PLAIN, 2);
    const sink = new Receiver(w.rx).fill(2);
    const frames = Array.from({ length: 64 }, (_, i) => frame({ to: BROADCAST, seed: i }));
    for (const bytes of frames) send(w.tx, bytes);
    kick(w.tx);
    assert.equal(rig.settle(), 64);
    assert.deepEqual(
      w.good.take().map((got) => got.frame),
      frames,
    );
    assert.equal(sink.take().length, 2);
    assert.deepEqual(w.rx.drops, { rx_full: 62 });
    assert.equal(w.tx.used().length, 64);
  });
});
