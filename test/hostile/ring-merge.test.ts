// Mergeable receive buffers run short (CVE-2026-74356, CVE-2018-16880, CVE-2021-3748 and the leak of its
// fix, CVE-2022-26353): what was taken goes back, num_buffers is there before the frame is.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { DESC_F_NEXT, DESC_F_WRITE } from '../../src/abi/virtio.ts';
import { BOTH, overRings } from '../datapath/formats.ts';
import { BROADCAST, frame, Receiver, send } from '../datapath/frames.ts';
import type { SplitQueue } from '../datapath/queue-split.ts';
import { PLAIN } from '../datapath/rig.ts';
import { kick, rig } from './guard.ts';
import { broadcast, world } from './receiver.ts';

overRings(rig, BOTH, 'merged receive buffers', (format) => {
  it('class 22: short by any number of buffers, nothing is taken; with them the frame fits', () => {
    for (let have = 0; have < 5; have++) {
      const w = world(PLAIN, 64);
      const sink = new Receiver(w.rx).fill(have, 300);
      for (let i = 1; i <= 3; i++) {
        broadcast(w, 1, 1400);
        assert.deepEqual(w.rx.drops, { rx_full: i });
        assert.equal(w.rx.completed, 0);
        sink.checkPosted();
      }
      sink.fill(5 - have, 300);
      const [sent] = broadcast(w, 1, 1400);
      const [got] = sink.take();
      assert.deepEqual([got?.frame, got?.buffers], [sent, 5]);
      assert.equal(w.rx.outstanding.size, 0);
    }
  });

  it('class 22: a burst goes on with what fits behind a frame that does not', () => {
    const w = world(PLAIN, 64);
    const sink = new Receiver(w.rx).fill(4, 300);
    const sent = [1400, 100, 2000, 200].map((length, i) =>
      frame({ to: BROADCAST, length, seed: i }),
    );
    for (const bytes of sent) send(w.tx, bytes);
    kick(w.tx);
    assert.equal(rig.settle(), 4);
    assert.deepEqual(
      sink.take().map((got) => got.frame),
      [sent[1], sent[3]],
    );
    assert.deepEqual(w.rx.drops, { rx_full: 2 });
    assert.equal(w.rx.outstanding.size, 2);
    sink.checkPosted();
    w.good.take();
    w.tx.used();
  });

  it('class 22: when the guest is called, each frame is there whole, num_buffers first of all', () => {
    const w = world(PLAIN, 64);
    const sink = new Receiver(w.rx).fill(40, 300);
    const sent = [100, 290, 1400, 60, 2800, 280].map((length, i) =>
      frame({ to: BROADCAST, length, seed: i }),
    );
    let seen: { frame: Uint8Array; buffers: number }[] = [];
    rig.onCall = (ring) => {
      if (ring === w.rx.index) seen = sink.take().map(({ frame, buffers }) => ({ frame, buffers }));
    };
    for (const bytes of sent) send(w.tx, bytes);
    kick(w.tx);
    assert.equal(rig.settle(), 6);
    rig.onCall = () => {};
    assert.deepEqual(
      seen,
      sent.map((bytes) => ({ frame: bytes, buffers: Math.ceil((bytes.length + 12) / 300) })),
    );
    // And the sender's buffers were not given back before.
    assert.deepEqual(
      rig.calls.filter((ring) => ring === w.rx.index || ring === w.tx.index),
      [w.rx.index, w.tx.index],
    );
    w.good.take();
    w.tx.used();
  });

  it('class 22: a frame of more buffers than are ever looked at costs itself, and no buffer', () => {
    const w = world(PLAIN, 1024);
    const sink = new Receiver(w.rx).fill(600, 20);
    broadcast(w, 1, 256 * 20 - 11);
    assert.deepEqual(w.rx.drops, { rx_too_small: 1 });
    assert.equal(w.rx.completed, 0);
    sink.checkPosted();
    const [sent] = broadcast(w, 1, 100);
    assert.deepEqual(sink.take()[0]?.frame, sent);
  });

  it('class 22: of a ring retired in a long burst nothing was used, however much was written', () => {
    // More buffers than are gathered ahead: their used entries are written while the burst goes on.
    const w = world(PLAIN, 2048);
    for (let i = 0; i < 400; i++) w.rx.add([{ addr: w.room, len: 100, write: true }]);
    if (format === 'split') (w.rx as SplitQueue).post(2048);
    else
      w.rx.addRaw(Array(1025).fill({ addr: w.room, len: 100, flags: DESC_F_WRITE | DESC_F_NEXT }));
    w.rx.publish();
    broadcast(w, 40, 1500);
    assert.deepEqual([w.rx.frames, w.rx.drops], [0, { rx_down: 40 }]);
    assert.equal(w.rx.completed, 0);
    assert.deepEqual(rig.latched, [w.rx.index]);
  });
});
