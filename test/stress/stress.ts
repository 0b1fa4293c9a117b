// What the stress tests share: how long to run, and when two streams count as right.

import assert from 'node:assert/strict';
import type { Switch, TrafficPair } from '../../src/api/index.ts';

/** The long forms take minutes to an hour; the short ones are what every change passes. */
export const LONG = process.env['VHOP_LONG'] === '1';

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
