// Two guests on a switch: everyday traffic.

import assert from 'node:assert/strict';
import { iperf } from '../peers/iperf.ts';
import { scenario } from './lab.ts';
import { A, agree, B, bootPair, copy, pingAll } from './pair.ts';

scenario('two guests on a switch', ['qemu'], {}, async (lab, t) => {
  await lab.ports('a', 'b');
  const [a, b] = await bootPair(lab);

  await lab.step(t, 'ping without loss', async () => {
    await pingAll(a, B, 200);
    await pingAll(b, A, 200, '-s 1472');
    await agree(lab, a);
    await agree(lab, b);
  });

  await lab.step(t, 'TCP both ways', async () => {
    assert.ok((await iperf(b, a, B, { seconds: 2 })) > 0);
    assert.ok((await iperf(b, a, B, { seconds: 2, flags: '-R' })) > 0);
    await agree(lab, a);
    await agree(lab, b);
  });
  await lab.step(t, 'copy', async () => {
    const t0 = performance.now();
    await copy(a, b, B, 128);
    console.log(performance.now() - t0);
    await agree(lab, a);
    await agree(lab, b);
  });
});
