// Which queue pair of a receiver a frame goes to.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { RING_STATE, RING_STOPPED } from '../../src/abi/layout.ts';
import { BOTH, overRings } from './formats.ts';
import { fill, frame, mac, Receiver, send } from './frames.ts';
import type { TestQueue } from './queue.ts';
import { PLAIN, Rig } from './rig.ts';

const rig = new Rig();

interface Flow {
  v6: boolean;
  protocol: number;
  source: number;
  target: number;
  sourcePort: number;
  targetPort: number;
  /** IPv4 header words, 5 without options. */
  words?: number;
  /** IPv4 fragment field. */
  fragment?: number;
}

/** The frame of a flow in one direction or the other. */
function packet(flow: Flow, back: boolean, length = 100, seed = 1): Uint8Array {
  const { v6, protocol, words = 5, fragment = 0 } = flow;
  const [from, to] = back ? [mac(2), mac(1)] : [mac(1), mac(2)];
  const bytes = frame({ from, to, type: v6 ? 0x86dd : 0x0800, length, seed });
  const view = new DataView(bytes.buffer);
  const ends = [
    { address: flow.source, port: flow.sourcePort },
    { address: flow.target, port: flow.targetPort },
  ];
  const [a, b] = back ? [ends[1]!, ends[0]!] : [ends[0]!, ends[1]!];
  if (v6) {
    bytes[14] = 0x60;
    bytes[20] = protocol;
    for (const [at, { address }] of [
      [22, a],
      [38, b],
    ] as const) {
      fill(bytes.subarray(at, at + 16), address);
    }
  } else {
    bytes[14] = 0x40 | words;
    view.setUint16(20, fragment);
    bytes[23] = protocol;
    view.setUint32(26, a.address);
    view.setUint32(30, b.address);
  }
  const ports = v6 ? 54 : 14 + words * 4;
  view.setUint16(ports, a.port);
  view.setUint16(ports + 2, b.port);
  return bytes;
}

/** Port 0 and 1, `pairs` queue pairs each, joined by a wire. */
function world(pairs: number) {
  rig.clear();
  const ports = [rig.port({ pairs }), rig.port({ pairs })];
  rig.wire(ports[0]!, ports[1]!);
  const sides = ports.map((port) =>
    Array.from({ length: pairs }, (_, k) => ({
      tx: port.queue(k * 2 + 1, { size: 64 }),
      sink: new Receiver(port.queue(k * 2, { size: 64 })).fill(32, 2000),
    })),
  );
  return { ports, sides };
}

type World = ReturnType<typeof world>;

/** Sends frames from one ring; returns the pairs of the other side they came out of, in order. */
function pass({ sides }: World, from: number, pair: number, ...frames: Uint8Array[]): number[] {
  const tx: TestQueue = sides[from]![pair]!.tx;
  for (const bytes of frames) send(tx, bytes);
  tx.publish();
  assert.equal(rig.settle(), frames.length);
  tx.used();
  return sides[1 - from]!.flatMap(({ sink }, k) => {
    const got = sink.take();
    sink.fill(got.length, 2000);
    return got.map(() => k);
  });
}

const flows: fc.Arbitrary<Flow> = fc.record({
  v6: fc.boolean(),
  protocol: fc.constantFrom(6, 17, 1, 47),
  source: fc.nat(),
  target: fc.nat(),
  sourcePort: fc.nat(0xffff),
  targetPort: fc.nat(0xffff),
  words: fc.constantFrom(5, 5, 6, 15),
  fragment: fc.constantFrom(0, 0, 0x4000, 0x2000, 0x0010),
});

