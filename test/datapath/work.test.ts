// How a worker is shared: what a burst may be, what a port may cost, and what a receiver's ring may.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BURST,
  MAX_SEGMENTS,
  RING_ARMED,
  RINGF_PACKED,
  WORKER_BASE,
  WORKER_CURRENT,
} from '../../src/abi/layout.ts';
import { DESC_F_NEXT, DESC_F_WRITE } from '../../src/abi/virtio.ts';
import { BOTH, overRings } from './formats.ts';
import { frame, mac, Receiver, send } from './frames.ts';
import type { TestQueue } from './queue.ts';
import { Rig, type TestPort } from './rig.ts';

const rig = new Rig();
const FULL = 1514;

/** Two senders and a receiver that never posts: what is counted is who is polled. */
function world(pairs = 1): { bad: TestPort; good: TestQueue } {
  rig.clear();
  const [bad, b, c] = [rig.port({ pairs }), rig.port(), rig.port()];
  new Receiver(c.queue(0, { size: 64 }));
  return { bad, good: b.queue(1, { size: 256 }) };
}

function top(queue: TestQueue, length: number, from: number, left = 0): void {
  while (queue.free > left) send(queue, frame({ from: mac(from), to: mac(9), length }));
  queue.publish();
}

/** Polls until there is a burst: its frames, and how many polls. */
function burst(): { taken: number; polls: number } {
  for (let polls = 1; polls < 1000; polls++) {
    const taken = rig.datapath.poll();
    if (taken > 0) return { taken, polls };
  }
  throw new Error('no burst');
}

/** A ring whose last burst had so many frames. */
function busy(size: number, frames = 32): TestQueue {
  const tx = world().bad.queue(1, { size });
  assert.equal(next(tx, frames).taken, frames);
  return tx;
}

/** Sends so many frames; how many the next burst takes, and after how many polls. */
function next(tx: TestQueue, frames: number): { taken: number; polls: number } {
  top(tx, 64, 1, tx.free - frames);
  const found = burst();
  tx.used();
  return found;
}

/** Polls until the good sender, whose ring is kept full, had `bursts`; `feed` does the bad one's. */
function run(bursts: number, good: TestQueue, bad: TestQueue[], feed: () => void): void {
  for (let polls = 0; good.frames < bursts * BURST; polls++) {
    assert.ok(polls < bursts * 100, 'the good sender has no turn');
    feed();
    top(good, FULL, 2);
    rig.datapath.poll();
    for (const queue of [good, ...bad]) queue.used();
  }
}

