// A switch is reloaded a hundred times under load: whatever happens to other ports, two that no file
// changes lose not one frame. In process at full speed, and as processes with vhost-user front ends.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { openSwitch, startTraffic } from '../../src/api/index.ts';
import { connectTo } from '../../src/control/client.ts';
import { type Reloaded, Reloader } from '../../src/control/reload.ts';
import { EventLoop } from '../../src/linux/index.ts';
import { Frontend } from '../../src/vhost-user/index.ts';
import { Child, removeFolder, root, temporaryFolder, waitFor } from '../peers/process.ts';
import { sleep } from '../stress/stress.ts';
import { KeepingDriver } from './keeping-driver.ts';

const RELOADS = 100;
const turn = () => new Promise<void>((done) => setImmediate(done));

/** File `n` of the series: `kept` stay, others come, go, change in place and change their sockets. */
function fileOf(n: number, kept: string): string {
  const lines = [`ageing: ${n % 3 === 0 ? 100 : 300}`, 'workers: 2', 'ports:', kept];
  if (n % 2 === 1) lines.push('  - path: c.sock', `    mtu: ${n % 4 === 1 ? 1500 : 9000}`);
  const two = n % 4 < 2;
  lines.push(
    `  - {name: d, path: d${two ? 1 : 2}.sock}`,
    `  - {name: e, path: d${two ? 2 : 1}.sock}`,
  );
  lines.push('  - path: f.sock', `    rate: { frames: ${1000 + n} }`);
  return `${lines.join('\n')}\n`;
}

/** Each kind of change was made, so that the test is about something. */
function checkChanges(reports: readonly Reloaded[]): void {
  for (const { failed } of reports) assert.deepEqual(failed, []);
  const count = (of: (report: Reloaded) => unknown[]) =>
    reports.reduce((sum, report) => sum + of(report).length, 0);
  const counts = [
    count(({ added }) => added),
    count(({ changed }) => changed),
    count(({ replaced }) => replaced),
    count(({ removed }) => removed),
    count((report) => report.switch),
  ];
  for (const made of counts) assert.ok(made >= RELOADS / 3, `${counts}`);
}

test('in-process guests at full speed', { timeout: 60_000 }, async (t) => {
  const folder = temporaryFolder();
  const file = join(folder, 'lab.yaml');
  const lab = await openSwitch({ name: 'default', workers: 2 });
  // A window that the receiver has room for: nothing may be dropped for want of buffers.
  const traffic = startTraffic(lab, { frames: Number.POSITIVE_INFINITY, window: 128 });
  const reloader = new Reloader(lab, { file }, [], () => {});
  try {
    while (traffic.counts().some(({ received }) => received < 1000)) await sleep(1);
    const reports: Reloaded[] = [];
    const began = performance.now();
    for (let n = 0; n < RELOADS; n++) {
      writeFileSync(file, fileOf(n, '  - path: a.sock'));
      reports.push(await reloader.reload());
    }
    const ms = performance.now() - began;
    checkChanges(reports);
    const counts = await traffic.drain();
    const [a, b] = counts;
    t.diagnostic(
      `${a.sent + b.sent} frames, ${RELOADS} reloads in ${ms.toFixed(0)} ms: ` +
        `${a.sent - b.received + b.sent - a.received} lost`,
    );
    assert.ok(a.sent > 10_000 && b.sent > 10_000, JSON.stringify(counts));
    assert.deepEqual([b.received, a.received], [a.sent, b.sent], JSON.stringify(lab.stats().ports));
    for (const { corrupt, reordered, missing, foreign } of counts) {
      assert.deepEqual([corrupt, reordered, missing, foreign], [0, 0, 0, 0]);
    }
  } finally {
    await traffic.stop();
    await lab.close();
    removeFolder(folder);
  }
});

test('a wire that becomes a switch and a wire again', { timeout: 60_000 }, async () => {
  const lab = await openSwitch({ forwarding: 'wire' });
  const traffic = startTraffic(lab, { frames: Number.POSITIVE_INFINITY, window: 128 });
  try {
    while (traffic.counts().some(({ received }) => received < 1000)) await sleep(1);
    for (let n = 0; n < RELOADS; n++) {
      lab.configure({ forwarding: n % 2 === 0 ? 'switch' : 'wire' });
      await sleep(2);
    }
    const [a, b] = await traffic.drain();
    assert.ok(a.sent > 10_000, JSON.stringify([a, b]));
    assert.deepEqual([b.received, a.received], [a.sent, b.sent], JSON.stringify(lab.stats().ports));
    assert.throws(() => lab.configure({ ageing: 0 }), /ageing is 0; it must be at least 1 second/);
    assert.deepEqual([lab.info().forwarding, lab.info().ageing], ['wire', 300]);
  } finally {
    await traffic.stop();
    await lab.close();
  }
});

