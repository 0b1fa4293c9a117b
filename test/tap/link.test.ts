// Two switches joined by a link: a virtio-user port of one at a vhost-user port of the other, a host
// behind each. Offloads pass through, and the link comes back when one of its ends does.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import { ip } from '../linux/network.ts';
import { exec, removeFolder, temporaryFolder, waitFor } from '../peers/process.ts';
import { FAR_IP, farErrors, moveFar, NEAR_IP, oneHost, transfer, twoHosts } from './world.ts';

for (const packed of [false, true]) {
  describe(`two switches and a link, ${packed ? 'packed' : 'split'} rings`, () => {
    let folder: string;
    let switches: [one: Switch, two: Switch] | undefined;
    const path = (): string => join(folder, 'link.sock');
    const link = (i: 0 | 1) => switches![i].ports().find(({ name }) => name === 'link')!;
    const stats = (i: 0 | 1) => switches![i].stats().ports.find(({ port }) => port === 'link')!;
    const up = () =>
      waitFor(
        () => ([0, 1] as const).every((i) => link(i)?.state === 'up'),
        10_000,
        'the link up',
        () => ([0, 1] as const).map((i) => link(i)?.state).join(),
      );
    const ping = () => exec('busybox', ['ping', '-A', '-q', '-w', '20', '-c', '200', FAR_IP]);
    before(async (t) => {
      if (!(await twoHosts(t as never))) return;
      folder = temporaryFolder();
      switches = [await openSwitch({ name: 'one' }), await openSwitch({ name: 'two' })];
      const [one, two] = switches;
      // Its back end is not there yet.
      await two.addPort({ type: 'virtio-user', path: path(), packed });
      await one.addPort({ type: 'vhost-user', path: path() });
      await one.addPort({ type: 'tap', name: 'near' });
      await two.addPort({ type: 'tap', name: 'far' });
      await ip(`addr add ${NEAR_IP}/24 dev near`);
      await moveFar('far');
    });
    after(async () => {
      if (!switches) return;
      for (const lab of switches) await lab.close();
      await oneHost();
      removeFolder(folder);
    });
    const test = (name: string, run: () => Promise<void>) =>
      it(name, { timeout: 60_000 }, async (t) => {
        if (!switches) return t.skip('no namespaces');
        await run();
      });

    test('hosts ping each other; TCP goes over in segments of many MTUs, every byte', async () => {
      await up();
      assert.equal(link(1).features.includes('RING_PACKED'), packed);
      assert.match(await ping(), /200 packets received/);
      const before = stats(1);
      await transfer(32 << 20);
      const now = stats(1);
      const size = (now.txBytes - before.txBytes) / (now.txFrames - before.txFrames);
      assert.ok(size > 3000, `${Math.round(size)} B a frame: cut before the link`);
      assert.equal((await farErrors()).checksums, 0);
      for (const i of [0, 1] as const) assert.deepEqual(stats(i).drops, {});
    });

    test('the back end goes and comes back', async () => {
      await switches![0].removePort('link');
      await waitFor(() => link(1).state === 'connecting', 5000, 'the link down');
      await switches![0].addPort({ type: 'vhost-user', path: path() });
      await up();
      assert.match(await ping(), /200 packets received/);
      await transfer(4 << 20);
    });

    test('the driver goes and comes back', async () => {
      await switches![1].removePort('link');
      await waitFor(() => link(0).state === 'listening', 5000, 'the link down');
      await switches![1].addPort({ type: 'virtio-user', path: path(), packed });
      await up();
      assert.match(await ping(), /200 packets received/);
    });
  });
}
