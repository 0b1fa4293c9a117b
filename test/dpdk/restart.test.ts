// testpmd leaves and comes back: in good order, by SIGKILL, and as the side that listens.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { openFds } from '../linux/fds.ts';
import { waitFor } from '../peers/process.ts';
import { Testpmd } from '../peers/testpmd.ts';
import { scenario } from '../qemu/lab.ts';
import { circle, circleOptions, ready, startCircle } from './circle.ts';

scenario('testpmd starts five times on the same sockets', ['testpmd'], {}, async (lab) => {
  await lab.ports('a', 'b');
  const descriptors = openFds();
  for (let round = 0; round < 5; round++) {
    const testpmd = await startCircle(lab);
    await circle(lab, testpmd, { size: 64 });
    if (round % 2 === 0) {
      await testpmd.quit();
    } else {
      // In the middle of traffic.
      await testpmd.cmd('set fwd io');
      await testpmd.start('tx_first 32');
      await testpmd.kill();
    }
    for (const name of ['a', 'b']) {
      await lab.state(name, 'listening');
      assert.equal(lab.portInfo(name).memory, 0);
    }
    assert.deepEqual(lab.sw.fdb(), []);
    await waitFor(
      () => openFds() === descriptors,
      5000,
      "testpmd's descriptors closed",
      () => `${openFds()} instead of ${descriptors}`,
    );
  }
});

scenario('testpmd is killed: other ports go on', ['testpmd'], {}, async (lab) => {
  await lab.ports('a', 'b', 'c', 'd');
  const testpmd = await startCircle(lab);
  const other = await Testpmd.start({
    ...circleOptions(lab),
    name: `vhop-other-${process.pid}`,
    ports: ['c', 'd'].map((name) => ({ virtioUser: lab.path(name) })),
  });
  lab.closing(() => other.kill());
  await other.waitLinkUp();
  await other.start();
  await other.kill();
  for (const name of ['c', 'd']) await lab.state(name, 'listening');
  assert.deepEqual(
    ['a', 'b'].map((name) => lab.portInfo(name).state),
    ['up', 'up'],
  );
  await circle(lab, testpmd, { size: 64 });
});

scenario('testpmd listens and the switch connects', ['testpmd'], {}, async (lab, t) => {
  // It waits at its start until somebody connects: port a is there before it, port b after it.
  await lab.port('a', { mode: 'client' });
  const testpmd = Testpmd.launch(circleOptions(lab, { server: true }));
  lab.closing(() => testpmd.quit());
  await waitFor(() => existsSync(lab.path('b')), 20_000, 'the socket of b');
  await lab.port('b', { mode: 'client' });
  await testpmd.started();
  await ready(lab, testpmd);
  lab.expectNotice(/^a: waiting for .*: there is no such socket yet$/);
  await lab.step(t, 'frames circle', () => circle(lab, testpmd, { size: 64 }));

  await lab.step(t, 'the ports leave and return', async () => {
    for (let round = 0; round < 3; round++) {
      for (const name of ['a', 'b']) await lab.removePort(name);
      for (const name of ['a', 'b']) await lab.port(name, { mode: 'client' });
      await ready(lab, testpmd);
      await circle(lab, testpmd, { size: 512 });
    }
  });

  await lab.step(t, 'it is killed under load, and listens again', async () => {
    await testpmd.cmd('set fwd io');
    await testpmd.start('tx_first 32');
    await testpmd.kill();
    for (const name of ['a', 'b']) await lab.state(name, 'connecting');
    const next = Testpmd.launch(circleOptions(lab, { server: true }));
    lab.closing(() => next.quit());
    await next.started();
    await ready(lab, next);
    lab.expectNotice(/^[ab]: waiting for .*: (there is no such socket yet|nobody listens on it)$/);
    for (const name of ['a', 'b']) assert.equal(lab.portInfo(name).history.lost, 1);
    await circle(lab, next, { size: 64 });
  });
});
