// Policing: what a port may send.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SWITCH_POLICED, WORKER_BASE, WORKER_NOW } from '../../src/abi/layout.ts';
import { F_CSUM, F_HOST_TSO4, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { effectivePolicing, publishPolicing } from '../../src/switch/policing.ts';
import type { Policing } from '../../src/types.ts';
import { frame, header, Receiver, send } from './frames.ts';
import { features, PLAIN, Rig } from './rig.ts';

const rig = new Rig();
const MS = 1e6;
let now = 0;

/** A sender with these limits, and a receiver with plenty of room. */
function world(policing: Policing, acked = PLAIN) {
  rig.clear();
  const [a, b] = [rig.port({ features: acked }), rig.port({ features: acked })];
  rig.wire(a, b);
  const tx = a.queue(1, { size: 1024 });
  const sink = new Receiver(b.queue(0, { size: 1024 }));
  publishPolicing(rig.control, a.index, effectivePolicing(policing));
  rig.control.set(SWITCH_POLICED, 1);
  now = Number(process.hrtime.bigint());
  return { tx, sink };
}

/** So many frames of `length` bytes, `at` nanoseconds on; returns how many arrived. */
function passed({ tx, sink }: ReturnType<typeof world>, n: number, length: number, at = 0): number {
  now += at;
  rig.control.setFloat(WORKER_BASE + WORKER_NOW, now);
  sink.fill(n);
  const bytes = frame({ length });
  for (let i = 0; i < n; i++) send(tx, bytes);
  tx.publish();
  rig.settle();
  assert.equal(tx.used().length, n, 'every buffer comes back');
  return sink.take().length;
}

describe('policing', () => {
  it('of frames: the burst at once, then the rate, and no more than a burst after a pause', () => {
    const w = world({ rate: { frames: 1e6 }, burst: { frames: 100 } });
    assert.equal(passed(w, 300, 60), 100);
    assert.deepEqual(w.tx.drops, { tx_policed: 200 });
    assert.equal(passed(w, 50, 60), 0);
    assert.equal(passed(w, 200, 60, 0.05 * MS), 50);
    assert.equal(passed(w, 300, 60, 10 * MS), 100);
  });

  it('of bits: by the length of frames', () => {
    const w = world({ rate: { bits: 1e9 }, burst: { bits: 8 * 10_000 } });
    assert.equal(passed(w, 20, 1000), 10);
    assert.equal(passed(w, 20, 1000, 0.04 * MS), 5);
    assert.equal(passed(w, 64, 100, 0.016 * MS), 20);
  });

  it('of both: a frame needs both', () => {
    const w = world({ rate: { bits: 1e9, frames: 1000 }, burst: { bits: 8 * 10_000, frames: 20 } });
    assert.equal(passed(w, 30, 1000), 10);
    assert.equal(passed(w, 30, 60, 0.08 * MS), 10);
  });

  it('a short frame passes behind a long one that may not', () => {
    const w = world({ rate: { bits: 1e9 }, burst: { bits: 8 * 2000 } });
    assert.equal(passed(w, 1, 1500), 1);
    w.sink.fill(2);
    send(w.tx, frame({ length: 1000 }));
    send(w.tx, frame({ length: 400 }));
    w.tx.publish();
    rig.settle();
    assert.deepEqual(
      w.sink.take().map((got) => got.frame.length),
      [400],
    );
  });

  it('a frame longer than the burst passes when the bucket is full, and is paid for after', () => {
    const w = world({ rate: { bits: 8e6 }, burst: { bits: 8 * 500 } });
    assert.equal(passed(w, 2, 1500), 1);
    // 1000 bytes in debt at a byte a microsecond.
    assert.equal(passed(w, 1, 60, 0.9 * MS), 0);
    assert.equal(passed(w, 1, 60, 0.2 * MS), 1);
  });

  it('a frame to be segmented counts as its segments', () => {
    const offer = features(F_VERSION_1, F_CSUM, F_HOST_TSO4);
    const w = world({ rate: { frames: 1000 }, burst: { frames: 10 } }, offer);
    const bytes = frame({ length: 54 + 6000, type: 0x0800 });
    const head = header({ flags: 1, gso: 1, start: 34, offset: 16, gsoSize: 1000 });
    w.sink.fill(10);
    for (let i = 0; i < 2; i++) send(w.tx, bytes, { header: head });
    w.tx.publish();
    rig.settle();
    // Six segments each: the second does not fit beside the first.
    assert.deepEqual(w.tx.drops, { tx_policed: 1 });
  });

  it('is off where nobody asked for it', () => {
    const w = world({});
    assert.equal(passed(w, 1000, 60), 1000);
  });

  it('a clock reading older than the last adds nothing and takes nothing', () => {
    const w = world({ rate: { frames: 1e6 }, burst: { frames: 10 } });
    assert.equal(passed(w, 10, 60), 10);
    assert.equal(passed(w, 10, 60, -5 * MS), 0);
    assert.equal(passed(w, 10, 60, 5 * MS + 1000), 1);
  });
});
