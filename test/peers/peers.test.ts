// The peers work by themselves, without vhop: a failure here is the harness's or the machine's.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Guest } from './guest.ts';
import { configure, iperf, pingLoss } from './iperf.ts';
import { removeFolder, requirePeers, temporaryFolder, waitFor } from './process.ts';
import { Testpmd } from './testpmd.ts';

test('two guests on a stream socket ping each other and run iperf3', async (t) => {
  if (!requirePeers(t, ['qemu'])) return;
  const folder = temporaryFolder();
  t.after(() => removeFolder(folder));
  const stream = join(folder, 's');
  const [a, b] = await Promise.all([
    Guest.boot({ name: 'a', nics: [{ backend: { stream, server: true } }] }),
    Guest.boot({ name: 'b', nics: [{ backend: { stream } }] }),
  ]);
  t.after(() => Promise.all([a.stop(), b.stop()]));
  await configure(a, '10.0.0.1/24');
  await configure(b, '10.0.0.2/24');
  assert.equal(await pingLoss(a, '10.0.0.2'), 0);
  const rate = await iperf(b, a, '10.0.0.2', { seconds: 2 });
  t.diagnostic(`${Math.round(rate)} Mbit/s`);
  assert.ok(rate > 10, `${rate} Mbit/s`);
});

test('two guests reach each other through the vhost PMD, and again after a reboot', async (t) => {
  if (!requirePeers(t, ['qemu', 'testpmd'])) return;
  const folder = temporaryFolder();
  t.after(() => removeFolder(folder));
  const paths = [join(folder, 'a'), join(folder, 'b')] as const;
  const backend = await Testpmd.start({
    name: 'vhop-dut-guests',
    ports: paths.map((vhost) => ({ vhost, tso: true })),
  });
  t.after(() => backend.quit());
  await backend.start();
  const [a, b] = await Promise.all([
    Guest.boot({ name: 'a', nics: [{ backend: { vhostUser: paths[0] } }] }),
    Guest.boot({ name: 'b', nics: [{ backend: { vhostUser: paths[1] } }] }),
  ]);
  t.after(() => Promise.all([a.stop(), b.stop()]));
  await configure(a, '10.0.0.1/24');
  await configure(b, '10.0.0.2/24');
  assert.equal(await pingLoss(a, '10.0.0.2'), 0);
  t.diagnostic(`${Math.round(await iperf(b, a, '10.0.0.2', { seconds: 1 }))} Mbit/s`);
  await a.reboot();
  await configure(a, '10.0.0.1/24');
  assert.equal(await pingLoss(a, '10.0.0.2'), 0);
});

test('a guest reports status and output, survives a timeout, and tells of QMP errors', async (t) => {
  if (!requirePeers(t, ['qemu'])) return;
  const guest = await Guest.boot({ name: 'solo' });
  t.after(() => guest.stop());
  assert.deepEqual(await guest.run('echo out; echo err >&2; exit 3', { ok: false }), {
    status: 3,
    stdout: 'out\nerr\n',
  });
  await assert.rejects(guest.run('false'), /solo: false: exit 1/);
  await assert.rejects(guest.run('echo begun; sleep 60', { timeoutMs: 300 }), /begun/);
  assert.equal((await guest.run('pidof sleep', { ok: false })).stdout, '');
  const sleeper = await guest.spawn('echo hi; sleep 60');
  await sleep(200);
  assert.equal(await sleeper.running(), true);
  assert.equal(await sleeper.output(), 'hi\n');
  await sleeper.kill();
  assert.equal(await sleeper.running(), false);
  assert.equal((await guest.run('pidof sleep', { ok: false })).stdout, '');
  await assert.rejects(guest.qmp('no-such-command'), /has not been found/);
  await guest.kill();
  await assert.rejects(guest.run('true', { timeoutMs: 1000 }), /QEMU is gone/);
});

for (const packed of [false, true]) {
  const rings = packed ? 'packed' : 'split';
  test(`testpmd circles frames through the vhost PMD, ${rings} rings`, async (t) => {
    if (!requirePeers(t, ['testpmd'])) return;
    const folder = temporaryFolder();
    const [a, b] = [join(folder, 'a'), join(folder, 'b')];
    t.after(() => removeFolder(folder));
    const backend = await Testpmd.start({
      name: `vhop-dut-${rings}`,
      ports: [{ vhost: a }, { vhost: b }],
    });
    t.after(() => backend.quit());
    const generator = await Testpmd.start({
      name: `vhop-gen-${rings}`,
      cpu: 1,
      mainCpu: 1,
      ports: [
        { virtioUser: a, packed },
        { virtioUser: b, packed },
      ],
    });
    t.after(() => generator.quit());
    await generator.waitLinkUp();
    await backend.waitLinkUp();
    await backend.start();
    await generator.start('tx_first 1');
    const frames = async (): Promise<number> => (await generator.stats())[0]?.rxPackets ?? 0;
    await waitFor(async () => (await frames()) > 1000, 10_000, 'frames circle');
    await sleep(500);
    const [rate] = await generator.stats();
    t.diagnostic(`${((rate?.rxPps ?? 0) * 2) / 1e6} Mpps, both ways`);
    const sent = await generator.stop();
    // What was under way when the generator stopped has come to rest in the back end's rings.
    const passed = await backend.stop();
    for (const port of [0, 1]) {
      const [mine, its] = [sent[port], passed[port]];
      assert.ok(mine && its);
      assert.ok(mine.rxPackets > 1000, `${mine.rxPackets} frames`);
      assert.deepEqual([mine.txDropped, its.txDropped, its.rxDropped], [0, 0, 0]);
      assert.ok(its.rxPackets <= mine.txPackets && mine.txPackets - its.rxPackets <= 64);
      assert.ok(mine.rxPackets <= its.txPackets && its.txPackets - mine.rxPackets <= 64);
    }
  });
}
