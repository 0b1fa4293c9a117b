// Forwarding `wire`: whatever one guest sends reaches the other, link-local frames too.

import assert from 'node:assert/strict';
import type { Guest } from '../peers/guest.ts';
import { iperf } from '../peers/iperf.ts';
import { waitFor } from '../peers/process.ts';
import { scenario } from './lab.ts';
import { A, agree, B, bootPair, copy, pingAll } from './pair.ts';

/** Group addresses that no 802.1D bridge forwards. */
const LINK_LOCAL = {
  STP: '01:80:c2:00:00:00',
  LACP: '01:80:c2:00:00:02',
  LLDP: '01:80:c2:00:00:0e',
};
const FRAMES = 20;

scenario('two guests on a wire', ['qemu'], { forwarding: 'wire' }, async (lab, t) => {
  await lab.ports('a', 'b');
  const [a, b] = await bootPair(lab);

  await lab.step(t, 'traffic', async () => {
    await pingAll(a, B, 50);
    await pingAll(b, A, 50);
    assert.ok((await iperf(b, a, B, { seconds: 1 })) > 0);
    await copy(b, a, A, 8);
    assert.deepEqual(lab.sw.fdb(), []);
    await agree(lab, a, b);
  });

  await lab.step(t, 'frames to the addresses of STP, LACP and LLDP', async () => {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      await from.run('insmod /modules/pktgen.ko');
      for (const [name, address] of Object.entries(LINK_LOCAL)) {
        const sniffer = await to.spawn(
          `exec tcpdump -Z root -i eth0 -n -e -l -c ${FRAMES} ether dst ${address}`,
        );
        const says = (text: string) => async () => (await sniffer.output()).includes(text);
        await waitFor(says('listening on'), 10_000, 'tcpdump');
        await send(from, address, FRAMES);
        await waitFor(says(`${FRAMES} packets captured`), 10_000, `${name} at ${to.name}`);
        const lines = (await sniffer.output()).split('\n');
        assert.equal(lines.filter((line) => line.includes(`> ${address}`)).length, FRAMES);
      }
    }
    await agree(lab, a, b);
  });
});

/** Sends `count` frames to an Ethernet address with the kernel's packet generator. */
async function send(from: Guest, address: string, count: number): Promise<void> {
  const settings = [
    `count ${count}`,
    'clone_skb 0',
    'pkt_size 60',
    'delay 0',
    `dst_mac ${address}`,
  ];
  const device = '/proc/net/pktgen/eth0';
  await from.run(
    [
      'echo rem_device_all > /proc/net/pktgen/kpktgend_0',
      'echo add_device eth0 > /proc/net/pktgen/kpktgend_0',
      ...settings.map((setting) => `echo ${setting} > ${device}`),
      'echo start > /proc/net/pktgen/pgctrl',
      `grep -q 'Result: OK' ${device}`,
    ].join('\n'),
  );
}
