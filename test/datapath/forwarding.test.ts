// Who gets which frame, and that every frame is accounted for.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import {
  PORT_ABSENT,
  PORT_DOWN,
  PORT_STATE,
  RING_DISCARD,
  RING_STATE,
  RING_STOPPED,
} from '../../src/abi/layout.ts';
import { BOTH, overRings } from './formats.ts';
import { BROADCAST, frame, header, mac, Receiver, send } from './frames.ts';
import type { TestQueue } from './queue.ts';
import { PLAIN, Rig } from './rig.ts';

const rig = new Rig();

interface World {
  tx: TestQueue[];
  sinks: Receiver[];
}

/** `n` ports; host i lives behind port i. */
function world(n: number, buffers = 100): World {
  rig.clear();
  const ports = Array.from({ length: n }, () => rig.port());
  return {
    tx: ports.map((port) => port.queue(1)),
    sinks: ports.map((port) => new Receiver(port.queue(0)).fill(buffers)),
  };
}

/** One frame from port `from`; returns how many each port got. */
function one({ tx, sinks }: World, from: number, bytes: Uint8Array): number[] {
  send(tx[from]!, bytes);
  tx[from]!.publish();
  assert.equal(rig.settle(), 1);
  assert.equal(tx[from]!.used().length, 1);
  return sinks.map((sink) => {
    const got = sink.take();
    for (const { frame } of got) assert.deepEqual(frame, bytes);
    return got.length;
  });
}

const at = (from: number, to: number) => frame({ from: mac(from + 10), to: mac(to + 10) });

