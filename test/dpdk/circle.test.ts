// testpmd as the guest of both ports, in both forwarding modes, with and without mergeable buffers.

import assert from 'node:assert/strict';
import { scenario } from '../qemu/lab.ts';
import { circle, startCircle } from './circle.ts';

const SIZES = [64, 65, 128, 256, 512, 1024, 1280, 1500, 1514, 1518];

for (const forwarding of ['wire', 'switch'] as const) {
  for (const mrgRxbuf of [true, false]) {
    const buffers = mrgRxbuf ? 'mergeable buffers' : 'single buffers';
    scenario(
      `frames circle, ${forwarding}, ${buffers}`,
      ['testpmd'],
      { forwarding },
      async (lab) => {
        await lab.ports('a', 'b');
        const testpmd = await startCircle(lab, { mrgRxbuf });
        for (const name of ['a', 'b']) {
          assert.equal(lab.portInfo(name).features.includes('MRG_RXBUF'), mrgRxbuf);
        }
        for (const size of SIZES) await circle(lab, testpmd, { size });
        // So few under way never fill a ring: none is lost.
        for (const name of ['a', 'b']) assert.deepEqual(lab.stats(name).drops, {});
        // So many do: some may be lost, but under a name.
        await circle(lab, testpmd, { size: 64, bursts: 64, frames: 200_000 });
        for (const name of ['a', 'b']) {
          const { rx_full, ...drops } = lab.stats(name).drops;
          assert.deepEqual(drops, {}, `${rx_full ?? 0} times the ring was full`);
        }
        const learned = lab.sw.fdb().map(({ port }) => port);
        assert.deepEqual(learned.sort(), forwarding === 'switch' ? ['a', 'b'] : []);
      },
    );
  }
}

for (const queues of [2, 8]) {
  scenario(
    `frames circle, two workers, ${queues} pairs`,
    ['testpmd'],
    { workers: 2 },
    async (lab) => {
      await lab.ports('a', 'b');
      const testpmd = await startCircle(lab, { queues, queueSize: 256 });
      for (const name of ['a', 'b']) assert.equal(lab.portInfo(name).queuesEnabled, queues);
      for (const size of [64, 1518]) await circle(lab, testpmd, { size, frames: 100_000 });
      const idle = lab.sw.stats().workers.filter(({ frames }) => frames === 0);
      assert.deepEqual(idle, []);
    },
  );
}

scenario('frames circle, vector code', ['testpmd'], {}, async (lab) => {
  await lab.ports('a', 'b');
  const testpmd = await startCircle(lab, { vectorized: true, mrgRxbuf: false });
  for (const size of [64, 1518]) await circle(lab, testpmd, { size, frames: 100_000 });
});
