// Our driver against our device, in one thread: guests that sleep until called and a worker that
// sleeps until kicked, run in any order. Nobody may sleep while there is something to do.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  GUEST_CORRUPT,
  GUEST_FOREIGN,
  GUEST_RECEIVED,
  GUEST_REORDERED,
  GUEST_SENT,
} from '../../src/abi/driver.ts';
import { RING_DROPS } from '../../src/abi/layout.ts';
import * as V from '../../src/abi/virtio.ts';
import { ringAddress } from '../../src/memory/control.ts';
import { DROP_NAMES } from '../../src/observe/drops.ts';
import { OwnGuest } from './own-guest.ts';
import { features, Rig } from './rig.ts';

const rig = new Rig();
const FRAMES = 150;
const RUNS = 150;

const kind = fc.boolean().chain((packed) =>
  fc.record({
    packed: fc.constant(packed),
    size: packed ? fc.integer({ min: 2, max: 90 }) : fc.constantFrom(2, 8, 64),
    events: fc.boolean(),
    inOrder: fc.boolean(),
    mergeable: fc.boolean(),
    segments: fc.integer({ min: 1, max: 4 }),
  }),
);

/** What happens next: a guest's round, the worker's, or one of them going to sleep. */
const step = fc.constantFrom('a', 'a', 'b', 'b', 'poll', 'poll', 'sleep a', 'sleep b', 'arm');

function drops(): number {
  let sum = 0;
  for (const port of rig.ports) {
    for (const queue of [0, 1]) {
      const at = ringAddress(port.index * 16 + queue) + RING_DROPS;
      for (let i = 0; i < DROP_NAMES.length; i++) sum += rig.control.counter(at + i * 8);
    }
  }
  return sum;
}

describe('our driver and our device', { timeout: 120_000 }, () => {
  it('any two kinds of rings, any order of turns: all arrives or is counted, nobody sleeps on', () => {
    let arrived = 0;
    fc.assert(
      fc.property(
        kind,
        kind,
        fc.array(step, { minLength: 20, maxLength: 200 }),
        (one, two, steps) => {
          rig.clear();
          const ports = [one, two].map(({ packed, events, inOrder, mergeable }) =>
            rig.port({
              features: features(
                V.F_VERSION_1,
                V.F_INDIRECT_DESC,
                ...(packed ? [V.F_RING_PACKED] : []),
                ...(events ? [V.F_EVENT_IDX] : []),
                ...(inOrder ? [V.F_IN_ORDER] : []),
                ...(mergeable ? [V.F_MRG_RXBUF] : []),
              ),
            }),
          );
          rig.wire(ports[0]!, ports[1]!);
          const guests = [one, two].map(
            ({ size, segments }, i) =>
              new OwnGuest(ports[i]!, ports[1 - i]!, { size, segments, frames: FRAMES }),
          );
          for (const guest of guests) guest.start();
          const asleep = [false, false];
          rig.onCall = (ring) => {
            asleep[ring >> 4] = false;
          };
          const turn = (i: number) => {
            // Only a call wakes a guest.
            if (asleep[i]) return 0;
            guests[i]!.disarm();
            return guests[i]!.run();
          };
          const sleep = (i: number) => {
            if (asleep[i]) return;
            // Nothing left to do of its own accord: what else there is, a call tells.
            while (guests[i]!.run() > 0);
            asleep[i] = !guests[i]!.arm();
            if (!asleep[i]) guests[i]!.disarm();
          };
          let at = 0;
          const next = () => {
            const what = steps[at++ % steps.length]!;
            if (what === 'a') turn(0);
            else if (what === 'b') turn(1);
            else if (what === 'poll') rig.datapath.poll();
            else if (what === 'arm') rig.datapath.armAll();
            else sleep(what === 'sleep a' ? 0 : 1);
          };
          for (let i = 0; i < 400; i++) next();
          // From here on each does all it can before it sleeps: two rounds of that without a move,
          // and everybody sleeps for good.
          for (let quiet = 0; quiet < 2; ) {
            let moved = rig.settle();
            rig.datapath.armAll();
            for (const i of [0, 1]) {
              moved += turn(i);
              sleep(i);
            }
            quiet = moved > 0 ? 0 : quiet + 1;
          }
          const sum = (field: number) => guests.reduce((n, guest) => n + guest.count(field), 0);
          assert.equal(sum(GUEST_SENT), 2 * FRAMES);
          arrived += sum(GUEST_RECEIVED);
          assert.equal(sum(GUEST_RECEIVED) + drops(), 2 * FRAMES);
          assert.deepEqual([GUEST_CORRUPT, GUEST_REORDERED, GUEST_FOREIGN].map(sum), [0, 0, 0]);
          assert.deepEqual([guests.map(({ errors }) => errors), rig.latched], [[0, 0], []]);
        },
      ),
      { numRuns: RUNS },
    );
    assert.ok(arrived > (RUNS * FRAMES) / 2, `only ${arrived} arrived`);
  });
});
