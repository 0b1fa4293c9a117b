// Indices through 65535, and packed positions through their last slot, at every size (DPDK
// 38e6400387).

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { RING_LAST_AVAIL, RING_USED_IDX } from '../../src/abi/layout.ts';
import { WRAP } from '../../src/abi/virtio.ts';
import { MIXED, overRings } from '../datapath/formats.ts';
import { frame, Receiver, send } from '../datapath/frames.ts';
import { PackedQueue } from '../datapath/queue-packed.ts';
import { fresh, guarded, kick, rig } from './guard.ts';

const POWERS = Array.from({ length: 16 }, (_, i) => 1 << i);
const ODD = [3, 5, 7, 100, 257, 1000, 32767];

/** Where rings of a size start so that few frames take them past the end. */
function starts(packed: boolean, size: number): number[] {
  if (!packed) return [0xfffd, 0x7ffe, (0x1_0000 - 2 * size - 1) & 0xffff];
  const last = Math.max(size - 2, 0);
  return [last, last | WRAP, WRAP];
}

overRings(rig, MIXED, 'indices', (format) => {
  const [from, to] = format.includes(' to ') ? format.split(' to ') : [format, format];
  const both = from === 'packed' && to === 'packed';
  for (const size of both ? [...POWERS, ...ODD] : POWERS) {
    it(`class 17: a ring of ${size} goes through the end of its indices`, () => {
      for (const i of [0, 1, 2]) {
        fresh(0);
        const arena = 0x20_0000;
        const [a, b] = [guarded(undefined, arena), guarded(undefined, arena)];
        rig.wire(a, b);
        const tx = a.queue(1, { size, start: starts(from === 'packed', size)[i]! });
        const sink = new Receiver(b.queue(0, { size, start: starts(to === 'packed', size)[i]! }));
        let count = 0;
        let seed = 0;
        for (const burst of [1, 1, 2, 1, 3, 5, 1, 1, 4, 1]) {
          const sent = Array.from({ length: Math.min(burst, size) }, () =>
            frame({ length: 60, seed: seed++ }),
          );
          for (const bytes of sent) {
            sink.post([100]);
            assert.ok(send(tx, bytes) >= 0);
          }
          kick(sink.rx);
          kick(tx);
          assert.equal(rig.settle(), sent.length);
          assert.deepEqual(
            sink.take().map((got) => got.frame),
            sent,
          );
          count += sent.length;
          assert.deepEqual([tx.used().length, tx.free], [sent.length, size]);
          for (const queue of [tx, sink.rx]) {
            const position = queue.position(0);
            assert.equal(queue.get(RING_LAST_AVAIL), position);
            assert.equal(queue.get(RING_USED_IDX), position);
            if (queue instanceof PackedQueue) assert.ok((position & (WRAP - 1)) < size);
          }
        }
        assert.deepEqual([tx.drops, sink.rx.drops, rig.latched], [{}, {}, []]);
        assert.equal(tx.completed, count);
      }
    });
  }
});
