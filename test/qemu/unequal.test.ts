// Guests of unequal abilities: another MTU, other offloads.

import assert from 'node:assert/strict';
import { configure, iperf, iperfBoth } from '../peers/iperf.ts';
import { type CardPair, eachPair } from './cards.ts';
import { scenario } from './lab.ts';
import { A, agree, B, copy, onPort, pingAll, vlan } from './pair.ts';
import { snmp } from './snmp.ts';

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

const NO_SEGMENTATION = {
  guest_tso4: false,
  guest_tso6: false,
  guest_ecn: false,
  guest_ufo: false,
};
const NO_OFFLOADS = {
  ...NO_SEGMENTATION,
  csum: false,
  guest_csum: false,
  host_tso4: false,
  host_tso6: false,
  host_ecn: false,
  host_ufo: false,
};

interface Mix extends CardPair {
  /** Checksums that b leaves to be done are completed for it. */
  sums: boolean;
}

const MIXES: Mix[] = [
  { name: 'without checksum offload', a: {}, b: { guest_csum: false }, sums: true },
  { name: 'without segmentation offload', a: {}, b: NO_SEGMENTATION, sums: false },
  { name: 'without any offload', a: {}, b: NO_OFFLOADS, sums: true },
  {
    name: 'without any offload, nor merged buffers',
    a: {},
    b: { ...NO_OFFLOADS, mrg_rxbuf: false },
    sums: true,
  },
];

scenario('a guest that offloads all, and one that does not', ['qemu'], {}, (first, t) =>
  eachPair(first, t, MIXES, async (lab, [a, b], { sums }, card) => {
    for (const [guest, n] of [
      [a, 1],
      [b, 2],
    ] as const) {
      await guest.run(`ip addr add fd00::${n}/64 dev ${card}`);
      await vlan(guest, 5, `10.0.5.${n}/24`, card);
    }
    await pingAll(a, B, 20);
    await pingAll(b, A, 20);
    // Over IPv4, IPv6 and a VLAN, both ways; then what arrives is compared with what was sent.
    for (const address of [B, 'fd00::2', '10.0.5.2']) {
      const before = lab.stats('b');
      for (const rate of await iperfBoth(b, a, address, 1)) assert.ok(rate > 0);
      const after = lab.stats('b');
      assert.ok(after.segmented > before.segmented, `${address}: nothing was segmented`);
      assert.ok(after.segments - before.segments > 2 * (after.segmented - before.segmented));
    }
    await copy(a, b, B, 16);
    await copy(b, a, A, 16);
    await agree(lab, a, b);

    assert.equal(lab.stats('b').summed > 0, sums);
    assert.deepEqual([lab.stats('a').segmented, lab.stats('a').summed], [0, 0]);
    for (const guest of [a, b]) {
      const { rx_full, ...drops } = lab.stats(guest.name).drops;
      assert.deepEqual(drops, {}, `${rx_full ?? 0} times the ring was full`);
      // The guest's kernel has checked every checksum that it was not told to be right.
      const counters = await snmp(guest);
      for (const counter of ['Tcp:InCsumErrors', 'Udp:InCsumErrors', 'Ip:InHdrErrors']) {
        assert.equal(counters[counter], 0, `${guest.name}: ${counter}`);
      }
      assert.ok(counters['Tcp:InSegs']! > 100);
      await guest.run(`ip link del ${card}.5`);
    }
  }),
);
