// QEMU listens and the switch connects (port mode `client`), and either side leaves and returns.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { configure, iperf } from '../peers/iperf.ts';
import { waitFor } from '../peers/process.ts';
import type { GuestOptions } from '../peers/qemu.ts';
import { type Lab, scenario } from './lab.ts';
import { A, B, copy, pingAll } from './pair.ts';

const listening = (lab: Lab, name: string): GuestOptions => ({
  name,
  nics: [{ backend: { vhostUser: lab.path(name), server: true } }],
});

scenario('QEMU listens and the switch connects', ['qemu'], {}, async (lab, t) => {
  // a's QEMU is there before the port; b's port is there before QEMU.
  const booting = lab.boot(listening(lab, 'a'));
  await waitFor(() => existsSync(lab.path('a')), 10_000, 'the socket of a');
  await lab.port('a', { mode: 'client' });
  await lab.port('b', { mode: 'client' });
  assert.equal(lab.portInfo('b').state, 'connecting');
  const [a, b] = await Promise.all([booting, lab.boot(listening(lab, 'b'))]);
  lab.expectNotice(/^b: waiting for .*: there is no such socket yet$/);
  await configure(a, `${A}/24`);
  await configure(b, `${B}/24`);

  await lab.step(t, 'traffic', async () => {
    await pingAll(a, B, 50);
    assert.ok((await iperf(b, a, B, { seconds: 1 })) > 0);
  });

  await lab.step(t, 'the port leaves and returns: the guest goes on as it was', async () => {
    for (let round = 0; round < 3; round++) {
      await lab.removePort('a');
      await waitFor(
        async () => (await a.run('cat /sys/class/net/eth0/carrier')).stdout.trim() === '0',
        5000,
        'no carrier',
      );
      await lab.port('a', { mode: 'client' });
      await lab.state('a', 'up');
      await pingAll(a, B, 20);
    }
    await copy(a, b, B, 4);
  });

  await lab.step(t, 'QEMU is killed: the port waits for the next one', async () => {
    await b.kill();
    await lab.state('b', 'connecting');
    const next = await lab.boot(listening(lab, 'b'));
    await configure(next, `${B}/24`);
    await pingAll(a, B, 20);
    lab.expectNotice(/^b: waiting for .*: (there is no such socket yet|nobody listens on it)$/);
  });
});

scenario('QEMU connects again to a port that left', ['qemu'], {}, async (lab, t) => {
  await lab.ports('a', 'b');
  const reconnecting = (name: string): GuestOptions => ({
    name,
    nics: [{ backend: { vhostUser: lab.path(name), reconnect: 1 } }],
  });
  const [a, b] = await Promise.all([lab.boot(reconnecting('a')), lab.boot(reconnecting('b'))]);
  await configure(a, `${A}/24`);
  await configure(b, `${B}/24`);
  await pingAll(a, B, 20);

  await lab.step(t, 'one port', async () => {
    await lab.removePort('b');
    await lab.port('b');
    await lab.state('b', 'up');
    await pingAll(a, B, 20);
  });
  await lab.step(t, 'both ports', async () => {
    for (const name of ['a', 'b']) await lab.removePort(name);
    await lab.ports('a', 'b');
    await lab.state('a', 'up');
    await lab.state('b', 'up');
    await pingAll(b, A, 20);
    await copy(a, b, B, 4);
  });
});
