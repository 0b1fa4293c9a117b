// Our own driver against the device side, on the same ring.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DRV_ERRORS, DRV_FREE_COUNT, DRV_LEN } from '../../src/abi/driver.ts';
import { F_INDIRECT_DESC, F_VERSION_1, WRAP } from '../../src/abi/virtio.ts';
import { BOTH, overRings } from './formats.ts';
import { frame } from './frames.ts';
import { driverOn } from './queue.ts';
import { features, PLAIN, Rig } from './rig.ts';

const rig = new Rig();
const FLAGS = features(F_VERSION_1, F_INDIRECT_DESC);

/** The ring of a sender and the ring of its receiver. */
function world(acked: bigint, start: number, size: number) {
  rig.clear();
  const [a, b] = [rig.port({ features: acked }), rig.port({ features: acked })];
  rig.wire(a, b);
  return { tx: a.queue(1, { start, size }), rx: b.queue(0, { start, size }) };
}

overRings(rig, BOTH, 'our own driver', (format) => {
  it('wants kicks and gets calls exactly as the device side says', () => {
    for (const acked of [PLAIN, FLAGS]) {
      for (const start of format === 'packed' ? [WRAP] : [0, 0xfff0]) {
        const w = world(acked, start, 16);
        const tx = driverOn(w.tx, start);
        const rx = driverOn(w.rx, start);
        const { datapath } = rig;
        const list = rig.heap(64);
        const buffer = (queue: typeof w.tx, token: number) => queue.desc + 0x1_0000 + token * 256;
        let kicks = 0;
        let calls = 0;
        rig.settle();
        for (let i = 0; i < 100; i++) {
          const armed = i % 3 === 0;
          if (armed) datapath.armAll();
          if (i % 4 === 0) datapath.drvArm(rx);
          else datapath.drvDisarm(rx);
          rig.control.set(list, buffer(w.rx, i % 8));
          rig.control.set(list + 4, 256 | 0x8000_0000);
          assert.ok(datapath.drvAdd(rx, list, 1, i, 0) >= 0);
          datapath.drvPublish(rx);
          const bytes = frame({ seed: i });
          rig.bytes.fill(0, buffer(w.tx, i % 8), buffer(w.tx, i % 8) + 12);
          rig.bytes.set(bytes, buffer(w.tx, i % 8) + 12);
          rig.control.set(list, buffer(w.tx, i % 8));
          rig.control.set(list + 4, 76);
          assert.ok(datapath.drvAdd(tx, list, 1, i, i & 1) >= 0);
          const kick = datapath.drvPublish(tx);
          assert.equal(kick !== 0, armed, `kick ${i}`);
          if (kick) datapath.activate(w.tx.index);
          kicks += kick ? 1 : 0;
          const before = rig.calls.length;
          rig.settle();
          const called = rig.calls.slice(before).includes(w.rx.index);
          // With EVENT_IDX the stale event of an earlier arming is passed only once.
          assert.equal(called, i % 4 === 0, `call ${i}`);
          calls += called ? 1 : 0;
          assert.equal(datapath.drvPop(tx), i);
          assert.equal(datapath.drvPop(rx), i);
          assert.equal(rig.control.get(rx + DRV_LEN), 76);
          const at = buffer(w.rx, i % 8);
          assert.deepEqual(new Uint8Array(rig.bytes.slice(at + 12, at + 76)), bytes);
          assert.equal(datapath.drvPop(rx), -1);
        }
        assert.equal(kicks, 34);
        assert.equal(calls, 25);
      }
    }
  });
});

describe('our own driver of a split ring', () => {
  it('counts a used id that names nothing, and one used twice', () => {
    const w = world(FLAGS, 0, 16);
    const tx = driverOn(w.tx);
    const list = rig.heap(64);
    rig.control.set(list, w.tx.desc);
    rig.control.set(list + 4, 10);
    rig.datapath.drvAdd(tx, list, 1, 7, 0);
    const use = (idx: number, id: number) => {
      rig.view.setUint32(w.tx.usedRing + 4 + (idx & 15) * 8, id, true);
      rig.view.setUint16(w.tx.usedRing + 2, idx + 1, true);
      return rig.datapath.drvPop(tx);
    };
    assert.equal(use(0, 99), -1);
    assert.equal(use(1, 3), -1);
    assert.equal(use(2, 0), 7);
    assert.equal(use(3, 0), -1);
    assert.equal(rig.control.get(tx + DRV_ERRORS), 3);
  });

  it('keeps all descriptors over random chains given back in any order', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 6 }), fc.boolean(), fc.nat()), {
          maxLength: 200,
        }),
        (steps) => {
          const w = world(FLAGS, 0, 32);
          const drv = driverOn(w.tx);
          const list = rig.heap(64);
          const heads = new Map<number, { token: number; takes: number }>();
          let usedIdx = 0;
          let free = 32;
          const giveBack = (pick: number) => {
            const [head, { token, takes }] = [...heads][pick % heads.size]!;
            heads.delete(head);
            rig.view.setUint32(w.tx.usedRing + 4 + (usedIdx & 31) * 8, head, true);
            usedIdx = (usedIdx + 1) & 0xffff;
            rig.view.setUint16(w.tx.usedRing + 2, usedIdx, true);
            assert.equal(rig.datapath.drvPop(drv), token);
            free += takes;
          };
          for (const [i, [n, indirect, pick]] of steps.entries()) {
            const takes = indirect ? 1 : n;
            const head = rig.datapath.drvAdd(drv, list, n, i, indirect ? 1 : 0);
            assert.equal(head >= 0, takes <= free);
            if (head >= 0) {
              assert.ok(!heads.has(head));
              heads.set(head, { token: i, takes });
              free -= takes;
            }
            if (heads.size > 0 && pick % 3 === 0) giveBack(pick);
            assert.equal(rig.control.get(drv + DRV_FREE_COUNT), free);
          }
          while (heads.size > 0) giveBack(1);
          assert.equal(rig.control.get(drv + DRV_FREE_COUNT), 32);
          // All are really there: a chain of all of them can be made.
          assert.ok(rig.datapath.drvAdd(drv, rig.heap(32 * 8), 32, 1, 0) >= 0);
        },
      ),
      { numRuns: 60 },
    );
  });
});
