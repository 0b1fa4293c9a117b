// The life of guests under traffic, as a random walk: drivers, cards, machines and ports leave and
// return, and after every few steps both guests reach each other and every counter adds up.
//
// VHOP_SEED=n replays a walk, VHOP_STEPS=n sets its length; VHOP_LONG=1 makes it a thousand steps of a
// walk that nobody has seen. The short form is the same walk each time.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { openFds } from '../linux/fds.ts';
import type { Guest } from '../peers/guest.ts';
import { waitFor } from '../peers/process.ts';
import { LONG } from '../stress/stress.ts';
import { scenario } from './lab.ts';
import { A, agree, B, ping } from './pair.ts';
import { Random } from './random.ts';
import { Walker } from './walker.ts';

const SEED = Number(process.env['VHOP_SEED'] ?? (LONG ? Math.floor(Math.random() * 2 ** 32) : 22));
const STEPS = Number(process.env['VHOP_STEPS'] ?? (LONG ? 1000 : 60));
/** Steps from one check to the next. */
const STRIDE = 5;

/** The cheap ones are the frequent ones. */
const KINDS = [
  { name: 'link', weight: 6 },
  { name: 'pause', weight: 6 },
  { name: 'pairs', weight: 8 },
  { name: 'reload', weight: 5 },
  { name: 'replug', weight: 3 },
  { name: 'port', weight: 1 },
  { name: 'reboot', weight: 1 },
  { name: 'crash', weight: 1 },
] as const;

scenario(`a random walk, VHOP_SEED=${SEED}`, ['qemu'], {}, async (lab) => {
  const random = new Random(SEED);
  const a = new Walker(lab, random, 'a', A, B);
  const b = new Walker(lab, random, 'b', B, A);
  const walkers = [a, b];
  const steps: string[] = [];
  const descriptors = new Map<string, number>();

  const check = async (): Promise<void> => {
    for (const walker of walkers) await walker.stopTraffic();
    await lab.check();
    await reaches(a.guest, B);
    await reaches(b.guest, A);
    await lab.check();
    await agree(lab, a.guest, b.guest);
    // As many descriptors as ever with these rings.
    const rings = lab.sw.rings().filter(({ started }) => started);
    const key = rings.map(({ port, index }) => `${port}${index}`).join();
    const known = descriptors.get(key) ?? openFds();
    descriptors.set(key, known);
    assert.ok(openFds() <= known, `${openFds()} descriptors open instead of ${known}`);
    for (const walker of walkers) await walker.startTraffic();
  };

  try {
    await lab.ports('a', 'b');
    for (const walker of walkers) steps.push(`${walker.name} ${await walker.boot()}`);
    await check();
    for (let i = 1; i <= STEPS; i++) {
      const walker = random.pick(walkers);
      const { name } = random.weighted(KINDS);
      await sleep(random.below(100));
      const step = `${i} ${walker.name} ${name}`;
      steps.push(step);
      // The port's counters go with it: the other guest must not send meanwhile.
      const others = name === 'port' ? walkers.filter((other) => other !== walker) : [];
      for (const other of others) await other.stopTraffic();
      const detail = await walker[name]();
      steps.push(`${steps.pop()} ${detail}`);
      if (i % STRIDE === 0 || i === STEPS) await check();
      else for (const each of walkers) await each.startTraffic();
    }
  } catch (error) {
    const { message } = error as Error;
    throw new Error(`VHOP_SEED=${SEED} VHOP_STEPS=${STEPS}\n${steps.join('\n')}\n${message}`, {
      cause: error,
    });
  }
});

/**
 * All of ten pings are answered; not always at once: what the streams still had to say may fill a
 * ring of a dozen buffers (the smallest there is without mergeable ones), for which it counts drops.
 */
async function reaches(from: Guest, address: string): Promise<void> {
  const all = async (): Promise<boolean> => {
    const { sent, received } = await ping(from, address, 10);
    return sent === received;
  };
  await waitFor(all, 30_000, `${from.name} to reach ${address}`);
}