overRings(rig, BOTH, 'a worker is shared', () => {
  it('equal frames: equal shares', () => {
    const { bad, good } = world();
    const tx = bad.queue(1, { size: 256 });
    run(40, good, [tx], () => top(tx, FULL, 1));
    assert.ok(Math.abs(tx.frames - good.frames) <= BURST, `${tx.frames} and ${good.frames}`);
  });

  it('a burst of long frames ends early', () => {
    const { bad } = world();
    const tx = bad.queue(1, { size: 256 });
    top(tx, 60_000, 1, 200);
    assert.equal(burst().taken, 5);
    assert.equal(rig.settle(), 51);
  });

  it('a burst is three eighths of its ring, but 32 to 128 frames', () => {
    for (const [size, most] of [
      [8, 8],
      [64, 32],
      [128, 48],
      [256, 96],
      [512, 128],
      [4096, 128],
    ] as const) {
      const tx = world().bad.queue(1, { size });
      top(tx, 64, 1);
      assert.equal(burst().taken, most, `of ${size}`);
    }
  });

  it('a busy ring is left until a whole burst is there, but not for ever', () => {
    for (const [size, whole] of [
      [64, 24],
      [128, 48],
      [256, 96],
      [4096, 128],
    ] as const) {
      for (const lacking of [0, 1]) {
        const tx = busy(size);
        const { taken, polls } = next(tx, whole - lacking);
        assert.equal(taken, whole - lacking, `of ${size}`);
        assert.equal(polls > 100, lacking > 0, `${lacking} lacking of ${size}: ${polls} polls`);
      }
    }
  });

  it('a ring that is not busy is not left', () => {
    const tx = busy(256, 15);
    assert.deepEqual(next(tx, 1), { taken: 1, polls: 1 });
  });

  it('where no whole burst came, part of what there was is enough, for longer and longer', () => {
    const tx = busy(1024);
    for (const bursts of [16, 32, 64, 128, 256, 512, 1024, 1024]) {
      assert.ok(next(tx, 80).polls > 100);
      for (let i = 0; i < bursts; i++) {
        assert.deepEqual(next(tx, 30), { taken: 30, polls: 1 }, `${i} of ${bursts}`);
      }
    }
    // One came: it is as it was at first.
    assert.ok(next(tx, 20).polls > 100);
    for (let i = 0; i < 1024; i++) assert.equal(next(tx, 128).taken, 128);
    top(tx, 64, 1, tx.size - 20);
    assert.equal(rig.datapath.poll(), 0);
    assert.equal(next(tx, 108).taken, 128);
    assert.ok(next(tx, 20).polls > 100);
    for (let i = 0; i < 16; i++) assert.equal(next(tx, 20).polls, 1);
    assert.ok(next(tx, 20).polls > 100);
  });

  it('a ring that is left is not slept on', () => {
    const tx = busy(256);
    assert.equal(rig.datapath.armAll(), 0);
    rig.datapath.activate(tx.index);
    top(tx, 64, 1, tx.free - 20);
    const calm = () => [rig.datapath.armAll(), tx.get(RING_ARMED), rig.datapath.poll()];
    assert.equal(rig.datapath.poll(), 0);
    for (let i = 0; i < 10; i++) assert.deepEqual(calm(), [1, 0, 0]);
    assert.equal(rig.settle(), 20);
    assert.deepEqual(calm(), [0, 1, 0]);
  });

  it('a ring whose driver takes back what it showed is slept on', () => {
    const tx = busy(256);
    const { avail, desc } = tx;
    const before = rig.bytes.slice(desc, desc + 256 * 16);
    const index = rig.view.getUint16(avail + 2, true);
    top(tx, 64, 1, tx.free - 20);
    assert.equal(rig.datapath.poll(), 0);
    assert.equal(rig.datapath.armAll(), 1);
    if (tx.flags & RINGF_PACKED) rig.bytes.set(before, desc);
    else rig.view.setUint16(avail + 2, index, true);
    assert.equal(rig.datapath.poll(), 0);
    assert.equal(rig.datapath.armAll(), 0);
  });

  it('beside others that have much to do a ring is left for fewer polls', () => {
    const tx = busy(256);
    const other = rig.ports[1]!.queue(1, { size: 256 });
    top(tx, 64, 1, 256 - 20);
    let polls = 0;
    for (; tx.frames < 52; polls++) {
      top(other, FULL, 2);
      rig.datapath.poll();
      other.used();
    }
    assert.ok(polls < 20, `${polls} polls`);
  });

  it('a port that has its frames copied to many waits for it; alone it does not', () => {
    rig.clear();
    const ports = Array.from({ length: 10 }, () => rig.port());
    const [bad, b, ...others] = ports as [TestPort, TestPort, ...TestPort[]];
    const [tx, good] = [bad.queue(1, { size: 256 }), b.queue(1, { size: 256 })];
    const sinks = others.map((port) => new Receiver(port.queue(0, { size: 256 })));
    rig.datapath.fdbLearn((9n << 40n) | 2n, others[0]!.index);
    const broadcast = frame({ from: mac(1), to: Buffer.alloc(6, 255), length: FULL });
    const feed = () => {
      while (tx.free > 0) send(tx, broadcast);
      tx.publish();
      for (const sink of sinks) {
        sink.take();
        sink.fill(BURST);
      }
    };
    run(40, good, [tx], feed);
    // Eight copies: one burst in six rounds or more.
    assert.ok(tx.frames <= (40 / 6 + 1) * BURST, `${tx.frames} frames`);
    const before = tx.frames;
    for (let i = 0; i < 40; i++) {
      feed();
      rig.datapath.poll();
      good.used();
      tx.used();
    }
    // Every second round passes over those in which it would wait.
    assert.ok(tx.frames - before >= 15 * BURST, `${tx.frames - before} frames alone`);
  });

  it('eight rings of a port get what one of another gets, each its part', () => {
    rig.clear();
    const [bad, b, c] = [rig.port({ pairs: 8 }), rig.port(), rig.port()];
    const good = b.queue(1, { size: 256 });
    const sink = new Receiver(c.queue(0, { size: 1024 }));
    rig.datapath.fdbLearn((9n << 40n) | 2n, c.index);
    const rings = Array.from({ length: 8 }, (_, pair) => bad.queue(pair * 2 + 1, { size: 256 }));
    run(80, good, rings, () => {
      for (const ring of rings) top(ring, FULL, 1);
      sink.take();
      sink.fill(600);
    });
    const frames = rings.map((ring) => ring.frames);
    const all = frames.reduce((sum, n) => sum + n, 0);
    assert.ok(all >= 72 * BURST && all <= 88 * BURST, `${all / BURST} bursts of 80`);
    for (const n of frames) assert.ok(n >= 4 * BURST && n <= 20 * BURST, frames.join(' '));
  });

  it('chains of a thousand descriptors end a burst', () => {
    const { bad, good } = world();
    const tx = bad.queue(1, { size: 32768 });
    const at = bad.alloc(4096);
    const chain = Array.from({ length: MAX_SEGMENTS }, (_, i) => ({
      addr: bad.gpa(at),
      len: 1,
      flags: i + 1 < MAX_SEGMENTS ? DESC_F_NEXT : DESC_F_WRITE,
    }));
    for (let i = 0; i < 31; i++) tx.addRaw(chain);
    tx.publish();
    top(good, FULL, 2);
    let rounds = 0;
    for (; tx.frames < 31; rounds++) {
      const before = tx.frames;
      rig.datapath.poll();
      // Three are more work than a burst may be.
      assert.ok(tx.frames - before <= 3, `${tx.frames - before} chains in a burst`);
      good.used();
      top(good, FULL, 2);
      assert.ok(rounds < 1000);
    }
    assert.equal(tx.dropped, 31);
    assert.ok(rounds >= 4, `${rounds} rounds for 31 chains`);
  });
});

