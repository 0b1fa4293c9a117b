// Two guests on a switch: everyday traffic, and what a person does to a running guest.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Guest } from '../peers/guest.ts';
import { configure, iperf } from '../peers/iperf.ts';
import { waitFor } from '../peers/process.ts';
import { scenario } from './lab.ts';
import {
  A,
  agree,
  B,
  bootPair,
  copy,
  mayDrop,
  ping,
  pingAll,
  pinging,
  reboot,
  vlan,
} from './pair.ts';
import { udp } from './udp.ts';

/** TCG hashes about 16 MB a second, so the whole GiB takes over a minute. */
const MIB = 1024;

const A6 = 'fd00::1';
const B6 = 'fd00::2';

scenario('two guests on a switch', ['qemu'], {}, async (lab, t) => {
  await lab.ports('a', 'b');
  const [a, b] = await bootPair(lab);
  const step = (name: string, body: () => Promise<void>) =>
    lab.step(t, name, async () => {
      await body();
      await agree(lab, a, b);
    });

  await step('ping without loss', async () => {
    await pingAll(a, B, 200);
    await pingAll(b, A, 200, '-s 1472');
  });

  await step('TCP both ways', async () => {
    assert.ok((await iperf(b, a, B, { seconds: 2 })) > 0);
    assert.ok((await iperf(b, a, B, { seconds: 2, flags: '-R' })) > 0);
  });

  await step('UDP both ways', async () => {
    for (const [flags, receiver] of [
      ['', 'b'],
      ['-R', 'a'],
    ] as const) {
      const before = lab.stats(receiver);
      const { sent, received } = await udp(b, a, B, flags);
      const { rxFrames, drops } = lab.stats(receiver);
      const full = (drops.rx_full ?? 0) - (before.drops.rx_full ?? 0);
      assert.ok(received > 0, `${received} of ${sent} datagrams`);
      assert.ok(rxFrames - before.rxFrames + full >= sent, `${sent} sent`);
    }
  });

  await step('IPv6: ping, and TCP both ways', async () => {
    await a.run(`ip -6 addr add ${A6}/64 dev eth0`);
    await b.run(`ip -6 addr add ${B6}/64 dev eth0`);
    // Addresses are on trial for a second or two.
    const usable = async () => (await ping(a, B6, 1)).received === 1;
    await waitFor(usable, 10_000, 'an IPv6 address');
    await pingAll(b, A6, 50);
    assert.ok((await iperf(b, a, B6, { seconds: 1 })) > 0);
    assert.ok((await iperf(b, a, B6, { seconds: 1, flags: '-R' })) > 0);
  });

  await step('frames of 9014 bytes', async () => {
    for (const guest of [a, b]) await guest.run('ip link set eth0 mtu 9000');
    await pingAll(a, B, 50, '-s 8972');
    for (const guest of [a, b]) await guest.run('ip link set eth0 mtu 1500');
  });

  await step('frames with a VLAN tag', async () => {
    for (const [guest, address] of [
      [a, '10.0.5.1'],
      [b, '10.0.5.2'],
    ] as const) {
      await vlan(guest, 5, `${address}/24`);
    }
    await pingAll(a, '10.0.5.2', 50, '-s 1472');
    assert.ok((await iperf(b, a, '10.0.5.2', { seconds: 1 })) > 0);
  });

  await step(`${MIB} MiB arrive as they were sent`, () => copy(a, b, B, MIB));

  await step('the link goes off and on under ping', async () => {
    const echoes = await pinging(b, A);
    // An answer that was on its way when the link went off.
    mayDrop(a);
    for (let round = 0; round < 3; round++) {
      await setLink(a, false);
      await lab.state('a', 'connected');
      assert.equal(await carrier(a), '0');
      await setLink(a, true);
      await lab.state('a', 'up');
      await waitFor(async () => (await carrier(a)) === '1', 5000, 'carrier');
      await pingAll(a, B, 20);
    }
    const { sent, received } = await echoes.stop();
    assert.ok(received > 0 && received <= sent, `${received} of ${sent}`);
    await pingAll(b, A, 20);
  });

  await step('the guest pauses and goes on under ping', async () => {
    const echoes = await pinging(a, B);
    for (let round = 0; round < 10; round++) {
      await a.qmp('stop');
      await lab.state('a', 'connected');
      await a.qmp('cont');
      await lab.state('a', 'up');
      await sleep(round * 10);
    }
    // It was a's own clock that stood still, so it lost nothing but what was under way to it.
    const { sent, received } = await echoes.stop();
    assert.ok(received > 0 && sent - received <= 10, `${received} of ${sent}`);
    await pingAll(b, A, 20);
  });

  await step('a guest reboots', async () => {
    for (let round = 0; round < 2; round++) {
      await reboot(lab, a);
      await configure(a, `${A}/24`);
      await pingAll(b, A, 50);
      await pingAll(a, B, 50);
    }
    assert.ok((await iperf(b, a, B, { seconds: 1 })) > 0);
  });
});

async function setLink(guest: Guest, up: boolean): Promise<void> {
  await guest.qmp('set_link', { name: 'net0', up });
}

async function carrier(guest: Guest): Promise<string> {
  return (await guest.run('cat /sys/class/net/eth0/carrier')).stdout.trim();
}
