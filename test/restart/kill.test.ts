// The switch is killed at any instant under load and started again: its guests' rings go on where they
// were, split and packed. No used id is invalid or named twice, no head lost for good, no frame corrupt.
// VHOP_LONG=1: a thousand times.

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectTo } from '../../src/control/client.ts';
import { EventLoop } from '../../src/linux/index.ts';
import type { PortInfo } from '../../src/types.ts';
import { Frontend } from '../../src/vhost-user/index.ts';
import { Child, removeFolder, root, temporaryFolder, waitFor } from '../peers/process.ts';
import { KeepingDriver } from './keeping-driver.ts';

const KILLS = process.env['VHOP_LONG'] ? 500 : 12;

/** Milliseconds: lets everybody's events come in between. */
const turn = () => new Promise<void>((done) => setImmediate(done));

for (const packed of [false, true]) {
  describe(`the switch is killed under load, ${packed ? 'packed' : 'split'} rings`, () => {
    it(`${KILLS} times`, { timeout: 60_000 + KILLS * 5000 }, async (t) => {
      const folder = temporaryFolder();
      const sockets = ['a', 'b'].map((name) => join(folder, name));
      const control = join(folder, 'c');
      const state = join('/dev/shm', `vhop-kill-${process.pid}-${packed}`);
      const args = ['switch', ...sockets, '--control', control, '--state', state, '--queues', '1'];
      const start = () => new Child(join(root, 'bin/vhop'), args);
      const loop = new EventLoop();
      const guests = [new KeepingDriver(1, packed), new KeepingDriver(2, packed)] as const;
      const fronts = guests.map(
        (driver, i) =>
          new Frontend({
            path: sockets[i]!,
            mode: 'client',
            loop,
            driver,
            onNotice: () => {},
            retryMs: 20,
          }),
      );
      const gaps: number[] = [];
      /** What the switch says of itself. */
      const resumes: number[] = [];
      let kills = 0;
      let starts0 = [0, 0];
      let told = 0;
      let seed = 1;
      const random = () => {
        seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
        return seed / 2 ** 32;
      };
      /** Traffic both ways until `done`, or the time is over. */
      const run = async (done: () => boolean, ms: number): Promise<boolean> => {
        const end = performance.now() + ms;
        while (!done() && performance.now() < end) {
          for (const guest of guests) {
            guest.send(32);
            guest.receive();
          }
          await turn();
        }
        return done();
      };
      let child = start();
      try {
        for (const front of fronts) front.open();
        for (let kill = 0; kill <= KILLS; kill++) {
          let ports: PortInfo[] = [];
          // The switch says so too: a guest may not have heard yet that the one before it is gone.
          const back = async () => {
            if (!guests.every(({ up, starts }, i) => up && starts > starts0[i]!)) return false;
            ports = await connectTo(control)
              .get('/ports')
              .catch(() => []);
            return ports.length === 2 && ports.every(({ state }) => state === 'up');
          };
          await waitFor(back, 20_000, `start ${kill + 1}`, () => child.tail());
          starts0 = guests.map(({ starts }) => starts);
          for (const { history } of ports) {
            const { restarts, connections, lost, resumed } = history;
            assert.deepEqual([connections, lost], [1, 0]);
            assert.ok(kill === 0 || restarts > told, `${restarts} restarts, ${told} before`);
            assert.ok(restarts <= kills, `${restarts} restarts, ${kills} kills`);
            if (kill > 0) resumes.push(resumed!);
          }
          told += kill > 0 ? 1 : 0;
          const started = performance.now();
          const flows = () => guests.every(({ firstAt }) => firstAt > 0);
          assert.ok(await run(flows, 5000), `traffic after kill ${kill}`);
          gaps.push(Math.max(...guests.map(({ firstAt }) => firstAt)) - started);
          await run(() => false, 20 + random() * 30);
          for (const { errors, corrupt } of guests) assert.deepEqual([errors, corrupt], [0, 0]);
          if (kill === KILLS) break;
          child.kill();
          await child.exited;
          kills++;
          child = start();
          // While it starts, before any guest is back or with one of them.
          if (kill % 3 === 2) {
            await sleep(100 + random() * 250);
            child.kill();
            await child.exited;
            kills++;
            child = start();
          }
        }
        // Everything that is under way comes back.
        for (const guest of guests) {
          const drained = async () => {
            for (const each of guests) {
              each.receive();
              each.send(0);
            }
            return guest.outstanding.tx === 0;
          };
          await waitFor(drained, 5000, 'all frames back', () => JSON.stringify(guest.outstanding));
          const { errors, corrupt, outstanding, ringSize } = guest;
          assert.deepEqual([errors, corrupt], [0, 0]);
          // All receive buffers are the switch's again, but for the lot that the driver still holds.
          assert.ok(outstanding.rx > ringSize / 2, `${outstanding.rx} receive buffers posted`);
        }
        gaps.sort((a, b) => a - b);
        const again = guests.reduce((sum, guest) => sum + guest.again, 0);
        const received = guests.reduce((sum, guest) => sum + guest.received, 0);
        t.diagnostic(
          `${received} frames, ${again} of them twice; first frame after a start: median ` +
            `${gaps[gaps.length >> 1]!.toFixed(1)} ms, p99 ${gaps[Math.floor(gaps.length * 0.99)]!.toFixed(1)} ms, ` +
            `at most ${gaps.at(-1)!.toFixed(1)} ms; ` +
            `links up ${Math.min(...resumes).toFixed(0)} to ${Math.max(...resumes).toFixed(0)} ms after the switch opened`,
        );
      } finally {
        for (const front of fronts) await front.close();
        child.kill('SIGINT');
        await child.finish(10_000).catch(() => {});
        for (const guest of guests) guest.close();
        await loop.close();
        rmSync(state, { force: true });
        removeFolder(folder);
      }
    });
  });
}
