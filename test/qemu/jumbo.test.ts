// Jumbo frames between guests, and what the switch shows of them.

import assert from 'node:assert/strict';
import { serveControl } from '../../src/control/server.ts';
import { run } from '../cli/fixtures/run.ts';
import { iperf } from '../peers/iperf.ts';
import type { Nic } from '../peers/nic.ts';
import { type Lab, scenario } from './lab.ts';
import { A, agree, B, bootPair, copy, pingAll } from './pair.ts';

const CASES: { mtu: number; deviceOfB: Nic['device']; what: string }[] = [
  { mtu: 9000, deviceOfB: {}, what: 'merged buffers' },
  { mtu: 9000, deviceOfB: { mrg_rxbuf: false }, what: 'whole buffers in b' },
  { mtu: 65535, deviceOfB: { mrg_rxbuf: false, guest_tso4: false }, what: 'whole buffers in b' },
];

for (const { mtu, deviceOfB, what } of CASES) {
  scenario(`MTU ${mtu}, ${what}`, ['qemu'], {}, async (lab) => {
    for (const name of ['a', 'b']) await lab.port(name, { mtu });
    const [a, b] = await bootPair(lab, { device: { host_mtu: mtu }, deviceOfB });
    for (const guest of [a, b]) {
      const { stdout } = await guest.run('ip link show eth0');
      assert.match(stdout, new RegExp(`\\bmtu ${mtu}\\b`));
    }
    await shown(lab, mtu);

    // A whole packet: 20 bytes of IP header and 8 of ICMP come on top.
    const before = lab.stats('b');
    await pingAll(a, B, 20, `-s ${mtu - 28}`);
    await pingAll(b, A, 20, `-s ${mtu - 28}`);
    const now = lab.stats('b');
    const whole = 40 * (mtu + 14);
    assert.ok(now.rxBytes - before.rxBytes >= whole && now.txBytes - before.txBytes >= whole);
    // Fragments would be twice as many frames.
    assert.ok(now.rxFrames - before.rxFrames < 80, `${now.rxFrames - before.rxFrames} frames`);

    assert.ok((await iperf(b, a, B, { seconds: 1 })) > 0);
    assert.ok((await iperf(b, a, B, { seconds: 1, flags: '-R' })) > 0);
    await copy(a, b, B, 8);
    await agree(lab, a, b);
  });
}

/** What `vhop ports` says of the MTU: the front ends set it (NET_SET_MTU), the drivers took it. */
async function shown(lab: Lab, mtu: number): Promise<void> {
  const control = lab.path('control');
  const server = await serveControl(lab.sw, control);
  try {
    for (const name of ['a', 'b']) {
      const { out } = await run(['ports', name, '--control', control]);
      assert.match(out, new RegExp(`^ MTU +${mtu} bytes$`, 'm'));
      const bits = await run(['ports', name, '--features', '--control', control]);
      assert.match(bits.out, new RegExp(`^ ${name} up: its driver and front end accepted `, 'm'));
      assert.match(bits.out, new RegExp(`^ MTU +3 +on +it was told its MTU: ${mtu} bytes$`, 'm'));
    }
  } finally {
    await server.close();
  }
}
