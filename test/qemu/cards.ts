// Several pairs of cards that share one boot of guests a and b: booting takes longer than the traffic of a pair.

import type { TestContext } from 'node:test';
import { openSwitch } from '../../src/api/index.ts';
import type { Guest } from '../peers/guest.ts';
import { configure } from '../peers/iperf.ts';
import type { Nic } from '../peers/nic.ts';
import { Lab } from './lab.ts';
import { A, B, useCard } from './pair.ts';

export interface CardPair {
  /** Of the subtest. */
  name: string;
  a: Nic['device'];
  b: Nic['device'];
}

const BOOT_MS = 120_000;

/**
 * Runs `body` as a subtest for each pair, with a switch of its own between the two cards and their addresses A and B.
 * `card` is what the guests call the card; whatever is made of it is gone after.
 */
export async function eachPair<P extends CardPair>(
  first: Lab,
  t: TestContext,
  pairs: readonly P[],
  body: (lab: Lab, guests: [Guest, Guest], pair: P, card: string) => Promise<void>,
): Promise<void> {
  const labs = [first];
  while (labs.length < pairs.length) {
    const lab = new Lab(await openSwitch());
    labs.push(lab);
    first.closing(() => lab.close());
  }
  for (const lab of labs) await lab.ports('a', 'b');
  const boot = (name: 'a' | 'b') =>
    first.boot({
      name,
      timeoutMs: BOOT_MS,
      nics: pairs.map((pair, i) => ({
        backend: { vhostUser: labs[i]!.path(name) },
        device: pair[name],
      })),
    });
  const guests = await Promise.all([boot('a'), boot('b')]);
  for (const [i, pair] of pairs.entries()) {
    const lab = labs[i]!;
    const card = `eth${i}`;
    await lab.step(t, pair.name, async () => {
      for (const [k, guest] of guests.entries()) {
        useCard(guest, card);
        await configure(guest, `${k === 0 ? A : B}/24`, card);
        await lab.state(guest.name, 'up');
      }
      await body(lab, guests, pair, card);
    });
    for (const guest of guests) {
      await guest.run(`ip link set ${card} down; ip addr flush dev ${card}`);
    }
  }
}
