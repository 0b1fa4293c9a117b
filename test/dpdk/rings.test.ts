// virtio-user's ring types on both ports and mixed: packed and split, in order or not, mergeable or
// not, and its vector code for packed rings. Frames circle, and every counter agrees.

import assert from 'node:assert/strict';
import { scenario } from '../qemu/lab.ts';
import { type CircleOptions, circle, startCircle } from './circle.ts';

const SIZES = [64, 65, 512, 1518];

interface Kind extends CircleOptions {
  packed: boolean;
  inOrder: boolean;
  mrgRxbuf: boolean;
}

const kinds: Kind[] = [false, true].flatMap((packed) =>
  [false, true].flatMap((inOrder) =>
    [false, true].map((mrgRxbuf) => ({ packed, inOrder, mrgRxbuf })),
  ),
);

function label({ packed, inOrder, mrgRxbuf }: Kind): string {
  const ring = packed ? 'packed' : 'split';
  return `${ring}${inOrder ? ', in order' : ''}${mrgRxbuf ? ', mergeable' : ''}`;
}

const pairs: { name: string; of: Record<'a' | 'b', Kind> }[] = [
  ...kinds.map((kind) => ({ name: label(kind), of: { a: kind, b: kind } })),
  // Each kind of ring opposite its contrary.
  ...kinds.slice(0, 4).map((kind) => {
    const other = {
      packed: !kind.packed,
      inOrder: !kind.inOrder,
      mrgRxbuf: !kind.mrgRxbuf,
    };
    return { name: `${label(kind)} | ${label(other)}`, of: { a: kind, b: other } };
  }),
  ...[256, 1000, 4096].map((queueSize) => {
    const kind = { packed: true, inOrder: false, mrgRxbuf: true, queueSize };
    return { name: `packed, ${queueSize} entries`, of: { a: kind, b: kind } };
  }),
  ...[false, true].map((inOrder) => {
    const kind = { packed: true, inOrder, mrgRxbuf: false, vectorized: true };
    return { name: `${label(kind)}, vector code`, of: { a: kind, b: kind } };
  }),
];

for (const { name, of } of pairs) {
  scenario(`frames circle: ${name}`, ['testpmd'], {}, async (lab) => {
    await lab.ports('a', 'b');
    const testpmd = await startCircle(lab, {}, of);
    for (const port of ['a', 'b'] as const) {
      const { features } = lab.portInfo(port);
      assert.equal(features.includes('RING_PACKED'), of[port].packed, port);
      assert.equal(features.includes('IN_ORDER'), of[port].inOrder, port);
      assert.equal(features.includes('MRG_RXBUF'), of[port].mrgRxbuf, port);
    }
    for (const size of SIZES) await circle(lab, testpmd, { size, frames: 10_000 });
    // So few under way never fill a ring: none is lost.
    for (const port of ['a', 'b']) assert.deepEqual(lab.stats(port).drops, {});
    // Often enough round the ring that every slot has been on both laps.
    await circle(lab, testpmd, { size: 64, bursts: 16, frames: 200_000 });
    for (const port of ['a', 'b']) {
      const { rx_full, ...drops } = lab.stats(port).drops;
      assert.deepEqual(drops, {}, `${rx_full ?? 0} times the ring was full`);
    }
  });
}
