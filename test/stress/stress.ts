// What the stress tests share: how long to run, and when two streams count as right.

import assert from 'node:assert/strict';
import * as V from '../../src/abi/virtio.ts';
import type { Switch, TrafficPair } from '../../src/api/index.ts';
import { bit } from '../../src/virtio/features.ts';

/** The long forms take minutes to an hour; the short ones are what every change passes. */
export const LONG = process.env['VHOP_LONG'] === '1';

export interface RingKind {
  name: string;
  packed: boolean;
  features: bigint;
}

/** A guest's rings: split or packed, with and without EVENT_IDX and IN_ORDER. */
export const RING_KINDS: readonly RingKind[] = [false, true].flatMap((packed) =>
  [true, false].flatMap((events) =>
    [false, true].map((inOrder) => ({
      name: [packed ? 'packed' : 'split', events ? 'EVENT_IDX' : 'flags', inOrder && 'IN_ORDER']
        .filter(Boolean)
        .join(', '),
      packed,
      features: [
        V.F_VERSION_1,
        V.F_INDIRECT_DESC,
        ...(events ? [V.F_EVENT_IDX] : []),
        ...(packed ? [V.F_RING_PACKED] : []),
        ...(inOrder ? [V.F_IN_ORDER] : []),
      ].reduce((sum, n) => sum | bit(n), 0n),
    })),
  ),
);

/** A guest's features on packed rings with all that they can do. */
export const PACKED = RING_KINDS.find(({ packed }) => packed)!.features;

/** Kinds for the two guests: each kind with itself, and split against packed both ways. */
export const KIND_PAIRS: readonly (readonly [RingKind, RingKind])[] = [
  ...RING_KINDS.map((kind) => [kind, kind] as const),
  [RING_KINDS[0]!, RING_KINDS[7]!],
  [RING_KINDS[4]!, RING_KINDS[3]!],
];

export function pairName([a, b]: readonly [RingKind, RingKind]): string {
  return a === b ? a.name : `${a.name} to ${b.name}`;
}

/** The guests negotiated what the test is about. */
export function checkKinds(lab: Switch, kinds: readonly [RingKind, RingKind]): void {
  for (const [i, port] of lab.ports().entries()) {
    const { packed, features } = kinds[i]!;
    assert.equal(port.features.includes('RING_PACKED'), packed);
    assert.equal(port.features.length, features.toString(2).replaceAll('0', '').length);
  }
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Rings and counters, for the message of a failure. */
export function state(lab: Switch): string {
  const rings = lab.rings().map((r) => JSON.stringify(r));
  return [...rings, JSON.stringify(lab.stats())].join('\n');
}

/**
 * Waits until each guest has sent `frames`, as long as something moves: no progress in `patience`
 * milliseconds is a stall, and fails with the rings' state.
 */
export async function finished(
  lab: Switch,
  traffic: TrafficPair,
  frames: number,
  patience = 10_000,
): Promise<void> {
  let last = -1;
  let since = performance.now();
  for (;;) {
    const counts = traffic.counts();
    const sent = counts[0].sent + counts[1].sent;
    if (counts.every((c) => c.sent >= frames)) return;
    if (sent !== last) {
      last = sent;
      since = performance.now();
    } else if (performance.now() - since > patience) {
      assert.fail(`stalled after ${sent} frames\n${JSON.stringify(counts)}\n${state(lab)}`);
    }
    await sleep(20);
  }
}

/** Nothing corrupt, reordered, duplicated or foreign; what did not arrive is a counted drop. */
export async function verify(lab: Switch, traffic: TrafficPair): Promise<void> {
  const [a, b] = await traffic.drain();
  const context = () => `${JSON.stringify([a, b])}\n${state(lab)}`;
  for (const guest of [a, b]) {
    const { corrupt, reordered, foreign } = guest;
    assert.deepEqual({ corrupt, reordered, foreign }, { corrupt: 0, reordered: 0, foreign: 0 });
  }
  const drops = (port: string) =>
    Object.values(lab.stats().ports.find((p) => p.port === port)?.drops ?? {}).reduce(
      (sum, n) => sum + n,
      0,
    );
  assert.equal(a.sent, b.received + drops('guest-b'), context());
  assert.equal(b.sent, a.received + drops('guest-a'), context());
}
