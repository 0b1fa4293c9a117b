// A switch with a state file that does not get to take its guests up: the next one does.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { openSwitch } from '../../src/api/index.ts';
import { EventLoop } from '../../src/linux/index.ts';
import { Frontend } from '../../src/vhost-user/index.ts';
import { removeFolder, temporaryFolder, waitFor } from '../peers/process.ts';
import { KeepingDriver } from '../restart/keeping-driver.ts';

const folder = temporaryFolder();
after(() => removeFolder(folder));

it('a start that fails leaves the guests what they need', async () => {
  const state = join(folder, 'state');
  const path = join(folder, 'a');
  const loop = new EventLoop();
  const guest = new KeepingDriver(1, true);
  const front = new Frontend({ path, mode: 'client', loop, driver: guest, onNotice: () => {} });
  const taken = () => {
    guest.send(0);
    return guest.outstanding.tx === 0;
  };
  try {
    const first = await openSwitch({ state });
    await first.addPort({ type: 'vhost-user', name: 'a', path, queues: 1 });
    front.open();
    await waitFor(() => guest.up, 5000, 'the guest up');
    guest.send(50);
    await waitFor(taken, 5000, 'frames taken');
    await first.close();
    assert.ok(existsSync(state), 'its guest is connected');

    for (const name of ['other', 'a']) {
      const second = await openSwitch({ state });
      await assert.rejects(second.addPort({ type: 'vhost-user', name, path: '/nowhere/at/all' }));
      await second.close();
      assert.ok(existsSync(state), 'its guest is still there');
    }

    const third = await openSwitch({ state });
    // One that comes first does not take its place.
    const { index } = await third.addPort({ type: 'memory', name: 'new' });
    assert.equal(index, 1);
    await third.addPort({ type: 'vhost-user', name: 'a', path, queues: 1 });
    await waitFor(() => guest.up && guest.starts === 2, 5000, 'the guest up again');
    guest.send(50);
    await waitFor(taken, 5000, 'frames taken where it was');
    assert.equal(guest.errors, 0);
    const a = third.ports().find(({ name }) => name === 'a')!;
    assert.deepEqual([a.state, a.history.restarts, a.index], ['up', 3, 0]);
    await front.close();
    await third.close();
    assert.equal(existsSync(state), false, 'nobody is connected');
  } finally {
    await front.close();
    guest.close();
    await loop.close();
  }
});