test('front ends of a vhop up process', { timeout: 60_000 }, async (t) => {
  const folder = temporaryFolder();
  const file = join(folder, 'lab.yaml');
  const control = join(folder, 'control');
  const kept = '  - path: a.sock\n  - path: b.sock';
  writeFileSync(file, fileOf(0, kept));
  const args = ['up', file, '--control', control, '--state', 'none'];
  const vhop = new Child(join(root, 'bin/vhop'), args);
  const loop = new EventLoop();
  // The third one's port comes and goes, and with it its memory in the switch.
  const guests = [1, 2, 3].map((id) => new KeepingDriver(id, false));
  const fronts = ['a', 'b', 'c'].map(
    (name, i) =>
      new Frontend({
        path: join(folder, `${name}.sock`),
        mode: 'client',
        loop,
        driver: guests[i]!,
        onNotice: () => {},
        retryMs: 5,
      }),
  );
  const [a, b, c] = guests as [KeepingDriver, KeepingDriver, KeepingDriver];
  const exchange = () => {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      // Never more on the way than the receiver has room for.
      if (from.sent - to.received < 64) from.send(32);
      else from.send(0);
      to.receive();
    }
  };
  try {
    await waitFor(
      () => vhop.stdout.includes('runs'),
      10_000,
      'vhop up',
      () => vhop.tail(),
    );
    for (const front of fronts) front.open();
    await waitFor(
      () => a.up && b.up,
      10_000,
      'a and b up',
      () => vhop.tail(),
    );
    const client = connectTo(control);
    // Heard once from both, so that nobody else's port gets what is theirs.
    while (a.received === 0 || b.received === 0) {
      exchange();
      await turn();
    }
    const reports: Reloaded[] = [];
    let lastStarts = 0;
    let returns = 0;
    for (let n = 1; n <= RELOADS; n++) {
      writeFileSync(file, fileOf(n, kept));
      let done = false;
      const reload = client.post('/reload', {}).finally(() => {
        done = true;
      });
      // With c in the file its guest has time to come back.
      const until = performance.now() + 30;
      while (!done || (n % 2 === 1 && c.starts === lastStarts && performance.now() < until)) {
        exchange();
        await turn();
      }
      if (c.starts > lastStarts) returns++;
      lastStarts = c.starts;
      reports.push(await reload);
    }
    checkChanges(reports);
    const arrived = () => {
      exchangeRest(a, b);
      return a.sent === b.received && b.sent === a.received;
    };
    await waitFor(
      arrived,
      3000,
      'every frame',
      () => `${[a.sent, b.received, b.sent, a.received]}`,
    );
    t.diagnostic(
      `${a.sent + b.sent} frames, ${RELOADS} reloads, c came back ${returns} times: 0 lost`,
    );
    assert.ok(a.sent + b.sent > 5000, `${a.sent} ${b.sent}`);
    assert.ok(returns > 0, `c came back ${returns} times`);
    for (const guest of [a, b]) {
      const { starts, corrupt, errors, again } = guest;
      assert.deepEqual([starts, corrupt, errors, again], [1, 0, 0, 0]);
    }
    const drops = (await client.get('/stats')).ports.map(
      (port) => [port.port, port.drops] as const,
    );
    for (const [name, dropped] of drops) {
      if (name === 'a' || name === 'b') assert.deepEqual(dropped, {}, name);
    }
  } finally {
    for (const front of fronts) await front.close();
    vhop.kill('SIGINT');
    await vhop.finish(10_000).catch(() => {});
    for (const guest of guests) guest.close();
    await loop.close();
    removeFolder(folder);
  }
});

/** Takes what is still on its way. */
function exchangeRest(...guests: KeepingDriver[]): void {
  for (const guest of guests) {
    guest.send(0);
    guest.receive();
  }
}
