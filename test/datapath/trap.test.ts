// The last net: a trap costs the ring that was worked on, and nothing else.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BROKEN_TRAP,
  NO_RING,
  RING_AVAIL,
  RING_BROKEN,
  RING_DESC,
  RING_LOCK,
  RING_REASON,
  RING_STATE,
  RING_USED,
  SWITCH_WORKERS,
  WORKER_BASE,
  WORKER_CURRENT,
  WORKER_LOCKED,
} from '../../src/abi/layout.ts';
import { frame, mac, Receiver, send } from './frames.ts';
import { Rig } from './rig.ts';

const rig = new Rig();
/** The last bytes of linear memory: what is read from here on runs out of it. */
const END = 2 ** 32 - 2;

/** Polls as a worker does; returns the traps. */
function poll(rounds: number): number {
  let traps = 0;
  for (let i = 0; i < rounds; i++) {
    try {
      rig.datapath.poll();
    } catch (error) {
      assert.ok(error instanceof WebAssembly.RuntimeError);
      traps++;
      rig.datapath.recover();
    }
  }
  return traps;
}

/** Ports 0 and 1 send to port 2; port 0's ring is listed, and polled, first. */
function world() {
  rig.clear();
  const [bad, good, to] = [rig.port(), rig.port(), rig.port()];
  const sink = new Receiver(to.queue(0)).fill(100);
  return { bad: bad.queue(1), good: good.queue(1), sink };
}

function traffic(w: ReturnType<typeof world>): void {
  send(w.bad, frame({ to: mac(9), from: mac(1) }));
  send(w.good, frame({ to: mac(9), from: mac(2) }));
  w.bad.publish();
  w.good.publish();
}

for (const workers of [1, 2]) {
  describe(`traps with ${workers} worker${workers > 1 ? 's' : ''}`, () => {
    it('a TX ring whose descriptors are out of memory: latched, once; others go on', () => {
      const w = world();
      rig.control.set(SWITCH_WORKERS, workers);
      w.bad.set(RING_DESC, END);
      traffic(w);
      assert.equal(poll(40), 1);
      assert.equal(w.bad.get(RING_STATE), RING_BROKEN);
      assert.equal(w.bad.get(RING_REASON), BROKEN_TRAP);
      assert.deepEqual(rig.latched, [w.bad.index]);
      assert.equal(w.sink.take().length, 1);
    });

    it('a latched ring with a full burst waiting is not polled again', () => {
      const w = world();
      rig.control.set(SWITCH_WORKERS, workers);
      for (let i = 0; i < 63; i++) send(w.bad, frame({ to: mac(9), from: mac(1) }));
      w.bad.set(RING_DESC, END);
      traffic(w);
      assert.equal(poll(40), 1);
      assert.deepEqual(rig.latched, [w.bad.index]);
      assert.equal(w.sink.take().length, 1);
    });

    it('a TX ring whose used ring is out of memory: the receiver is not to blame', () => {
      const w = world();
      rig.control.set(SWITCH_WORKERS, workers);
      traffic(w);
      poll(5);
      w.bad.set(RING_USED, END);
      poll(40);
      assert.deepEqual(rig.latched, [w.bad.index]);
      assert.equal(w.bad.get(RING_STATE), RING_BROKEN);
      // Its frame had been delivered already when the trap came.
      assert.equal(w.sink.take().length, 2);
    });

    it('an RX ring whose used ring is out of memory: the sender is not to blame', () => {
      const w = world();
      rig.control.set(SWITCH_WORKERS, workers);
      const { rx } = w.sink;
      rx.set(RING_USED, END);
      traffic(w);
      assert.equal(poll(40), 1);
      assert.deepEqual(rig.latched, [rx.index]);
      assert.equal(rx.get(RING_STATE), RING_BROKEN);
      assert.equal(rx.get(RING_LOCK), 0);
      assert.equal(rig.control.get(WORKER_BASE + WORKER_LOCKED), NO_RING);
      assert.equal(rig.control.get(WORKER_BASE + WORKER_CURRENT), NO_RING);
      // Both senders get their buffers back; frames that met the latch are counted.
      assert.equal(w.bad.used().length, 1);
      assert.equal(w.good.used().length, 1);
      assert.ok(rx.drops['rx_down']! >= 1);
    });

    it('an RX ring whose avail ring is out of memory', () => {
      const w = world();
      rig.control.set(SWITCH_WORKERS, workers);
      w.sink.rx.set(RING_AVAIL, END);
      traffic(w);
      assert.equal(poll(40), 1);
      assert.deepEqual(rig.latched, [w.sink.rx.index]);
      assert.equal(w.sink.rx.get(RING_LOCK), 0);
    });
  });
}
