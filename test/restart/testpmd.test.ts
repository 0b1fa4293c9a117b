// The switch is killed under full load of DPDK's virtio-user, which listens (`server=1`): frames flow again,
// split and packed. Split rings keep what lies in them, so that the same frames circle for ever. Packed ones
// DPDK empties at each reconnect, and begins anew: there a generator goes on.
// VHOP_LONG=1: hundreds of times.

import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectTo } from '../../src/control/client.ts';
import {
  Child,
  removeFolder,
  requirePeers,
  root,
  temporaryFolder,
  waitFor,
} from '../peers/process.ts';
import { Testpmd } from '../peers/testpmd.ts';

const KILLS = process.env['VHOP_LONG'] ? 200 : 6;
/** Frames that circle at first: well below what the rings hold, since some may be delivered twice. */
const BURSTS = 8;
const FRAMES = 2 * BURSTS * 32;
/** How long the switch lets frames wait for the other port. */
const RETURN_MS = 1000;

for (const packed of [false, true]) {
  const kind = packed ? 'packed' : 'split';
  test(`DPDK's rings outlive ${KILLS} kills of the switch, ${kind}`, {
    timeout: 60_000 + KILLS * 4000,
  }, async (t) => {
    if (!requirePeers(t, ['testpmd'])) return;
    const folder = temporaryFolder();
    const paths = ['a', 'b'].map((name) => join(folder, name));
    const state = join('/dev/shm', `vhop-testpmd-${process.pid}-${kind}`);
    const control = connectTo(join(folder, 'control'));
    const args = ['switch', ...paths.map((path) => `client:${path}`)];
    const start = () =>
      new Child(join(root, 'bin/vhop'), [...args, '--control', control.path, '--state', state]);
    const received = async () =>
      (await control.get('/stats').catch(() => undefined))?.ports.map(({ rxFrames }) => rxFrames);
    /** Milliseconds from one port's being up to the other's, once both are. */
    const apart = async () => {
      let ms = 0;
      const both = async () => {
        const found = await control.get('/ports').catch(() => []);
        const [a, b] = found.map(({ history }) => history.resumed);
        if (a === undefined || b === undefined) return false;
        ms = Math.abs(a - b);
        return true;
      };
      await waitFor(both, 20_000, 'both ports up again', () => child.tail());
      return ms;
    };
    let child = start();
    const testpmd = Testpmd.launch({
      name: `vhop-restart-${process.pid}-${kind}`,
      ports: paths.map((virtioUser) => ({ virtioUser, server: true, packed })),
      memory: 128,
      cpu: 1,
      mainCpu: 1,
      forward: packed ? 'flowgen' : 'io',
    });
    try {
      await testpmd.started();
      await testpmd.waitLinkUp();
      await testpmd.start(packed ? '' : `tx_first ${BURSTS}`);
      const firsts: number[] = [];
      let began = performance.now();
      let before = [0, 0];
      let late = 0;
      for (let kill = 0; kill <= KILLS; kill++) {
        if (kill > 0 && !packed && (await apart()) > RETURN_MS) {
          // What was sent meanwhile had nobody to go to, as is promised: on a machine this slow begin anew.
          late++;
          await testpmd.stop();
          await testpmd.start(`tx_first ${BURSTS}`);
        }
        let now: number[] | undefined;
        const flows = async () => {
          now = await received();
          return now?.every((frames, i) => frames > before[i]!) === true;
        };
        const seen = () => `${before} then ${now}\n${child.tail()}`;
        await waitFor(flows, 20_000, `frames both ways after kill ${kill}`, seen);
        if (kill > 0) firsts.push(performance.now() - began);
        // Under way, not just a rest of what lay in the rings.
        before = now!.map((frames) => frames + 20 * FRAMES);
        await waitFor(flows, 10_000, `frames circle after kill ${kill}`, seen);
        for (const { name, state, reason, history } of await control.get('/ports')) {
          assert.equal(state, 'up', `${name} ${reason}`);
          assert.equal(history.restarts, kill);
          assert.equal(history.lost, 0);
        }
        for (const ring of await control.get('/rings')) assert.equal(ring.broken, undefined);
        await sleep(Math.random() * 30);
        before = (await received())!;
        if (kill === KILLS) break;
        child.kill();
        await child.exited;
        began = performance.now();
        child = start();
      }
      t.diagnostic(
        `process start to first frame: ${firsts.slice(0, 12).map((ms) => ms.toFixed(0))} ms`,
      );

      await testpmd.stop();
      if (packed) return;
      await testpmd.clearStats();
      await testpmd.cmd('set fwd rxonly');
      await testpmd.start();
      let left = 0;
      const all = async () => {
        left = (await testpmd.stats()).reduce((sum, port) => sum + port.rxPackets, 0);
        return left >= FRAMES;
      };
      await waitFor(all, 5000, `all ${FRAMES} frames`, () => `${left}`);
      for (const { port, drops } of (await control.get('/stats')).ports) {
        if (late === 0) assert.deepEqual(drops, {}, port);
      }
      t.diagnostic(`${FRAMES} frames sent, ${left} at the end; started anew ${late} times`);
    } finally {
      await testpmd.kill();
      child.kill('SIGINT');
      await child.finish(10_000).catch(() => {});
      rmSync(state, { force: true });
      removeFolder(folder);
    }
  });
}
