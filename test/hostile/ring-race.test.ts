// Rings rewritten by a second thread while the datapath works on them: NEXT, lengths, addresses, heads
// and ids change between any two looks. Whatever it does, nobody else notices.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { it } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  BROKEN_AVAIL_JUMP,
  BROKEN_CHAIN,
  BROKEN_HEAD,
  BROKEN_ID,
  BROKEN_NONE,
  RING_BROKEN,
  RING_LAST_AVAIL,
  RING_REASON,
  RING_RUNNING,
  RING_STATE,
  RING_USED_IDX,
} from '../../src/abi/layout.ts';
import { BOTH, FORMATS, overRings } from '../datapath/formats.ts';
import { BROADCAST, frame, mac, Receiver, send } from '../datapath/frames.ts';
import type { TestQueue } from '../datapath/queue.ts';
import { gpaOf } from '../datapath/rig.ts';
import { fresh, guarded, kick, rig, watch } from './guard.ts';
import type { Rewrites } from './rewriter.ts';

/** At least so many bursts, and more until enough was seen; the latter is a matter of luck. */
const ROUNDS = 150;
const MOST = 100_000;

overRings(rig, BOTH, 'rings rewritten by another thread', (format) => {
  const packed = format === 'packed';
  for (const size of packed ? [7, 256] : [8, 256]) {
    it(`class 19: both rings of a guest, size ${size}`, { timeout: 120_000 }, async (t) => {
      fresh(0);
      const bad = guarded();
      rig.packed = FORMATS.split;
      const [from, to] = [guarded(), guarded()];
      rig.packed = FORMATS[format];
      const rings = [bad.queue(0, { size }), bad.queue(1, { size })];
      const tx = from.queue(1);
      from.queue(0);
      const sink = new Receiver(to.queue(0, { size: 1024 })).fill(1024, 512);
      const at = bad.alloc(8192, 16);
      const stop = new SharedArrayBuffer(4);
      const data: Rewrites = {
        memory: rig.control.memory.buffer as SharedArrayBuffer,
        packed,
        rings: rings.map(({ desc, avail, usedRing: used }, i) => ({
          ...{ desc, avail, used, size, rx: i === 0 },
        })),
        buffers: [bad.gpa(at), bad.gpa(at), bad.gpa(at + 4096), bad.gpa(at + 4000)],
        others: [...rings.map(({ desc }) => bad.gpa(desc)), 0n, gpaOf(2), (1n << 64n) - 8n],
        stop,
      };
      const thread = new Worker(new URL('rewriter.ts', import.meta.url), { workerData: data });
      t.after(() => thread.terminate());
      await once(thread, 'message');
      const [rx, own] = rings as [TestQueue, TestQueue];
      const enough = () =>
        Math.min(rx.frames, own.frames, rx.drops['rx_bad_chain'] ?? 0, own.dropped) > 50;
      let round = 0;
      for (; round < ROUNDS || (round < MOST && !enough()); round++) {
        // To all, so that every burst goes to the bad guest too.
        const bytes = frame({ to: BROADCAST, from: mac(7), length: 200, seed: round });
        for (let i = 0; i < 4; i++) send(tx, bytes);
        kick(tx);
        watch(() => {
          rig.datapath.activate(own.index);
          for (let i = 0; i < 12; i++) rig.datapath.poll();
        });
        assert.equal(tx.used().length, 4, `round ${round}`);
        const got = sink.take();
        const buffers = got.reduce((sum, one) => sum + one.buffers, 0);
        sink.fill(buffers + sink.empty, 512);
        sink.empty = 0;
        // What the bad guest sends arrives as well, and may be what it was sent.
        const ours = got.filter((one) => Buffer.compare(one.frame, bytes) === 0);
        assert.ok(ours.length >= 4, `round ${round}: ${ours.length}`);
        for (const ring of rings) {
          if (ring.get(RING_STATE) !== RING_BROKEN) continue;
          const reasons = packed ? [BROKEN_CHAIN, BROKEN_ID] : [BROKEN_AVAIL_JUMP, BROKEN_HEAD];
          assert.ok(reasons.includes(ring.get(RING_REASON)), `reason ${ring.get(RING_REASON)}`);
          revive(ring, packed);
        }
      }
      Atomics.store(new Int32Array(stop), 0, 1);
      await once(thread, 'exit');
      assert.deepEqual([tx.drops, sink.rx.drops], [{}, {}]);
      const seen = JSON.stringify([rx.frames, rx.drops, own.frames, own.drops]);
      assert.ok(enough(), `after ${round} rounds: ${seen}`);
    });
  }
});

/** What a new start of the ring does. */
function revive(ring: TestQueue, packed: boolean): void {
  if (!packed) {
    const used = rig.view.getUint16(ring.usedRing + 2, true);
    ring.set(RING_LAST_AVAIL, used);
    ring.set(RING_USED_IDX, used);
  }
  ring.set(RING_REASON, BROKEN_NONE);
  ring.set(RING_STATE, RING_RUNNING);
  rig.publish();
}
