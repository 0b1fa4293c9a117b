// The message fuzzer for a moment, what it found worth keeping, and whether it would notice.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { messages } from '../../fuzz/messages.ts';
import { MessageRig } from '../../fuzz/messages-rig.ts';
import type { Step } from '../../fuzz/messages-steps.ts';
import { PORT_BASE } from '../../src/abi/layout.ts';
import { LONG } from '../stress/stress.ts';

const FOLDER = join(import.meta.dirname, '../../fuzz/corpus/messages');

interface Case {
  about: string;
  steps: Step[];
}

const CORPUS = readdirSync(FOLDER).map((file) => ({
  file,
  ...(JSON.parse(readFileSync(join(FOLDER, file), 'utf8')) as Case),
}));

function withRig(body: (rig: MessageRig) => void): void {
  const rig = new MessageRig();
  try {
    body(rig);
  } finally {
    rig.close();
  }
}

describe('hostile messages', { timeout: LONG ? 7_200_000 : 60_000 }, () => {
  for (const { file, about, steps } of CORPUS) {
    it(`${file}: ${about}`, () => withRig((rig) => assert.ok(rig.play(steps) > 0)));
  }

  it('generated from a seed', async () => {
    const seed = LONG ? Date.now() >>> 0 : 20261121;
    const { iterations, notes } = await messages.run({
      seed,
      iterations: LONG ? 2_000_000 : 20_000,
    });
    // It got somewhere: sessions that were refused at the door would prove nothing.
    assert.ok(notes['whileUp']! > iterations / 5, JSON.stringify({ seed, iterations, notes }));
    assert.equal(notes['traps'], 0);
  });

  // A fuzzer that cannot fail says nothing. Each of these is a mistake a back end could make.
  const start = CORPUS.find(({ file }) => file === 'start.json')!.steps;
  const FAULTS: [name: string, steps: Step[], plant: (rig: MessageRig) => void, says: RegExp][] = [
    [
      'a descriptor that stays open',
      start,
      ({ target }) => {
        target.setVringErr = () => {};
      },
      /descriptors left open/,
    ],
    [
      'memory that stays mapped',
      start,
      ({ target }) => {
        target.disconnected = () => {};
      },
      /left/,
    ],
    [
      'an exception',
      start,
      ({ target }) => {
        target.setVringNum = () => {
          throw new TypeError('oops');
        };
      },
      /internal error/,
    ],
    [
      'another port’s ring that is touched',
      start,
      ({ target, bench }) => {
        const set = target.setFeatures.bind(target);
        target.setFeatures = (features) => {
          set(features);
          bench.control.bytes.fill(1, PORT_BASE, PORT_BASE + 8);
        };
      },
      /another port was touched/,
    ],
  ];
  for (const [name, steps, plant, says] of FAULTS) {
    it(`notices ${name}`, () => {
      const rig = new MessageRig();
      plant(rig);
      assert.throws(() => rig.play(steps), says);
    });
  }
});
