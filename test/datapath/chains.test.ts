// What a guest may send: any legal chain, on any ring size, arrives byte for byte.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { F_INDIRECT_DESC, F_MRG_RXBUF, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { MIXED, overRings } from './formats.ts';
import { concat, frame, header, Receiver, send } from './frames.ts';
import { features, PLAIN, Rig } from './rig.ts';

const rig = new Rig();
const MODERN = features(F_VERSION_1, F_INDIRECT_DESC);
const LEGACY = features(F_INDIRECT_DESC);

/** Two ports on a wire. */
function wire(sender: bigint, receiver: bigint, size: number, start?: number) {
  rig.clear();
  const [a, b] = [rig.port({ features: sender }), rig.port({ features: receiver })];
  rig.wire(a, b);
  return {
    tx: a.queue(1, { size, start }),
    sink: new Receiver(b.queue(0, { size, start })),
  };
}

const sizes = {
  split: fc.constantFrom(8, 16, 64, 256, 1024, 32768),
  packed: fc.oneof(fc.integer({ min: 8, max: 300 }), fc.constantFrom(1000, 32767, 32768)),
};
const lengths = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 14, max: 200 }) },
  { weight: 2, arbitrary: fc.integer({ min: 200, max: 2000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 2000, max: 65557 }) },
);
const chain = fc.record({
  length: lengths,
  // Mostly in and around the headers, where every byte counts; equal cuts are empty descriptors.
  cuts: fc.array(fc.oneof(fc.integer({ min: 0, max: 60 }), fc.nat({ max: 70000 })), {
    maxLength: 7,
  }),
  inner: fc.option(fc.nat({ max: 7 }), { nil: undefined }),
  seed: fc.nat(),
});

overRings(rig, MIXED, 'chains', (format) => {
  it('random chains arrive whole, unchanged and in order', () => {
    let indirect = 0;
    fc.assert(
      fc.property(
        fc.constantFrom(PLAIN, MODERN, LEGACY, features(F_INDIRECT_DESC, F_MRG_RXBUF)),
        fc.constantFrom(PLAIN, MODERN, LEGACY),
        sizes[format === 'packed' ? 'packed' : 'split'],
        fc.nat({ max: 0xffff }),
        fc.array(chain, { minLength: 1, maxLength: 40 }),
        (sender, receiver, size, start, chains) => {
          const { tx, sink } = wire(sender, receiver, size, start);
          const expected: Uint8Array[] = [];
          const flush = () => {
            const count = tx.outstanding.size;
            if (count === 0) return;
            tx.publish();
            assert.equal(rig.settle(), count);
            for (const { len } of tx.used()) assert.equal(len, 0);
            const got = sink.take();
            assert.deepEqual(
              got.map((one) => one.frame),
              expected.splice(0),
            );
          };
          for (const { length, cuts, inner, seed } of chains) {
            if (tx.free < 8 || sink.rx.free === 0) flush();
            const bytes = frame({ length, seed });
            const before = inner === undefined ? undefined : Math.min(inner, cuts.length);
            assert.ok(send(tx, bytes, { cuts, inner: before }) >= 0);
            if (before !== undefined) indirect++;
            sink.post([65557 + 12]);
            sink.rx.publish();
            expected.push(bytes);
          }
          flush();
          sink.checkPosted();
          assert.deepEqual([tx.drops, sink.rx.drops], [{}, {}]);
        },
      ),
      { numRuns: 60 },
    );
    assert.ok(indirect > 50, `${indirect} chains went through an indirect table`);
  });

  for (const length of [14, 15, 16, 17, 18, 29, 30, 31, 32, 60, 511, 512, 513, 1514, 65557]) {
    it(`a frame of ${length} bytes arrives, from one descriptor and from two`, () => {
      for (const cuts of [[], [12], [12 + 14], [5], [length + 11]]) {
        for (const sender of [MODERN, LEGACY]) {
          for (const receiver of [MODERN, LEGACY]) {
            const { tx, sink } = wire(sender, receiver, 8);
            sink.fill(1, 65600);
            const bytes = frame({ length });
            send(tx, bytes, { cuts });
            tx.publish();
            rig.settle();
            const [got] = sink.take();
            assert.deepEqual(got?.frame, bytes);
            const expected = header({ buffers: 1 }, receiver === MODERN ? 12 : 10);
            assert.deepEqual(got?.header, expected);
          }
        }
      }
    });
  }

  it('the header may be split over any three descriptors, an indirect table among them', () => {
    const bytes = frame({ length: 90 });
    for (let first = 0; first <= 12; first++) {
      for (let second = first; second <= 14; second++) {
        for (const inner of [undefined, 0, 1, 2]) {
          const { tx, sink } = wire(MODERN, MODERN, 8);
          sink.fill(1);
          send(tx, bytes, { cuts: [first, second], inner });
          tx.publish();
          rig.settle();
          assert.deepEqual(sink.take()[0]?.frame, bytes, `${first}, ${second}, ${inner}`);
        }
      }
    }
  });

  it('a chain may end in an indirect table of 1024 descriptors', () => {
    const bytes = frame({ length: 1024 - 12 });
    const { tx, sink } = wire(MODERN, MODERN, 8);
    sink.fill(1);
    const cuts = Array.from({ length: 1023 }, (_, i) => i + 1);
    send(tx, bytes, { cuts, inner: 0 });
    tx.publish();
    rig.settle();
    assert.deepEqual(sink.take()[0]?.frame, bytes);
  });

  it('a burst of chains too long for one round arrives over several, in order', () => {
    const { tx, sink } = wire(MODERN, MODERN, 256);
    const cuts = Array.from({ length: 1000 }, (_, i) => i + 1);
    const sent = Array.from({ length: 64 }, (_, i) => frame({ length: 1020, seed: i }));
    sink.fill(64);
    // Plain frames between: they wait in a stage that the long ones must not cut short.
    for (const [i, bytes] of sent.entries()) {
      send(tx, bytes, i % 3 === 0 ? {} : { cuts, inner: 0 });
    }
    tx.publish();
    assert.equal(rig.settle(), 64);
    assert.deepEqual(rig.latched, []);
    assert.deepEqual(
      sink.take().map((got) => got.frame),
      sent,
    );
  });

  it('indices pass 65535 on rings of every size', () => {
    for (let size = 8; size <= 32768; size *= 2) {
      const { tx, sink } = wire(PLAIN, PLAIN, size, 0x10000 - 5);
      const sent = Array.from({ length: 8 }, (_, i) => frame({ seed: i }));
      sink.fill(8, 100);
      for (const bytes of sent) send(tx, bytes);
      tx.publish();
      assert.equal(rig.settle(), 8, `size ${size}`);
      assert.deepEqual(
        sink.take().map((got) => got.frame),
        sent,
      );
      assert.equal(tx.used().length, 8);
      // Of a packed ring too: slot 3, and the wrap counter, 1 at the start, is 0.
      assert.equal(tx.position(0), 3);
    }
  });

  it('a full ring of 32768 frames is taken, and no more than it holds', () => {
    const { tx, sink } = wire(MODERN, MODERN, 32768, 40000);
    sink.fill(32768, 76);
    const bytes = frame();
    const parts = concat(header(), bytes);
    const at = tx.port.alloc(parts.length);
    rig.bytes.set(parts, at);
    for (let i = 0; i < 32768; i++) tx.add([{ addr: tx.port.gpa(at), len: parts.length }]);
    tx.publish();
    assert.equal(rig.settle(), 32768);
    assert.equal(sink.take().length, 32768);
    assert.equal(tx.used().length, 32768);
    assert.deepEqual(rig.latched, []);
  });
});
