// Two queue pairs a guest, with one datapath thread and with two.

import assert from 'node:assert/strict';
import type { Guest } from '../peers/guest.ts';
import { iperf, serve } from '../peers/iperf.ts';
import { waitFor } from '../peers/process.ts';
import { type Lab, scenario } from './lab.ts';
import { A, agree, B, bootPair, copy, pingAll } from './pair.ts';

for (const workers of [1, 2]) {
  scenario(`two queue pairs, workers: ${workers}`, ['qemu'], { workers }, async (lab, t) => {
    await lab.ports('a', 'b');
    const [a, b] = await bootPair(lab, { queues: 2 });

    await lab.step(t, 'both pairs carry traffic', async () => {
      // Linux enables as many pairs as it has CPUs; here they go off and on first.
      for (const guest of [a, b]) await combined(guest, 1);
      for (const guest of [a, b]) await combined(guest, 2);
      assert.deepEqual([lab.portInfo('a').queuesEnabled, lab.portInfo('b').queuesEnabled], [2, 2]);
      const before = positions(lab);
      // A CPU sends on its own queue, and what it asked for returns there.
      for (const cpu of [1, 2]) await a.run(`taskset ${cpu} ping -q -A -c 50 -W 2 ${B}`);
      for (const cpu of [1, 2]) await b.run(`taskset ${cpu} ping -q -A -c 50 -W 2 ${A}`);
      assert.ok((await iperf(b, a, B, { seconds: 1, flags: '-P 4' })) > 0);
      assert.ok((await iperf(b, a, B, { seconds: 1, flags: '-P 4 -R' })) > 0);
      await copy(a, b, B, 8);
      await agree(lab, a, b);
      const moved = positions(lab).map(({ ring, at }, i) => ({
        ring,
        moved: at !== before[i]?.at,
      }));
      assert.deepEqual(
        moved.filter((ring) => !ring.moved),
        [],
      );
      const idle = lab.sw.stats().workers.filter(({ frames }) => frames === 0);
      assert.deepEqual(idle, []);
    });

    await lab.step(t, 'back to one pair, and to two again', async () => {
      await combined(a, 1);
      assert.equal(lab.portInfo('a').queuesEnabled, 1);
      const before = positions(lab).filter(({ ring }) => ring === 'a2' || ring === 'a3');
      await pingAll(b, A, 50);
      await pingAll(a, B, 50);
      assert.ok((await iperf(b, a, B, { seconds: 1, flags: '-P 4 -R' })) > 0);
      const after = positions(lab).filter(({ ring }) => ring === 'a2' || ring === 'a3');
      assert.deepEqual(after, before);
      await combined(a, 2);
      assert.equal(lab.portInfo('a').queuesEnabled, 2);
      await pingAll(b, A, 50);
      await agree(lab, a, b);
    });
  });
}

scenario('pairs come and go while iperf3 runs', ['qemu'], {}, async (lab) => {
  await lab.ports('a', 'b');
  const [a, b] = await bootPair(lab, { queues: 4 });
  for (const guest of [a, b]) await combined(guest, 1);
  const daemon = await serve(b);
  const client = await a.spawn(`exec iperf3 -c ${B} -P 4 -t 100 --connect-timeout 5000`);
  const flows = async (): Promise<void> => {
    const { txFrames, rxFrames } = lab.stats('a');
    const moved = (): boolean => {
      const now = lab.stats('a');
      return now.txFrames > txFrames + 100 && now.rxFrames > rxFrames + 10;
    };
    await waitFor(moved, 30_000, 'the streams of iperf3');
  };
  await flows();
  for (const pairs of [4, 1, 4, 2, 1]) {
    for (const [name, guest] of [
      ['a', a],
      ['b', b],
    ] as const) {
      await combined(guest, pairs);
      const enabled = (): boolean => lab.portInfo(name).queuesEnabled === pairs;
      await waitFor(enabled, 10_000, `${pairs} pairs at ${name}`);
      await flows();
    }
  }
  assert.ok(await client.running());
  await client.kill();
  await daemon.kill();
  await pingAll(a, B, 50);
  await pingAll(b, A, 50);
  await agree(lab, a, b);
});

async function combined(guest: Guest, pairs: number): Promise<void> {
  await guest.run(`ethtool -L eth0 combined ${pairs}`);
}

/** How far each ring of the first two pairs has come. */
function positions(lab: Lab): { ring: string; at: number }[] {
  return lab.sw
    .rings()
    .filter(({ index }) => index < 4)
    .map(({ port, index, usedIdx }) => ({ ring: `${port}${index}`, at: usedIdx }));
}
