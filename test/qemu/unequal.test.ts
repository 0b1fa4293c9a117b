// Guests of unequal abilities: another MTU, other offloads.

import assert from 'node:assert/strict';
import { configure, iperf } from '../peers/iperf.ts';
import type { Nic } from '../peers/nic.ts';
import { scenario } from './lab.ts';
import { A, agree, B, bootPair, onPort, pingAll } from './pair.ts';

scenario("the port's MTU reaches the guest", ['qemu'], {}, async (lab) => {
  await lab.port('a', { mtu: 1400 });
  await lab.port('b');
  const [a, b] = await Promise.all([
    lab.boot(onPort(lab, 'a', { device: { host_mtu: 1400 } })),
    lab.boot(onPort(lab, 'b')),
  ]);
  await configure(a, `${A}/24`);
  await configure(b, `${B}/24`);
  assert.match((await a.run('ip link show eth0')).stdout, /\bmtu 1400\b/);
  assert.match((await b.run('ip link show eth0')).stdout, /\bmtu 1500\b/);
  assert.ok(lab.portInfo('a').features.includes('MTU'));
  assert.equal(lab.portInfo('a').mtu, 1400);

  // 1400 bytes of IP are 1372 of echo data. b may send more: that a's port does not take.
  await pingAll(b, A, 20, '-s 1372');
  assert.deepEqual(lab.stats('a').drops, {});
  await b.run(`ping -q -c 3 -i 0.1 -W 1 -s 1450 ${A}`, { ok: false });
  assert.deepEqual(lab.stats('a').drops, { rx_mtu: 3 });
  // TCP asks what the other takes.
  assert.ok((await iperf(a, b, A, { seconds: 1 })) > 0);
  assert.ok((await iperf(a, b, A, { seconds: 1, flags: '-R' })) > 0);
  assert.equal(lab.stats('a').drops.rx_mtu, 3);
  await agree(lab, a, b);

  // What one front end made of it (NET_SET_MTU) is not there for the next.
  await a.stop();
  const next = await lab.boot(onPort(lab, 'a', { device: { host_mtu: 1300 } }));
  await lab.state('a', 'up');
  assert.equal(lab.portInfo('a').mtu, 1300);
  await next.stop();
  await lab.state('a', 'listening');
  assert.equal(lab.portInfo('a').mtu, 1400);
});

const mixes: { name: string; deviceOfB: Nic['device']; drop: string }[] = [
  {
    name: 'a receiver without checksum offload',
    deviceOfB: { guest_csum: false },
    drop: 'rx_no_csum',
  },
  {
    name: 'a receiver without segmentation offload',
    deviceOfB: { guest_tso4: false, guest_tso6: false, guest_ecn: false, guest_ufo: false },
    drop: 'rx_no_tso',
  },
];

for (const { name, deviceOfB, drop } of mixes) {
  scenario(name, ['qemu'], {}, async (lab) => {
    await lab.ports('a', 'b');
    const [a, b] = await bootPair(lab, { deviceOfB });
    await pingAll(a, B, 20);
    await b.spawn('nc -l -p 5000 > /dev/null');
    await a
      .run(`dd if=/dev/zero bs=64k count=16 2> /dev/null | nc -w 1 ${B} 5000`, {
        ok: false,
        timeoutMs: 3000,
      })
      .catch(() => {});
    const { rx_full, ...drops } = lab.stats('b').drops;
    assert.deepEqual(Object.keys(drops), [drop], `${rx_full ?? 0} times the ring was full`);
    await pingAll(a, B, 20);
    await pingAll(b, A, 20);
    await agree(lab, a, b);
  });
}
