// What the hostile sender's tests share: a bad guest, a victim, and one that must notice nothing.

import assert from 'node:assert/strict';
import { F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1 } from '../../src/abi/virtio.ts';
import type { Format } from '../datapath/formats.ts';
import { frame, header, mac, Receiver, send } from '../datapath/frames.ts';
import type { Descriptor, TestQueue } from '../datapath/queue.ts';
import type { PackedQueue } from '../datapath/queue-packed.ts';
import { features, PLAIN, type TestRegion } from '../datapath/rig.ts';
import { fresh, guarded, kick, rig } from './guard.ts';

/** Bytes of the hostile guest's larger region. */
export const ARENA = 0x80_0000;

export interface World<Queue extends TestQueue = TestQueue> {
  tx: Queue;
  sink: Receiver;
  /** A good buffer of 76 bytes: header and frame. */
  good: bigint;
}

export const MODERN = features(F_VERSION_1, F_INDIRECT_DESC, F_EVENT_IDX);

/** `more`: further regions of the hostile guest (guard.ts, `guarded`). */
export function world(
  acked = MODERN,
  size = 16,
  others = PLAIN,
  more: readonly TestRegion[] = [],
): World {
  fresh(0);
  const bad = guarded(acked, ARENA, more);
  const [victim, other] = [guarded(others), guarded(others)];
  const tx = bad.queue(1, { size });
  bad.queue(0, { size });
  const sink = new Receiver(victim.queue(0)).fill(100);
  victim.queue(1);
  other.queue(1);
  new Receiver(other.queue(0)).fill(100);
  const at = bad.alloc(4096);
  rig.bytes.set(header(), at);
  rig.bytes.set(frame({ length: 4000 }), at + bad.headerLength);
  return { tx, sink, good: bad.gpa(at) };
}

/** The hostile ring is packed, the victim's in one round only. */
export const PACKED: Format[] = ['packed', 'packed to split'];

/** The hostile TX ring of `size`, a packed one, starting anywhere (QueueSpec). */
export function packedWorld(size = 16, start?: number): World<PackedQueue> {
  const w = world(MODERN, size) as World<PackedQueue>;
  if (start !== undefined) w.tx = w.tx.port.queue(1, { size, start }) as PackedQueue;
  return w;
}

/** Innocent frames still pass, from another port and, unless it is latched, from this one. */
export function innocent({ tx, sink }: World, latched: boolean): void {
  const other = rig.ports[2]!.queues[1]!;
  const bytes = frame({ from: mac(3), to: mac(9) });
  const before = sink.take().length;
  assert.equal(before, 0, 'nothing of the bad guest arrived');
  send(other, bytes);
  kick(other);
  if (!latched && tx.free > 0) {
    send(tx, bytes);
    kick(tx);
  }
  rig.settle();
  const expected = latched || tx.free === 0 ? [bytes] : [bytes, bytes];
  assert.deepEqual(
    sink.take().map((got) => got.frame),
    expected,
  );
  assert.equal(other.used().length, 1);
}

/** One chain of these descriptors costs one frame, under `reason`. */
export function refuses(reason: string, made: World, descriptors: Descriptor[], times = 3): void {
  for (let i = 1; i <= times; i++) {
    made.tx.addRaw(descriptors, 0);
    made.tx.publish();
    assert.equal(rig.settle(), 1);
    assert.deepEqual(made.tx.drops, { [reason]: i });
    assert.deepEqual(
      made.tx.used().map(({ len }) => len),
      [0],
    );
    // The next round takes the same descriptors again.
    made.tx.sortFree();
  }
  assert.deepEqual(rig.latched, []);
  innocent(made, false);
}
