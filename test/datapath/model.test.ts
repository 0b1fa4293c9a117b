// Many bursts over one pair of rings, of any size and from any start, against a model of what a receiver
// gets: buffers are taken in order, a frame is whole or counted, nothing else is written.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { F_INDIRECT_DESC, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { type Format, MIXED, overRings } from './formats.ts';
import { frame, Receiver, send } from './frames.ts';
import { features, PLAIN, Rig } from './rig.ts';

const rig = new Rig();
const SINGLE = features(F_VERSION_1, F_INDIRECT_DESC);
const HEADER = 12;

/** What becomes of a frame of `length` bytes: the capacities of the buffers it takes, or why none. */
function judge(posted: number[], length: number, mergeable: boolean): number[] | string {
  const taken: number[] = [];
  let room = 0;
  while (room < length + HEADER) {
    if (taken.length > 0 && !mergeable) return 'rx_too_small';
    const next = posted[taken.length];
    if (next === undefined) return 'rx_full';
    taken.push(next);
    room += next;
  }
  return taken;
}

/** Sizes and starts of a ring; a split one's size is a power of two. */
function ring(packed: boolean) {
  return fc.record({
    size: packed
      ? fc.oneof(fc.integer({ min: 2, max: 9 }), fc.integer({ min: 2, max: 300 }))
      : fc.constantFrom(2, 4, 8, 64, 256),
    start: fc.oneof(fc.nat({ max: 0xffff }), fc.constantFrom(0x7ffe, 0x8000, 0xfffe)),
  });
}

function senderPacked(format: Format): boolean {
  return format === 'packed' || format === 'packed to split';
}

function receiverPacked(format: Format): boolean {
  return format === 'packed' || format === 'split to packed';
}

const burst = fc.record({
  /** Buffers to post: descriptors' lengths, the first one's at least a header. */
  post: fc.array(
    fc.record({
      parts: fc.array(fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: 2500 })), {
        minLength: 1,
        maxLength: 4,
      }),
      indirect: fc.boolean(),
    }),
    { maxLength: 30 },
  ),
  /** Frames to send: bytes, where they are cut, and whether in a table. */
  frames: fc.array(
    fc.record({
      length: fc.oneof(fc.integer({ min: 14, max: 300 }), fc.integer({ min: 14, max: 4000 })),
      cuts: fc.array(fc.nat({ max: 300 }), { maxLength: 4 }),
      indirect: fc.boolean(),
    }),
    { maxLength: 90 },
  ),
});

overRings(rig, MIXED, 'model', (format) => {
  it('any sizes, starts, shapes and laps: what arrives is what the model says', () => {
    const seen = { merged: 0, rx_full: 0, rx_too_small: 0, laps: 0 };
    fc.assert(
      fc.property(
        ring(senderPacked(format)),
        ring(receiverPacked(format)),
        fc.boolean(),
        fc.array(burst, { minLength: 5, maxLength: 40 }),
        (from, to, mergeable, bursts) => {
          rig.clear();
          const [a, b] = [rig.port(), rig.port({ features: mergeable ? PLAIN : SINGLE })];
          rig.wire(a, b);
          const tx = a.queue(1, from);
          const sink = new Receiver(b.queue(0, to));
          const posted: number[] = [];
          const drops: Record<string, number> = {};
          let slots = 0;
          for (const { post, frames } of bursts) {
            for (const { parts, indirect } of post) {
              const sized = [Math.max(parts[0]!, HEADER), ...parts.slice(1)];
              const before = sink.rx.free;
              if (sink.post(sized, indirect ? 0 : undefined) < 0) continue;
              slots += before - sink.rx.free;
              posted.push(sized.reduce((sum, len) => sum + len, 0));
            }
            sink.rx.publish();
            const expected: { bytes: Uint8Array; buffers: number }[] = [];
            let sent = 0;
            for (const { length, cuts, indirect } of frames) {
              const bytes = frame({ length, seed: length + sent });
              if (send(tx, bytes, { cuts, inner: indirect ? 0 : undefined }) < 0) break;
              sent++;
              const got = judge(posted, length, mergeable);
              if (typeof got === 'string') {
                drops[got] = (drops[got] ?? 0) + 1;
              } else {
                posted.splice(0, got.length);
                expected.push({ bytes, buffers: got.length });
                if (got.length > 1) seen.merged++;
              }
            }
            tx.publish();
            assert.equal(rig.settle(), sent);
            const back = tx.used();
            assert.deepEqual([back.length, tx.free], [sent, from.size]);
            assert.ok(back.every(({ len }) => len === 0));
            const got = sink.take();
            assert.deepEqual(
              got.map((one) => one.frame),
              expected.map((one) => one.bytes),
            );
            assert.deepEqual(
              got.map((one) => one.buffers),
              expected.map((one) => one.buffers),
            );
            assert.equal(sink.empty, 0);
            assert.deepEqual([tx.drops, sink.rx.drops], [{}, drops]);
            assert.equal(sink.rx.outstanding.size, posted.length);
          }
          sink.checkPosted();
          assert.deepEqual(rig.latched, []);
          seen.rx_full += drops['rx_full'] ?? 0;
          seen.rx_too_small += drops['rx_too_small'] ?? 0;
          if (slots > 3 * to.size) seen.laps++;
        },
      ),
      { numRuns: 100 },
    );
    for (const [what, times] of Object.entries(seen)) assert.ok(times > 10, `${what}: ${times}`);
  });
});
