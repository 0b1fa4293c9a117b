// Fuzzes the vhost-user socket: sessions of a front end that knows the protocol and bends it.
//
// What must hold (messages-rig.ts): nothing throws, every request is answered as REPLY_ACK says or ends
// the connection, a session leaves no descriptor, mapping or watched kick behind, the next front end on
// the port is served, and other ports never notice.

import { offeredProtocolFeatures } from '../src/vhost-user/handlers.ts';
import { SessionGenerator } from './messages-generator.ts';
import { MessageRig } from './messages-rig.ts';
import type { Step } from './messages-steps.ts';
import { Random } from './random.ts';
import type { FuzzTarget } from './target.ts';

/** Steps of one session at most; many end before. */
const STEPS = 1000;
/** Replays on fresh rigs when a failure is made smaller. */
const TRIES = 100;

export const messages: FuzzTarget = {
  name: 'messages',
  async run({ seed, iterations, onProgress }) {
    const start = performance.now();
    const rig = new MessageRig();
    let done = 0;
    for (let session = 0; done < iterations; session++) {
      const steps: Step[] = [];
      try {
        done += rig.play(sessionOf(rig, seed, session, steps));
      } catch (error) {
        // The rig is left as it is: whatever failed may have left it half-way.
        throw failure(seed, session, steps, error);
      }
      if (session % 64 > 0) continue;
      // Timers have their turn, and so has whoever wants to end this.
      onProgress?.(done);
      await new Promise(setImmediate);
    }
    rig.close();
    return { iterations: done, seconds: (performance.now() - start) / 1000, notes: rig.notes };
  },
};

/** Session number `session` of a seed, whatever came before it; `taken` gets what was taken of it. */
function* sessionOf(
  rig: MessageRig,
  seed: number,
  session: number,
  taken: Step[],
): Generator<Step, void> {
  const random = new Random(seed + Math.imul(session, 0x9e37_79b1));
  const generator = new SessionGenerator(random, {
    features: rig.target.offeredFeatures,
    protocol: offeredProtocolFeatures(rig.target),
    pairs: rig.target.queuePairs,
  });
  for (let left = 1 + random.below(STEPS); left > 0; left--) {
    const step = generator.next();
    taken.push(step);
    yield step;
  }
}

/** What failed, with the fewest steps that fail the same way where that can be found. */
function failure(seed: number, session: number, steps: readonly Step[], error: unknown): Error {
  const small = shrink([...steps]);
  const alone = small === undefined ? 'only after the sessions before it' : 'by itself';
  const list = (small ?? steps).map((step) => JSON.stringify(step)).join(',\n  ');
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return new Error(`seed ${seed}, session ${session}, ${alone}: ${text}\n[\n  ${list}\n]`);
}

function fails(steps: readonly Step[]): boolean {
  const rig = new MessageRig();
  try {
    rig.play(steps);
    rig.close();
    return false;
  } catch {
    return true;
  }
}

/** Leaves out halves, quarters, … and single steps while what is left still fails. */
function shrink(steps: Step[]): Step[] | undefined {
  if (!fails(steps)) return undefined;
  let left = steps;
  let tries = 0;
  for (let size = left.length >> 1; size > 0; size >>= 1) {
    for (let at = 0; at < left.length && tries < TRIES; tries++) {
      const without = left.toSpliced(at, size);
      if (fails(without)) left = without;
      else at += size;
    }
  }
  return left;
}