overRings(rig, BOTH, "a receiver's ring", () => {
  function receiver(size: number) {
    rig.clear();
    const [a, b] = [rig.port(), rig.port()];
    rig.wire(a, b);
    return { tx: a.queue(1, { size: 256 }), rx: b.queue(0, { size }), b };
  }

  it('in so many pieces that looking takes too long: rx_scattered, and a bounded burst', () => {
    const { tx, rx, b } = receiver(32768);
    const at = b.alloc(4096);
    // A thousand bytes in as many descriptors: 64 frames would be 65536 of them.
    const chain = Array.from({ length: 1000 }, (_, i) => ({
      addr: b.gpa(at + i),
      len: 1,
      write: true,
    }));
    for (let i = 0; i < 32; i++) assert.ok(rx.add(chain) >= 0);
    rx.publish();
    top(tx, 900, 1, 256 - 30);
    rig.settle();
    assert.equal(tx.used().length, 30);
    const { rx_scattered = 0, ...others } = rx.drops;
    assert.deepEqual(others, {});
    assert.ok(rx_scattered > 10 && rx.frames >= 2, `${rx_scattered} and ${rx.frames}`);
    assert.equal(rx_scattered + rx.frames, 30);
  });

  it('with buffers of no byte: they go back, and what lies behind them is used', () => {
    const { tx, rx, b } = receiver(16);
    const at = b.alloc(4096);
    rx.addRaw([{ addr: b.gpa(at), len: 0, flags: DESC_F_WRITE }]);
    const nothing = { addr: b.gpa(at), len: 0, write: true };
    rx.add([nothing, nothing]);
    rx.addRaw([{ addr: b.gpa(at), len: 2048, flags: DESC_F_WRITE }]);
    rx.publish();
    top(tx, 60, 1, 256 - 3);
    rig.settle();
    assert.deepEqual(rx.drops, { rx_bad_chain: 2 });
    assert.deepEqual(
      rx.used().map(({ len }) => len),
      [0, 0, 72],
    );
  });
});

describe('what a port owes', () => {
  it('follows what its bursts take: one that is faster than the list pays less, up to an eighth', () => {
    // A full burst of 64 B frames that nobody takes is 32 KiB of work: 4 us by the list.
    const share = (us: number) => {
      const { bad, good } = world();
      const tx = bad.queue(1, { size: 256 });
      let at = 1;
      // Two looks at the clock a burst that is timed; those of the good one take what the list says.
      rig.now = () => {
        at += (rig.control.get(WORKER_BASE + WORKER_CURRENT) === tx.index ? us : 4.096) / 1000;
        return at;
      };
      try {
        run(400, good, [tx], () => top(tx, 64, 1));
      } finally {
        rig.now = () => 0;
      }
      return tx.frames / good.frames;
    };
    const same = share(4.096);
    const slow = share(40);
    const fast = share(0.2);
    assert.ok(same > 0.8 && same < 1.25, `${same}`);
    assert.ok(slow < 0.5, `${slow} of the good one's, ten times as slow`);
    assert.ok(fast >= same, `${fast}`);
  });

  it('is forgiven while nobody else has work', () => {
    const { bad } = world();
    const tx = bad.queue(1, { size: 256 });
    for (let i = 0; i < 20; i++) {
      top(tx, 60_000, 1, 200);
      rig.settle();
      assert.equal(tx.used().length, 56);
    }
  });
});