overRings(rig, BOTH, 'forwarding', () => {
  it('unknown floods to all but the source; learned reaches one only', () => {
    const w = world(5);
    assert.deepEqual(one(w, 0, at(0, 3)), [0, 1, 1, 1, 1]);
    assert.deepEqual(one(w, 3, at(3, 0)), [1, 0, 0, 0, 0]);
    assert.deepEqual(one(w, 0, at(0, 3)), [0, 0, 0, 1, 0]);
    assert.deepEqual(one(w, 0, at(0, 4)), [0, 1, 1, 1, 1]);
  });

  it('broadcast and multicast: exactly one copy to every other port', () => {
    const w = world(5);
    for (const to of [
      BROADCAST,
      Uint8Array.of(1, 0, 0x5e, 0, 0, 1),
      Uint8Array.of(0x33, 0x33, 0, 0, 0, 1),
    ]) {
      assert.deepEqual(one(w, 2, frame({ from: mac(12), to })), [1, 1, 0, 1, 1]);
    }
  });

  it('frames of every length arrive as they were sent', () => {
    const w = world(2);
    one(w, 1, at(1, 0));
    for (let length = 14; length < 300; length++) {
      const bytes = frame({ from: mac(10), to: mac(11), length });
      for (let i = 14; i < length; i++) bytes[i] = i * 7 + length;
      one(w, 0, bytes);
      w.sinks[1]!.fill(1);
    }
  });

  it('a burst from addresses that differ in a byte: each is learned, each goes its own way', () => {
    for (let byte = 0; byte < 6; byte++) {
      const w = world(4);
      const near = mac(60);
      near[byte] = near[byte]! ^ 0x20;
      one(w, 3, frame({ from: mac(60), to: BROADCAST }));
      one(w, 2, frame({ from: near, to: BROADCAST }));
      const burst = (queue: TestQueue, frames: Uint8Array[]) => {
        for (const bytes of frames) send(queue, bytes);
        queue.publish();
        rig.settle();
        queue.used();
        return w.sinks.map((sink) => sink.take().length);
      };
      const [a, b] = [mac(60), near];
      const to = [frame({ from: mac(10), to: a }), frame({ from: mac(10), to: b })];
      assert.deepEqual(burst(w.tx[0]!, to), [0, 0, 1, 1], `to, byte ${byte}`);
      const from = [frame({ from: a, to: mac(10) }), frame({ from: b, to: mac(10) })];
      burst(w.tx[1]!, from);
      assert.deepEqual(one(w, 0, frame({ from: mac(10), to: a })), [0, 1, 0, 0], `byte ${byte}`);
      assert.deepEqual(one(w, 0, frame({ from: mac(10), to: b })), [0, 1, 0, 0], `byte ${byte}`);
    }
  });

  it('a host that moves is found at its new port', () => {
    const w = world(3);
    one(w, 0, frame({ from: mac(50), to: BROADCAST }));
    assert.deepEqual(one(w, 2, frame({ from: mac(12), to: mac(50) })), [1, 0, 0]);
    one(w, 1, frame({ from: mac(50), to: BROADCAST }));
    assert.deepEqual(one(w, 2, frame({ from: mac(12), to: mac(50) })), [0, 1, 0]);
  });

  it('a frame for a host behind the port it came from is dropped as tx_hairpin', () => {
    const w = world(3);
    one(w, 0, frame({ from: mac(50), to: BROADCAST }));
    assert.deepEqual(one(w, 0, frame({ from: mac(51), to: mac(50) })), [0, 0, 0]);
    assert.deepEqual(w.tx[0]!.drops, { tx_hairpin: 1 });
  });

  for (const [what, from] of [
    ['zero', new Uint8Array(6)],
    ['a multicast address', Uint8Array.of(1, 2, 3, 4, 5, 6)],
    ['the broadcast address', BROADCAST],
  ] as const) {
    it(`${what} as source is dropped, first in its burst or not`, () => {
      const w = world(3);
      const bad = frame({ from, to: BROADCAST });
      assert.deepEqual(one(w, 0, bad), [0, 0, 0]);
      assert.deepEqual(w.tx[0]!.drops, { tx_bad_source: 1 });
      const good = frame({ from: mac(10), to: BROADCAST });
      for (const bytes of [bad, bad, good, bad, good, bad]) send(w.tx[0]!, bytes);
      w.tx[0]!.publish();
      rig.settle();
      assert.deepEqual(w.tx[0]!.drops, { tx_bad_source: 5 });
      assert.equal(w.sinks[1]!.take().length, 2);
    });
  }

  it('flooding skips ports that are down or gone; with nobody left it is tx_no_receiver', () => {
    const w = world(4);
    rig.ports[1]!.set(PORT_STATE, PORT_DOWN);
    rig.ports[3]!.set(PORT_STATE, PORT_ABSENT);
    assert.deepEqual(one(w, 0, at(0, 9)), [0, 0, 1, 0]);
    rig.ports[2]!.set(PORT_STATE, PORT_DOWN);
    assert.deepEqual(one(w, 0, at(0, 9)), [0, 0, 0, 0]);
    assert.deepEqual(w.tx[0]!.drops, { tx_no_receiver: 1 });
    for (const sink of w.sinks) assert.deepEqual(sink.rx.drops, {});
  });

  it('learned unicast to a port that is down is counted there as rx_down', () => {
    const w = world(3);
    one(w, 1, at(1, 9));
    rig.ports[1]!.set(PORT_STATE, PORT_DOWN);
    rig.ports[1]!.setPairs([]);
    w.sinks[1]!.rx.set(RING_STATE, RING_STOPPED);
    assert.deepEqual(one(w, 0, at(0, 1)), [0, 0, 0]);
    assert.deepEqual(w.sinks[1]!.rx.drops, { rx_down: 1 });
  });

  it('a port alone: everything is tx_no_receiver', () => {
    const w = world(1);
    one(w, 0, at(0, 1));
    one(w, 0, frame({ to: BROADCAST }));
    assert.deepEqual(w.tx[0]!.drops, { tx_no_receiver: 2 });
  });

  it('a ring that is disabled is emptied, and counted as tx_disabled', () => {
    const w = world(2);
    w.tx[0]!.set(RING_STATE, RING_DISCARD);
    rig.publish();
    assert.deepEqual(one(w, 0, at(0, 1)), [0, 0]);
    assert.deepEqual(w.tx[0]!.drops, { tx_disabled: 1 });
  });
});

overRings(rig, BOTH, 'wire', () => {
  it('passes everything to the peer, learning nothing and looking at no address', () => {
    const w = world(2);
    rig.wire(rig.ports[0]!, rig.ports[1]!);
    for (const bytes of [
      at(0, 1),
      frame({ from: BROADCAST }),
      frame({ from: mac(9), to: mac(9) }),
    ]) {
      assert.deepEqual(one(w, 0, bytes), [0, 1]);
      assert.deepEqual(one(w, 1, bytes), [1, 0]);
    }
  });

  it('without a peer everything is tx_no_receiver', () => {
    const w = world(3);
    rig.wire(rig.ports[0]!, rig.ports[1]!);
    assert.deepEqual(one(w, 2, at(2, 0)), [0, 0, 0]);
    assert.deepEqual(w.tx[2]!.drops, { tx_no_receiver: 1 });
  });
});

