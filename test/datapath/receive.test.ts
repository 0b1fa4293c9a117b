// How frames lie in what a guest posted: one buffer, chains, and several buffers merged.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { F_INDIRECT_DESC, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { MIXED, overRings } from './formats.ts';
import { frame, Receiver, send } from './frames.ts';
import { features, PLAIN, Rig } from './rig.ts';

const rig = new Rig();
const SINGLE = features(F_VERSION_1, F_INDIRECT_DESC);

function world(receiver: bigint, size = 256) {
  rig.clear();
  const [a, b] = [rig.port(), rig.port({ features: receiver })];
  rig.wire(a, b);
  return { tx: a.queue(1), sink: new Receiver(b.queue(0, { size })) };
}

function deliver(tx: ReturnType<typeof world>['tx'], ...frames: Uint8Array[]): void {
  for (const bytes of frames) send(tx, bytes);
  tx.publish();
  assert.equal(rig.settle(), frames.length);
  tx.used();
}

const lengths = fc.array(fc.oneof(fc.integer({ min: 14, max: 300 }), fc.nat({ max: 9000 })), {
  minLength: 1,
  maxLength: 20,
});

overRings(rig, MIXED, 'receive', () => {
  it('merged buffers of random sizes and shapes take frames whole or not at all', () => {
    let merged = 0;
    let refused = 0;
    fc.assert(
      fc.property(
        lengths,
        fc.array(
          fc.record({
            parts: fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2000 })), {
              minLength: 1,
              maxLength: 4,
            }),
            inner: fc.option(fc.nat({ max: 3 }), { nil: undefined }),
          }),
          { maxLength: 50 },
        ),
        fc.nat(),
        (wanted, buffers, seed) => {
          const { tx, sink } = world(PLAIN);
          for (const { parts, inner } of buffers) {
            // The first buffer of a frame has to hold the header (virtio 1.2 §5.1.6.3.1).
            const sized = [Math.max(parts[0]!, 12), ...parts.slice(1)];
            sink.post(sized, inner === undefined ? undefined : Math.min(inner, parts.length - 1));
          }
          sink.rx.publish();
          const sent = wanted.map((length, i) =>
            frame({ length: Math.max(length, 40), seed: seed + i }),
          );
          deliver(tx, ...sent);
          const got = sink.take();
          sink.checkPosted();
          // What arrived is what was sent, in order, without the frames counted as dropped.
          const places = got.map((one) =>
            sent.findIndex((bytes) => Buffer.compare(bytes, one.frame) === 0),
          );
          assert.deepEqual(
            places,
            [...places].sort((a, b) => a - b),
          );
          assert.ok(!places.includes(-1));
          assert.equal(got.length, sink.rx.frames);
          assert.equal(got.length + (sink.rx.drops['rx_full'] ?? 0), sent.length);
          assert.equal(sink.rx.dropped, sink.rx.drops['rx_full'] ?? 0);
          merged += got.filter((one) => one.buffers > 1).length;
          refused += sink.rx.dropped;
        },
      ),
      { numRuns: 150 },
    );
    assert.ok(merged > 50 && refused > 50, `${merged} merged, ${refused} refused`);
  });

  it('a frame over N merged buffers: num_buffers is N, all but the last are full', () => {
    for (const size of [128, 500, 1024, 1526]) {
      const { tx, sink } = world(PLAIN, 1024);
      const bytes = frame({ length: 9000 });
      sink.fill(100, size);
      deliver(tx, bytes);
      const count = Math.ceil((9000 + 12) / size);
      const [got] = sink.take();
      assert.equal(got?.buffers, count);
      assert.deepEqual(got?.frame, bytes);
      assert.equal(sink.rx.outstanding.size, 100 - count);
      sink.checkPosted();
    }
  });

  it('the longest frame fills merged buffers', () => {
    const { tx, sink } = world(PLAIN, 1024);
    const bytes = frame({ length: 65557 });
    sink.fill(100, 1526);
    deliver(tx, bytes);
    assert.deepEqual(sink.take()[0]?.frame, bytes);
  });

  it('without room for all of it, no part of a frame is delivered, and no buffer is kept', () => {
    const { tx, sink } = world(PLAIN);
    sink.fill(5, 500);
    deliver(tx, frame({ length: 2600 }));
    assert.deepEqual(sink.rx.drops, { rx_full: 1 });
    assert.equal(sink.rx.completed, 0);
    sink.checkPosted();
    // The same buffers take the next frame that fits.
    const bytes = frame({ length: 2400 });
    deliver(tx, bytes);
    assert.deepEqual(sink.take()[0]?.frame, bytes);
  });

  it('one buffer more makes the same frame fit', () => {
    const { tx, sink } = world(PLAIN);
    sink.fill(5, 500);
    const bytes = frame({ length: 2600 });
    deliver(tx, bytes);
    sink.fill(1, 500);
    deliver(tx, bytes);
    assert.deepEqual(sink.take()[0]?.frame, bytes);
  });

  it('unmerged, a frame longer than the buffer is dropped as rx_too_small', () => {
    const { tx, sink } = world(SINGLE);
    sink.fill(4, 100);
    const fits = frame({ length: 88 });
    deliver(tx, frame({ length: 89 }), fits, frame({ length: 1514 }));
    assert.deepEqual(sink.rx.drops, { rx_too_small: 2 });
    assert.deepEqual(
      sink.take().map((got) => got.frame),
      [fits],
    );
    sink.checkPosted();
  });

  it('unmerged chains of many descriptors are filled in order, indirect ones too', () => {
    const bytes = frame({ length: 1514 });
    const chains = [[12, 1514], [1, 1, 10, 14, 1500], Array(40).fill(40), [5, 0, 0, 2000]];
    for (const parts of chains) {
      for (const inner of [undefined, 0, 1]) {
        const { tx, sink } = world(SINGLE);
        sink.post(parts, inner);
        sink.rx.publish();
        deliver(tx, bytes);
        assert.deepEqual(sink.take()[0]?.frame, bytes, `${parts} ${inner}`);
      }
    }
  });

  it('buffers smaller than the header: the frame is delivered whole or counted', () => {
    for (const size of [1, 2, 5, 9, 11]) {
      for (const receiver of [PLAIN, SINGLE]) {
        const { tx, sink } = world(receiver);
        sink.fill(40, size);
        deliver(tx, frame({ length: 14 }));
        const used = sink.rx.used();
        if (receiver === SINGLE) assert.deepEqual(sink.rx.drops, { rx_too_small: 1 });
        const total = used.reduce((sum, { len }) => sum + len, 0);
        assert.equal(total, receiver === SINGLE ? 0 : 26);
        assert.equal(sink.rx.frames + sink.rx.dropped, 1);
        if (receiver === SINGLE) sink.checkPosted();
      }
    }
  });

  it('a frame that would take more than 256 buffers is dropped as rx_too_small', () => {
    const { tx, sink } = world(PLAIN, 1024);
    sink.fill(1000, 20);
    deliver(tx, frame({ length: 256 * 20 - 12 }));
    assert.equal(sink.take().length, 1);
    deliver(tx, frame({ length: 256 * 20 - 11 }));
    assert.deepEqual(sink.rx.drops, { rx_too_small: 1 });
    assert.equal(sink.rx.outstanding.size, 1000 - 256);
  });

  it('a buffer longer than 4 GiB of descriptors is as good as one just long enough', () => {
    const { tx, sink } = world(SINGLE, 1024);
    const { rx } = sink;
    const at = rx.port.alloc(70000);
    // 900 descriptors of 16 MiB that all lie in the same place: 14 GiB in sum.
    const part = { addr: rx.port.gpa(rx.port.base + 0x40_0000), len: 0x100_0000, write: true };
    const first = { addr: rx.port.gpa(at), len: 70000, write: true };
    const head = rx.add([first, ...Array(900).fill(part)]);
    rx.publish();
    deliver(tx, frame({ length: 65557 }));
    assert.deepEqual(rx.used(), [{ head, len: 65557 + 12 }]);
  });
});
