// Calls and kicks: exactly when need_event says so (virtio 1.2 §2.7.10, §2.8.10), or the flags do.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import {
  RING_ARMED,
  RING_BASE,
  RING_CALLS,
  RING_KICKS,
  RING_STRIDE,
} from '../../src/abi/layout.ts';
import { F_INDIRECT_DESC, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { BOTH, overRings } from './formats.ts';
import { frame, Receiver, send } from './frames.ts';
import type { TestQueue } from './queue.ts';
import { PackedQueue, passes } from './queue-packed.ts';
import { needEvent } from './queue-split.ts';
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

/**
 * Sends and receives `n` frames in one burst, chains of `parts` descriptors each way; returns which
 * rings were called.
 */
function burst({ tx, sink }: ReturnType<typeof world>, n: number, parts = 1): number[] {
  const before = rig.calls.length;
  const cuts = Array.from({ length: parts - 1 }, (_, i) => 20 + i);
  for (let i = 0; i < n; i++) {
    send(tx, frame(), { cuts });
    sink.post(Array(parts).fill(100));
  }
  sink.rx.publish();
  tx.publish();
  rig.settle();
  assert.equal(tx.used().length, n);
  assert.equal(sink.take().length, n);
  return rig.calls.slice(before);
}

/** Where a driver asks for a call, from where it is: mostly within the next burst or two. */
const ahead = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: -20, max: 60 }) },
  { weight: 1, arbitrary: fc.integer({ min: -300, max: 300 }) },
);

/** Whether the next `n` chains of `parts` descriptors pass `event`. */
function expects(queue: TestQueue, event: number, n: number, parts: number): boolean {
  if (queue instanceof PackedQueue) {
    return passes(event, queue.position(0), n * parts, queue.size);
  }
  return needEvent(event, queue.position(n), queue.position(0));
}

overRings(rig, BOTH, 'calls', (format) => {
  it('with EVENT_IDX, exactly when the used position passes the event', () => {
    let called = 0;
    let quiet = 0;
    fc.assert(
      fc.property(
        fc.nat({ max: 0xffff }),
        format === 'packed' ? fc.constantFrom(90, 91, 127, 300, 32768) : fc.constantFrom(128, 256),
        fc.array(
          fc.record({
            n: fc.integer({ min: 1, max: 30 }),
            parts: fc.integer({ min: 1, max: 3 }),
            tx: ahead,
            rx: ahead,
          }),
          { minLength: 1, maxLength: 30 },
        ),
        (start, size, bursts) => {
          const w = world(PLAIN, start, size);
          const rings = [
            { queue: w.tx, delta: 'tx' },
            { queue: w.sink.rx, delta: 'rx' },
          ] as const;
          let first = true;
          for (const one of bursts) {
            const expected = rings.flatMap(({ queue, delta }) => {
              const event = queue.position(one[delta]);
              queue.askCall(true, event);
              // The first check of a ring has nothing to compare with: it always calls.
              return first || expects(queue, event, one.n, one.parts) ? [queue.index] : [];
            });
            const calls = burst(w, one.n, one.parts);
            assert.deepEqual([...calls].sort(), [...expected].sort());
            called += calls.length;
            quiet += 2 - calls.length;
            first = false;
          }
        },
      ),
      { numRuns: 100 },
    );
    assert.ok(called > 200 && quiet > 200, `${called} calls, ${quiet} without`);
  });

  it('with flags, unless they say not to', () => {
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

  it('a full ring in one burst passes every event of the lap, and none of the next', () => {
    for (const size of format === 'packed' ? [2, 3, 33] : [2, 32]) {
      for (const start of [0, 0xffff]) {
        for (let ahead = 0; ahead < 2 * size; ahead++) {
          const w = world(PLAIN, start, size);
          burst(w, 1);
          for (const queue of [w.tx, w.sink.rx]) queue.askCall(true, queue.position(ahead));
          assert.equal(burst(w, size).length, ahead < size ? 2 : 0, `${size} ${start} ${ahead}`);
        }
      }
    }
  });

  it('the first burst after a start always calls, later ones follow the event', () => {
    for (const start of [0, 1, 0x7fff, 0xffff]) {
      const w = world(PLAIN, start);
      for (const queue of [w.tx, w.sink.rx]) queue.askCall(true, queue.position(200));
      assert.equal(burst(w, 1).length, 2);
      assert.equal(burst(w, 1).length, 0);
    }
  });
});

overRings(rig, BOTH, 'kicks', () => {
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
