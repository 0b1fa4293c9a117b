// Every model holds, exhaustively, and every way to break it is found. What is explored shows as
// diagnostics. VHOP_LONG=1: all sizes under both memory orders.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check, EXHAUSTIVE, TO_AN_ERROR } from './spin.ts';

const LONG = process.env['VHOP_LONG'] === '1';
const TSO = 'MEMORY=TSO';
const ARM = 'MEMORY=ARM';

interface Model {
  /** Defines of the runs that must hold; what Arm may do includes all that x86 may (memory.pml). */
  holds: string[][];
  long: string[][];
  /** Defines of the smallest ring that shows all the errors below. */
  small: string[];
  /** Broken on either architecture, or, behind its name, on Arm alone: there x86 must hold. */
  broken: string[];
  onArm: string[];
}

const MODELS: Record<string, Model> = {
  'kick-split.pml': {
    holds: [[ARM], [ARM, 'GUEST']],
    long: [[TSO], [TSO, 'GUEST']],
    small: [],
    broken: [
      'PLAIN_PUBLISH',
      'PLAIN_ARM',
      'NO_RECHECK',
      'EVENT_LATE',
      'CHECK_FIRST',
      'FORGETFUL',
      'GUEST NO_FENCE',
    ],
    onArm: [],
  },
  'kick-packed.pml': {
    holds: [
      [ARM, 'SIZES=3'],
      [TSO, 'SIZES=2', 'GUEST'],
    ],
    long: [
      [TSO, 'SIZES=4'],
      [ARM, 'SIZES=4'],
      [TSO, 'SIZES=3', 'GUEST'],
      [ARM, 'SIZES=2', 'GUEST'],
    ],
    small: ['SIZES=2'],
    broken: [
      'PLAIN_PUBLISH',
      'PLAIN_ARM',
      'NO_RECHECK',
      'EVENT_LATE',
      'NO_LAP',
      'NO_FLIP',
      'FLAGS_FIRST',
      'CHECK_FIRST',
      'FORGETFUL',
      'GUEST NO_FENCE',
    ],
    onArm: [],
  },
  'call-split.pml': {
    holds: [[ARM]],
    long: [[TSO]],
    small: [],
    broken: ['PLAIN_PUBLISH', 'PLAIN_ARM', 'NO_RECHECK', 'EVENT_LATE', 'KEEP_OLD', 'CHECK_FIRST'],
    onArm: [],
  },
  'call-packed.pml': {
    holds: [[ARM, 'SIZES=3']],
    long: [[TSO], [ARM]],
    small: ['SIZES=2'],
    broken: [
      'PLAIN_PUBLISH',
      'PLAIN_ARM',
      'NO_RECHECK',
      'EVENT_LATE',
      'KEEP_OLD',
      'NO_LAP',
      'CHECK_FIRST',
    ],
    onArm: [],
  },
  'handoff-split.pml': {
    holds: [
      [ARM, 'SIZES=2'],
      [ARM, 'SIZES=2', 'PRODUCERS=1'],
    ],
    long: [[TSO], [TSO, 'PRODUCERS=1'], [ARM, 'PRODUCERS=1', 'SOLO']],
    small: ['SIZES=2', 'PRODUCERS=1'],
    broken: ['PUBLISH_FIRST', 'USED_FIRST', 'NO_RECLAIM', 'UNLOCKED'],
    onArm: ['PLAIN_AVAIL', 'PLAIN_USED'],
  },
  'handoff-packed.pml': {
    holds: [
      [ARM, 'SIZES=3'],
      [ARM, 'SIZES=2', 'WORKERS=2'],
    ],
    long: [[TSO], [ARM], [TSO, 'WORKERS=2', 'SIZES=3']],
    small: ['SIZES=2'],
    broken: ['FLAGS_EARLY', 'ONE_SLOT', 'NO_FLIP', 'WORKERS=2 UNLOCKED'],
    onArm: ['USED_EARLY', 'PLAIN_FLAGS', 'PLAIN_USED'],
  },
  'quiesce.pml': {
    holds: [
      [ARM, 'WORKERS=1'],
      [ARM, 'WORKERS=2'],
    ],
    long: [[TSO, 'WORKERS=2']],
    small: ['WORKERS=1'],
    broken: ['PLAIN_PARKED', 'NO_LAST_LOOK', 'STALE_LIST', 'ACK_IN_USE', 'NO_QUIESCE'],
    onArm: ['PLAIN_STATE', 'PLAIN_BUMP', 'LOOK_FIRST'],
  },
  'slots.pml': {
    holds: [[ARM, 'CLOCKS=5']],
    long: [
      [TSO, 'CLOCKS=7'],
      [ARM, 'CLOCKS=7'],
    ],
    small: [],
    broken: ['NO_LIMBO', 'SINCE_FIRST', 'SAME_ROUND', 'BEGIN_IN_USE'],
    onArm: [],
  },
};

/** Two at a time: as many as this machine is sure to have processors. */
const options = { concurrency: 2, timeout: LONG ? 3_600_000 : 900_000 };

describe('models', options, () => {
  for (const [name, model] of Object.entries(MODELS)) {
    for (const defines of LONG ? [...model.holds, ...model.long] : model.holds) {
      it(`${name} holds: ${defines.join(' ')}`, async (t) => {
        const { error, states, depth } = await check(name, defines, EXHAUSTIVE);
        t.diagnostic(`${name} ${defines.join(' ')}: ${states} states, depth ${depth}`);
        assert.equal(error, undefined);
      });
    }
    for (const how of model.broken) {
      it(`${name} broken by ${how}`, async (t) => {
        await found(t, name, [TSO, ...model.small, ...how.split(' ')]);
        if (LONG) await found(t, name, [ARM, ...model.small, ...how.split(' ')]);
      });
    }
    for (const how of model.onArm) {
      it(`${name} broken on Arm by ${how}`, async (t) => {
        await found(t, name, [ARM, ...model.small, how]);
        if (!LONG) return;
        assert.equal((await check(name, [TSO, ...model.small, how], EXHAUSTIVE)).error, undefined);
      });
    }
  }
});

async function found(
  t: { diagnostic(text: string): void },
  name: string,
  defines: string[],
): Promise<void> {
  const { error, states, depth } = await check(name, defines, TO_AN_ERROR);
  t.diagnostic(`${name} ${defines.join(' ')}: found after ${states} states, depth ${depth}`);
  assert.match(error ?? 'nothing', /^assertion violated/, `spin found ${error}`);
}