overRings(rig, BOTH, 'accounting', () => {
  const PORTS = 4;
  const step = fc.record({
    from: fc.nat(PORTS - 1),
    frames: fc.array(
      fc.record({
        host: fc.nat(5),
        to: fc.oneof(fc.nat(7), fc.constantFrom(-1, -2)),
        length: fc.oneof(fc.integer({ min: 14, max: 200 }), fc.integer({ min: 14, max: 4000 })),
        bad: fc.constantFrom(0, 0, 0, 0, 0, 1, 2, 3, 4),
      }),
      { minLength: 1, maxLength: 80 },
    ),
    post: fc.array(fc.nat(30), { minLength: PORTS, maxLength: PORTS }),
    rx: fc.constantFrom(64, 600, 2048),
  });

  it('every frame of every burst is delivered or counted, per ring and reason', () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
        const w = world(PORTS, 0);
        rig.ports[3]!.set(PORT_STATE, PORT_DOWN);
        rig.ports[3]!.setPairs([]);
        w.sinks[3]!.rx.set(RING_STATE, RING_STOPPED);
        // A model of who was heard where, burst by burst.
        const delivered = Array(PORTS).fill(0);
        let sent = 0;
        for (const { from, frames, post, rx } of steps) {
          for (const [i, count] of post.entries()) {
            if (i < 3) for (let k = 0; k < count; k++) w.sinks[i]!.post([rx]);
            w.sinks[i]!.rx.publish();
          }
          const tx = w.tx[from]!;
          for (const [i, one] of frames.entries()) {
            const source = one.bad === 1 ? new Uint8Array(6) : mac(20 + one.host);
            const to = one.to === -1 ? BROADCAST : one.to === -2 ? mac(999) : mac(20 + one.to);
            const bytes = frame({ from: source, to, length: one.length, seed: i });
            const spec = one.bad === 2 ? { header: header({ flags: 1 }) } : {};
            if (one.bad === 3) tx.add([{ addr: 0n, len: 100 }]);
            else if (one.bad === 4) tx.add([{ addr: rig.ports[from]!.gpa(tx.desc), len: 20 }]);
            else send(tx, bytes, spec);
          }
          tx.publish();
          const before = w.sinks.map(({ rx }) => rx.frames + rx.dropped);
          const droppedBefore = tx.dropped;
          const forwarded = frames.length;
          assert.equal(rig.settle(), forwarded);
          assert.equal(tx.used().length, forwarded);
          sent += forwarded;
          // Each frame not dropped at the source was meant for one port or for all that are up.
          const meant = w.sinks.map(({ rx }, i) => rx.frames + rx.dropped - before[i]!);
          const passed = forwarded - (tx.dropped - droppedBefore);
          assert.equal(meant[from], 0);
          const total = meant.reduce((sum, n) => sum + n, 0);
          assert.ok(total >= passed, `${total} receptions of ${passed} frames`);
          for (const n of meant) assert.ok(n <= passed);
          for (const [i, sink] of w.sinks.entries()) delivered[i] += sink.take().length;
        }
        assert.equal(
          w.tx.reduce((sum, { frames }) => sum + frames, 0),
          sent,
        );
        for (const [i, { rx }] of w.sinks.entries()) assert.equal(rx.frames, delivered[i]);
        for (const queue of [...w.tx, ...w.sinks.map(({ rx }) => rx)]) {
          for (const reason of Object.keys(queue.drops)) seen.add(reason);
        }
      }),
      { numRuns: 60 },
    );
    const expected = [
      'rx_down',
      'rx_full',
      'tx_bad_address',
      'tx_bad_header',
      'tx_bad_source',
      'tx_hairpin',
      'tx_too_short',
    ];
    assert.deepEqual([...seen].sort(), expected);
  });

  it('bytes and frames count what passed, without the virtio header', () => {
    for (const features of [PLAIN, 0n]) {
      rig.clear();
      const [a, b] = [rig.port({ features }), rig.port({ features })];
      rig.wire(a, b);
      const tx = a.queue(1);
      const sink = new Receiver(b.queue(0)).fill(3);
      for (const length of [60, 100, 1514, 200]) send(tx, frame({ length }));
      tx.publish();
      rig.settle();
      assert.equal(tx.frames, 4);
      assert.equal(tx.bytes, 60 + 100 + 1514 + 200);
      assert.equal(sink.rx.frames, 3);
      assert.equal(sink.rx.bytes, 60 + 100 + 1514);
      assert.deepEqual(sink.rx.drops, { rx_full: 1 });
    }
  });
});
