// Two QEMU guests, one with packed and one with split rings, whose switch is killed and started again: their
// connections stay. QEMU listens, so that nothing waits for its once-a-second reconnect. VHOP_LONG=1: a hundred kills.

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectTo } from '../../src/control/client.ts';
import { Guest } from '../peers/guest.ts';
import { configure } from '../peers/iperf.ts';
import {
  Child,
  removeFolder,
  requirePeers,
  root,
  temporaryFolder,
  waitFor,
} from '../peers/process.ts';
import { A, B, pingAll } from '../qemu/pair.ts';
import { stream } from '../qemu/stream.ts';
import { LONG } from '../stress/stress.ts';

const KILLS = LONG ? 100 : 4;
const TAKEOVERS = 2;

test('guests outlive their switch', {
  timeout: 100_000 + KILLS * 5000,
}, async (t) => {
  if (!requirePeers(t, ['qemu'])) return;
  const folder = temporaryFolder();
  const control = join(folder, 'control');
  const state = join('/dev/shm', `vhop-qemu-${process.pid}`);
  const path = (name: string): string => join(folder, name);
  const args = ['switch', `client:${path('a')}`, `client:${path('b')}`];
  const start = (...more: string[]) =>
    new Child(join(root, 'bin/vhop'), [...args, '--control', control, '--state', state, ...more]);
  const ports = async () =>
    connectTo(control)
      .get('/ports')
      .catch(() => []);
  const up = async (): Promise<boolean> => {
    const found = await ports();
    return found.length === 2 && found.every((port) => port.state === 'up');
  };
  const guests: Guest[] = [];
  let child = start();
  try {
    const boot = (name: string) =>
      Guest.boot({
        name,
        nics: [
          { backend: { vhostUser: path(name), server: true }, device: { packed: name === 'a' } },
        ],
      });
    const [a, b] = await Promise.all([boot('a'), boot('b')]);
    guests.push(a, b);
    await configure(a, `${A}/24`);
    await configure(b, `${B}/24`);
    await waitFor(up, 10_000, 'both ports up', () => child.tail());
    for (const { name, features } of await ports()) {
      assert.equal(features.includes('RING_PACKED'), name === 'a');
    }
    await pingAll(a, B, 20);

    // One TCP connection under way all the time; its bytes are compared at the end.
    const bytes = await stream(a, b, B);
    const gaps: number[] = [];
    for (let kill = 0; kill < KILLS; kill++) {
      await sleep(150);
      child.kill();
      await child.exited;
      const began = performance.now();
      child = start();
      await waitFor(up, 10_000, 'both ports up again', () => child.tail());
      gaps.push(performance.now() - began);
      for (const { history } of await ports()) {
        assert.equal(history.restarts, kill + 1);
        assert.ok(history.resumed! <= performance.now() - began, `up after ${history.resumed} ms`);
      }
      const before = (await connectTo(control).get('/stats')).ports.map(({ rxFrames }) => rxFrames);
      await pingAll(a, B, 10);
      await pingAll(b, A, 10);
      const after = (await connectTo(control).get('/stats')).ports.map(({ rxFrames }) => rxFrames);
      // Counters go on, too.
      assert.ok(
        before.every((frames, i) => frames > 0 && after[i]! > frames),
        `${before} ${after}`,
      );
    }
    // Taken over by a new process they do not even lose the connection to it.
    const peers = (await ports()).map(({ peer }) => peer?.pid);
    for (let time = 0; time < TAKEOVERS; time++) {
      const old = child;
      child = start('--takeover');
      await waitFor(
        () => old.exit !== undefined,
        20_000,
        'the old switch to leave',
        () => child.tail(),
      );
      assert.match(old.stdout, /after a pause of/, old.tail());
      assert.doesNotMatch(old.stdout, /quarantined/);
      await waitFor(up, 10_000, 'both ports up still', () => child.tail());
      assert.deepEqual(
        (await ports()).map(({ peer }) => peer?.pid),
        peers,
      );
      await pingAll(a, B, 10);
      t.diagnostic(/after a pause of [0-9.]+ ms/.exec(old.stdout)![0]);
    }
    assert.ok((await bytes.stop()) > 0);
    await pingAll(b, A, 50);
    for (const guest of guests) {
      const { stdout } = await guest.run('dmesg | grep -c "id .* is not a head" || true');
      assert.equal(stdout.trim(), '0', 'no used id that the driver did not know');
    }
    const sorted = gaps.map((ms) => Math.round(ms)).sort((x, y) => x - y);
    t.diagnostic(
      `start to both ports up, ${KILLS} kills: median ${sorted[KILLS >> 1]} ms, worst ${sorted.at(-1)} ms`,
    );
  } finally {
    await Promise.all(guests.map((guest) => guest.stop()));
    child.kill('SIGINT');
    await child.finish(10_000).catch(() => {});
    rmSync(state, { force: true });
    removeFolder(folder);
  }
});
