// The last net: a trap costs the ring that was worked on, and nothing else.

import assert from 'node:assert/strict';
import { it } from 'node:test';
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
import { BOTH, overRings } from './formats.ts';
import { frame, mac, Receiver, send } from './frames.ts';
import { Rig } from './rig.ts';

const rig = new Rig();

/** Parts of a ring that lie at the end of linear memory, so that what is read or written runs out. */
interface Faults {
  /** What is looked at first. */
  avail: [number, number];
  desc: [number, number];
  /** What is looked at when the work is done. */
  used: [number, number];
}

const SPLIT: Faults = {
  avail: [RING_AVAIL, 2 ** 32 - 3],
  desc: [RING_DESC, 2 ** 32 - 2],
  used: [RING_USED, 2 ** 32 - 2],
};
// One ring of descriptors; behind it the driver's event area, looked at for calls.
const PACKED: Faults = {
  avail: [RING_DESC, 2 ** 32 - 15],
  desc: [RING_DESC, 2 ** 32 - 15],
  used: [RING_AVAIL, 2 ** 32 - 3],
};

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
  overRings(rig, BOTH, `traps with ${workers} worker${workers > 1 ? 's' : ''}`, (format) => {
    const faults = format === 'packed' ? PACKED : SPLIT;

    it('a TX ring whose descriptors are out of memory: latched, once; others go on', () => {
      const w = world();
      rig.control.set(SWITCH_WORKERS, workers);
      w.bad.set(...faults.desc);
      traffic(w);
      assert.equal(poll(40), 1);
      assert.equal(w.bad.get(RING_STATE), RING_BROKEN);
      assert.equal(w.bad.get(RING_REASON), BROKEN_TRAP);
      assert.deepEqual(rig.latched, [w.bad.index]);
      assert.equal(w.sink.take().length, 1);
    });

    it('a TX ring that cannot even be looked at, behind one with work: the other goes on', () => {
      const w = world();
      rig.control.set(SWITCH_WORKERS, workers);
      // Polled one after the other: the good ring is worked on when the bad one traps.
      w.good.set(...faults.avail);
      for (let i = 0; i < 64; i++) send(w.bad, frame({ to: mac(9), from: mac(1) }));
      w.bad.publish();
      assert.equal(poll(40), 1);
      assert.deepEqual(rig.latched, [w.good.index]);
      assert.equal(w.bad.used().length, 64);
      assert.equal(w.sink.take().length, 64);
    });

    it('a latched ring with a full burst waiting is not polled again', () => {
      const w = world();
      rig.control.set(SWITCH_WORKERS, workers);
      for (let i = 0; i < 63; i++) send(w.bad, frame({ to: mac(9), from: mac(1) }));
      w.bad.set(...faults.desc);
      traffic(w);
      assert.equal(poll(40), 1);
      assert.deepEqual(rig.latched, [w.bad.index]);
      assert.equal(w.sink.take().length, 1);
    });

    it('a TX ring whose used ring is out of memory: the receiver is not to blame', () => {
      const w = world();
      rig.control.set(SWITCH_WORKERS, workers);
      // Listed first, which writes there as well.
      poll(5);
      traffic(w);
      w.bad.set(...faults.used);
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
      rx.set(...faults.used);
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
      w.sink.rx.set(...faults.avail);
      traffic(w);
      assert.equal(poll(40), 1);
      assert.deepEqual(rig.latched, [w.sink.rx.index]);
      assert.equal(w.sink.rx.get(RING_LOCK), 0);
    });
  });
}
