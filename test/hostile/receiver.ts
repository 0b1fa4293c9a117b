// What the hostile receiver's tests share: a sender, the bad guest, and one that must notice nothing.

import assert from 'node:assert/strict';
import { RING_BROKEN, RING_REASON, RING_STATE } from '../../src/abi/layout.ts';
import { BROADCAST, frame, Receiver, send } from '../datapath/frames.ts';
import type { TestRegion } from '../datapath/rig.ts';
import { fresh, guarded, kick, rig } from './guard.ts';

/** Bytes of the hostile guest's larger region. */
export const ARENA = 0x80_0000;

/** A sender, a hostile receiver, and one that must notice nothing; all frames are broadcast. */
export function world(acked: bigint, size = 16, more: readonly TestRegion[] = []) {
  fresh(1);
  const [from, bad, good] = [guarded(), guarded(acked, ARENA, more), guarded()];
  const at = bad.alloc(8192) + 4096;
  return {
    tx: from.queue(1),
    rx: bad.queue(0, { size }),
    good: new Receiver(good.queue(0)).fill(200),
    /** 2048 bytes that may be written. */
    room: bad.gpa(at),
    linear: at,
  };
}

export type World = ReturnType<typeof world>;

/** Sends `n` frames to all; the good port must get every one. Returns what the bad one counted. */
export function broadcast({ tx, good }: World, n: number, length = 100): Uint8Array[] {
  const frames = Array.from({ length: n }, (_, i) => frame({ to: BROADCAST, length, seed: i }));
  for (const bytes of frames) send(tx, bytes);
  kick(tx);
  assert.equal(rig.settle(), n);
  assert.equal(tx.used().length, n);
  assert.deepEqual(
    good.take().map((got) => got.frame),
    frames,
  );
  assert.deepEqual([tx.drops, good.rx.drops], [{}, {}]);
  return frames;
}

/** The bad ring is latched for `reason`, `frames` delivered or counted; nothing is touched any more. */
export function latched(w: World, reason: number, frames: number): void {
  assert.equal(w.rx.get(RING_STATE), RING_BROKEN);
  assert.equal(w.rx.get(RING_REASON), reason);
  assert.deepEqual(rig.latched, [w.rx.index]);
  assert.equal(w.rx.frames + w.rx.dropped, frames);
  // Latched is latched: not a byte more.
  const image = Buffer.from(rig.bytes.slice(w.linear, w.linear + 2048));
  const { completed } = w.rx;
  broadcast(w, 4);
  assert.equal(w.rx.completed, completed);
  assert.deepEqual(Buffer.from(rig.bytes.slice(w.linear, w.linear + 2048)), image);
  assert.equal(w.rx.frames + w.rx.dropped, frames + 4);
  assert.equal(w.rx.drops['rx_down']! >= 4, true);
}
