// Each posting is completed once (CVE-2026-74310, CVE-2020-14376): over random runs of good and bad
// chains both ways, what comes back is what was posted, head by head.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { RINGF_PACKED } from '../../src/abi/layout.ts';
import { F_IN_ORDER } from '../../src/abi/virtio.ts';
import { MIXED, overRings } from '../datapath/formats.ts';
import { BROADCAST, frame, place } from '../datapath/frames.ts';
import type { Part, TestQueue } from '../datapath/queue.ts';
import { features, gpaOf, PLAIN } from '../datapath/rig.ts';
import { fresh, guarded, kick, rig } from './guard.ts';

/** How often each head was posted and came back. */
class Ledger {
  readonly queue: TestQueue;
  readonly posted = new Map<number, number>();
  readonly back = new Map<number, number>();
  total = 0;

  constructor(queue: TestQueue) {
    this.queue = queue;
  }

  post(parts: Part[], inner?: number): boolean {
    const head = this.queue.add(parts, inner);
    if (head < 0) return false;
    this.posted.set(head, (this.posted.get(head) ?? 0) + 1);
    return true;
  }

  /** used() throws on a head that is not outstanding. */
  settle(): number[] {
    const used = this.queue.used();
    for (const { head } of used) {
      this.back.set(head, (this.back.get(head) ?? 0) + 1);
      const times = this.back.get(head)!;
      assert.ok(times <= (this.posted.get(head) ?? 0), `head ${head} came back ${times} times`);
    }
    this.total += used.length;
    assert.equal(this.queue.completed, this.total);
    return used.map(({ len }) => len);
  }

  /** Heads that are still out: posted once more than they came back. */
  get out(): number {
    let out = 0;
    for (const [head, times] of this.posted) out += times - (this.back.get(head) ?? 0);
    return out;
  }
}

const kind = fc.constantFrom('good', 'good', 'good', 'cut', 'none', 'elsewhere', 'readonly');
const bursts = fc.array(
  fc.record({
    send: fc.array(fc.record({ kind, length: fc.integer({ min: 14, max: 1600 }) }), {
      maxLength: 70,
    }),
    post: fc.array(fc.record({ kind, length: fc.integer({ min: 1, max: 2048 }) }), {
      maxLength: 40,
    }),
    indirect: fc.boolean(),
  }),
  { minLength: 3, maxLength: 20 },
);

function parts(queue: TestQueue, what: string, bytes: Uint8Array, write: boolean): Part[] {
  switch (what) {
    case 'none':
      return [{ addr: 0n, len: 0, write }];
    case 'elsewhere':
      return [{ addr: gpaOf(7), len: 100, write }];
    case 'readonly':
      return [{ addr: queue.port.gpa(queue.port.base + 4096), len: 100, write: !write }];
    case 'cut':
      return place(queue, bytes, [5, 12, 13, 50]).map((part) => ({ ...part, write }));
    default:
      return place(queue, bytes, []).map((part) => ({ ...part, write }));
  }
}

overRings(rig, MIXED, 'completions', () => {
  it('class 28: every head that is posted comes back once, over random bursts', () => {
    let back = 0;
    fc.assert(
      fc.property(bursts, fc.nat({ max: 0xffff }), (list, start) => {
        fresh(0, 1);
        const [from, to] = [guarded(PLAIN, 0x80_0000), guarded(PLAIN, 0x80_0000)];
        const tx = new Ledger(from.queue(1, { size: 64, start }));
        const rx = new Ledger(to.queue(0, { size: 64, start }));
        for (const { send, post, indirect } of list) {
          const inner = indirect ? 0 : undefined;
          for (const { kind, length } of post) {
            rx.post(parts(rx.queue, kind, new Uint8Array(length), true), inner);
          }
          let sent = 0;
          for (const { kind, length } of send) {
            const bytes = new Uint8Array(12 + length);
            bytes.set(frame({ to: BROADCAST, length, seed: length }), 12);
            if (tx.post(parts(tx.queue, kind, bytes, false), inner)) sent++;
          }
          kick(rx.queue);
          kick(tx.queue);
          rig.settle();
          const lengths = tx.settle();
          assert.equal(lengths.length, sent);
          assert.ok(lengths.every((len) => len === 0));
          assert.equal(tx.out, 0);
          rx.settle();
          assert.equal(rx.out, rx.queue.outstanding.size);
        }
        assert.equal(tx.queue.frames, tx.total);
        assert.deepEqual(rig.latched, []);
        back += tx.total + rx.total;
      }),
      { numRuns: 40 },
    );
    assert.ok(back > 1500, `${back} completions`);
  });

  it('class 28: with IN_ORDER one entry stands for a burst, and names its last chain', () => {
    // A burst of 64 is part of a ring of 256.
    const SIZE = 256;
    for (const n of [1, 2, 7, 33, 64]) {
      fresh(0);
      const from = guarded(PLAIN | features(F_IN_ORDER));
      guarded();
      const tx = from.queue(1, { size: SIZE });
      const heads = Array.from({ length: n }, () =>
        tx.add(place(tx, new Uint8Array(100).fill(2), [])),
      );
      kick(tx);
      assert.equal(rig.settle(), n);
      const last = heads.at(-1)!;
      const { view } = rig;
      if (tx.flags & RINGF_PACKED) {
        assert.equal(view.getUint16(tx.desc + 12, true), last);
        const used = Array.from({ length: SIZE }, (_, slot) => slot).filter((slot) => {
          const flags = view.getUint16(tx.desc + slot * 16 + 14, true);
          return (flags & 0x8080) === 0x8080;
        });
        assert.deepEqual(used, [0]);
      } else {
        assert.equal(view.getUint32(tx.usedRing + 4, true), last);
        assert.equal(view.getUint16(tx.usedRing + 2, true), n);
        if (n > 1) assert.equal(view.getUint32(tx.usedRing + 12, true), 0);
      }
      assert.equal(tx.frames, n);
      assert.equal(rig.settle(), 0);
    }
  });
});
