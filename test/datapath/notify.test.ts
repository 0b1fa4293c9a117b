// Calls and kicks: exactly when need_event says so (virtio 1.2 §2.7.10), or the flags do.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DRV_ERRORS, DRV_FREE_COUNT, DRV_LEN } from '../../src/abi/driver.ts';
import {
  RING_ARMED,
  RING_BASE,
  RING_CALLS,
  RING_KICKS,
  RING_STRIDE,
} from '../../src/abi/layout.ts';
import { F_INDIRECT_DESC, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { frame, Receiver, send } from './frames.ts';
import { driverOn, needEvent } from './queue.ts';
import { features, PLAIN, Rig } from './rig.ts';

const rig = new Rig();
const FLAGS = features(F_VERSION_1, F_INDIRECT_DESC);

function world(acked: bigint, start = 0, size = 256) {
  rig.clear();
  const [a, b] = [rig.port({ features: acked }), rig.port({ features: acked })];
  rig.wire(a, b);
  const tx = a.queue(1, { start, size });
  return { tx, sink: new Receiver(b.queue(0, { start, size })) };
}

/** Sends and receives `n` frames in one burst; returns which rings were called. */
function burst({ tx, sink }: ReturnType<typeof world>, n: number): number[] {
  const before = rig.calls.length;
  for (let i = 0; i < n; i++) send(tx, frame());
  sink.fill(n, 100);
  tx.publish();
  rig.settle();
  assert.equal(tx.used().length, n);
  assert.equal(sink.take().length, n);
  return rig.calls.slice(before);
}

describe('calls', () => {
  it('with EVENT_IDX, exactly when the used index passes the event', () => {
    let called = 0;
    let quiet = 0;
    fc.assert(
      fc.property(
        fc.nat({ max: 0xffff }),
        fc.array(
          fc.record({
            n: fc.integer({ min: 1, max: 30 }),
            tx: fc.integer({ min: -40, max: 40 }),
            rx: fc.integer({ min: -40, max: 40 }),
          }),
          { minLength: 1, maxLength: 30 },
        ),
        (start, bursts) => {
          const w = world(PLAIN, start);
          const rings = [
            { queue: w.tx, delta: 'tx' },
            { queue: w.sink.rx, delta: 'rx' },
          ] as const;
          let first = true;
          for (const one of bursts) {
            const old = w.tx.usedIdx;
            const now = (old + one.n) & 0xffff;
            const expected = rings.flatMap(({ queue, delta }) => {
              const event = (old + one[delta]) & 0xffff;
              queue.askCall(true, event);
              // The first check of a ring has nothing to compare with: it always calls.
              return first || needEvent(event, now, old) ? [queue.index] : [];
            });
            const calls = burst(w, one.n);
            assert.deepEqual([...calls].sort(), [...expected].sort());
            called += calls.length;
            quiet += 2 - calls.length;
            first = false;
          }
        },
      ),
      { numRuns: 100 },
    );
    assert.ok(called > 300 && quiet > 300, `${called} calls, ${quiet} without`);
  });

  it('with flags, unless NO_INTERRUPT is set', () => {
    const w = world(FLAGS);
    for (const [tx, rx] of [
      [true, true],
      [false, true],
      [true, false],
      [false, false],
      [true, true],
    ]) {
      w.tx.askCall(tx!);
      w.sink.rx.askCall(rx!);
      const expected = [...(rx ? [w.sink.rx.index] : []), ...(tx ? [w.tx.index] : [])];
      // The receiver first: its buffers are used before the sender's are given back.
      assert.deepEqual(burst(w, 5), expected);
    }
    const block = RING_BASE + w.tx.index * RING_STRIDE;
    assert.equal(rig.control.counter(block + RING_CALLS), 3);
  });

  it('one call a burst, however many frames', () => {
    const w = world(FLAGS);
    assert.equal(burst(w, 64).length, 2);
  });

  it('the first burst after a start always calls, later ones follow the event', () => {
    for (const start of [0, 1, 0x7fff, 0xffff]) {
      const w = world(PLAIN, start);
      for (const queue of [w.tx, w.sink.rx]) queue.askCall(true, (start + 0x4000) & 0xffff);
      assert.equal(burst(w, 1).length, 2);
      assert.equal(burst(w, 1).length, 0);
    }
  });
});

describe('kicks', () => {
  it('none is asked for while the ring is polled; exactly one when it is armed', () => {
    for (const acked of [PLAIN, FLAGS]) {
      for (const start of [0, 1000, 0xffff]) {
        const w = world(acked, start);
        rig.settle();
        // The first kicks cannot be suppressed: a fresh ring's event is 0, wherever it starts.
        send(w.tx, frame());
        send(w.tx, frame());
        w.tx.publish();
        rig.settle();
        w.tx.used();
        for (let round = 0; round < 5; round++) {
          send(w.tx, frame());
          assert.equal(w.tx.publish(), false, `round ${round}: busy, no kick`);
          rig.settle();
          assert.equal(rig.datapath.armAll(), 0);
          assert.equal(w.tx.get(RING_ARMED), 1);
          assert.equal(rig.datapath.activeRings(), 0);
          send(w.tx, frame());
          assert.equal(w.tx.publish(), true, `round ${round}: armed, a kick`);
          // Without the kick nobody looks.
          assert.equal(rig.settle(), 0);
          rig.datapath.activate(w.tx.index);
          assert.equal(rig.datapath.activeRings(), 1);
          assert.equal(rig.settle(), 1);
          w.tx.used();
        }
      }
    }
  });

  it('a frame published before arming keeps the ring active', () => {
    const w = world(PLAIN);
    rig.settle();
    send(w.tx, frame());
    w.tx.publish();
    assert.equal(rig.datapath.armAll(), 1);
    assert.equal(rig.settle(), 1);
  });

  it('a spurious kick, or one for a ring that is not there, changes nothing', () => {
    const w = world(PLAIN);
    rig.settle();
    rig.datapath.activate(w.tx.index);
    rig.datapath.activate(w.tx.index);
    assert.equal(rig.datapath.activeRings(), 1);
    rig.datapath.activate(w.sink.rx.index);
    rig.datapath.activate(4095);
    rig.datapath.activate(4096);
    rig.datapath.activate(0xffff_ffff);
    assert.equal(rig.datapath.activeRings(), 1);
    rig.datapath.armAll();
    rig.datapath.activate(w.tx.index);
    rig.datapath.activate(w.tx.index);
    assert.equal(rig.datapath.activeRings(), 1);
    assert.equal(w.tx.get(RING_KICKS), 0);
  });

  it('an idle ring is armed by itself while another keeps the worker busy', () => {
    rig.clear();
    const [a, b, c] = [rig.port(), rig.port(), rig.port()];
    const [busy, idle] = [a.queue(1), b.queue(1)];
    const sink = new Receiver(c.queue(0));
    for (let i = 0; i < 600; i++) {
      send(busy, frame());
      busy.publish();
      rig.datapath.poll();
      busy.used();
      sink.take();
    }
    assert.equal(idle.get(RING_ARMED), 1);
    assert.equal(busy.get(RING_ARMED), 0);
    assert.equal(rig.datapath.activeRings(), 1);
  });
});

describe('our own driver', () => {
  it('wants kicks and gets calls exactly as the device side says', () => {
    for (const acked of [PLAIN, FLAGS]) {
      for (const start of [0, 0xfff0]) {
        const w = world(acked, start, 16);
        const tx = driverOn(w.tx, start);
        const rx = driverOn(w.sink.rx, start);
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
          rig.control.set(list, buffer(w.sink.rx, i % 8));
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
          const called = rig.calls.slice(before).includes(w.sink.rx.index);
          // With EVENT_IDX the stale event of an earlier arming is passed only once.
          assert.equal(called, i % 4 === 0, `call ${i}`);
          calls += called ? 1 : 0;
          assert.equal(datapath.drvPop(tx), i);
          assert.equal(datapath.drvPop(rx), i);
          assert.equal(rig.control.get(rx + DRV_LEN), 76);
          const at = buffer(w.sink.rx, i % 8);
          assert.deepEqual(new Uint8Array(rig.bytes.slice(at + 12, at + 76)), bytes);
          assert.equal(datapath.drvPop(rx), -1);
        }
        assert.equal(kicks, 34);
        assert.equal(calls, 25);
      }
    }
  });

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