overRings(rig, BOTH, 'steering', () => {
  it('a flow returns on the pair it was sent from', () => {
    fc.assert(
      fc.property(flows, fc.nat(7), fc.nat(7), (flow, pair, back) => {
        const w = world(8);
        pass(w, 0, pair, packet(flow, false));
        assert.deepEqual(pass(w, 1, back, packet(flow, true)), [pair]);
        // And it follows when the guest moves it to another ring.
        const moved = (pair + 3) % 8;
        pass(w, 0, moved, packet(flow, false));
        assert.deepEqual(pass(w, 1, back, packet(flow, true)), [moved]);
        assert.deepEqual(pass(w, 0, pair, packet(flow, false)), [back]);
      }),
      { numRuns: 60 },
    );
  });

  it('a flow has one pair however its frames are cut', () => {
    const cuts = [[], [12], [12 + 14 + 40], [12 + 14 + 20 + 20], [66, 80, 90], [12, 78, 90]];
    for (const v6 of [false, true]) {
      const flow = { v6, protocol: 6, source: 1, target: 2, sourcePort: 3, targetPort: 4 };
      const w = world(8);
      const { tx } = w.sides[0]![5]!;
      const seen = new Set<number>();
      for (const where of cuts) {
        send(tx, packet(flow, false, 200), { cuts: where });
        tx.publish();
        rig.settle();
        tx.used();
        for (const [k, { sink }] of w.sides[1]!.entries()) if (sink.take().length) seen.add(k);
      }
      assert.equal(seen.size, 1, `pairs ${[...seen]}`);
      // All of them were heard on pair 5, not just those that lie in one piece.
      assert.deepEqual(pass(w, 1, 0, packet(flow, true)), [5]);
    }
  });

  it('flows never heard spread over all pairs, each staying on one', () => {
    for (const pairs of [2, 3, 8]) {
      const w = world(pairs);
      const counts = Array<number>(pairs).fill(0);
      for (let i = 0; i < 400; i++) {
        const v6 = i % 2 === 0;
        const flow = { v6, protocol: 6, source: i, target: 9, sourcePort: i * 7, targetPort: 80 };
        const got = pass(w, 0, 0, packet(flow, false), packet(flow, false));
        assert.equal(got[0], got[1]);
        counts[got[0]!]!++;
      }
      for (const n of counts) assert.ok(n > 400 / pairs / 2, `${counts}`);
    }
  });

  it('only enabled pairs get anything, whoever was heard where', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(7), { minLength: 1, maxLength: 8 }),
        fc.array(fc.tuple(flows, fc.nat(7)), { minLength: 1, maxLength: 20 }),
        (enabled, wanted) => {
          const w = world(8);
          for (const [flow, pair] of wanted) pass(w, 0, pair, packet(flow, false));
          for (const k of [0, 1, 2, 3, 4, 5, 6, 7].filter((k) => !enabled.includes(k))) {
            w.sides[0]![k]!.sink.rx.set(RING_STATE, RING_STOPPED);
          }
          w.ports[0]!.setPairs([...enabled].sort());
          for (const [flow] of wanted) {
            const [got] = pass(w, 1, 0, packet(flow, true));
            assert.ok(enabled.includes(got!), `pair ${got} of ${enabled}`);
          }
          for (const { sink } of w.sides[0]!) assert.deepEqual(sink.rx.drops, {});
        },
      ),
      { numRuns: 60 },
    );
  });

  it('with no pair enabled the drops count on the first ring', () => {
    const w = world(4);
    w.ports[1]!.setPairs([]);
    for (const { sink } of w.sides[1]!) sink.rx.set(RING_STATE, RING_STOPPED);
    assert.deepEqual(pass(w, 0, 2, frame(), frame()), []);
    assert.deepEqual(w.sides[1]![0]!.sink.rx.drops, { rx_down: 2 });
  });

  it('a flow keeps its order over bursts of any size and shape', () => {
    rig.clear();
    const [a, b] = [rig.port(), rig.port({ features: PLAIN, pairs: 4 })];
    rig.wire(a, b);
    const tx = a.queue(1);
    const sinks = [0, 1, 2, 3].map((k) => new Receiver(b.queue(k * 2)).fill(250, 300));
    for (let seq = 0, burst = 1; seq < 240; seq += burst, burst = (burst % 60) + 7) {
      for (let i = seq; i < Math.min(seq + burst, 240); i++) {
        const port = i % 6;
        const flow = {
          v6: false,
          protocol: 17,
          source: 5,
          target: 6,
          sourcePort: port,
          targetPort: 9,
        };
        const bytes = packet(flow, false, 200);
        bytes[60] = i;
        send(tx, bytes, { cuts: i % 5 === 0 ? [80] : [] });
      }
      tx.publish();
      rig.settle();
      tx.used();
    }
    const last = new Map<number, { pair: number; seq: number }>();
    for (const [pair, sink] of sinks.entries()) {
      for (const { frame: bytes } of sink.take()) {
        const flow = bytes[35]!;
        const seq = bytes[60]!;
        const before = last.get(flow);
        if (before) assert.ok(before.pair === pair && before.seq < seq);
        last.set(flow, { pair, seq });
      }
    }
    assert.equal(last.size, 6);
  });
});
