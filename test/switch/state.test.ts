// A switch with a state file that does not get to take its guests up: the next one does.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
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

it('after a restart, what a guest sends waits for one that listens and is about to be back, not for ever', async () => {
  const state = join(folder, 'two');
  const paths = [join(folder, 'left'), join(folder, 'right')] as const;
  const loop = new EventLoop();
  const guests = [new KeepingDriver(1, false), new KeepingDriver(2, false)] as const;
  const listen = (i: 0 | 1): Frontend => {
    const [path, driver] = [paths[i], guests[i]];
    const front = new Frontend({ path, mode: 'server', loop, driver, onNotice: () => {} });
    front.open();
    return front;
  };
  const open = async () => {
    const lab = await openSwitch({ state });
    for (const path of paths) {
      await lab.addPort({ type: 'vhost-user', path, mode: 'client', queues: 1 });
    }
    return lab;
  };
  const up = (...which: KeepingDriver[]) =>
    waitFor(() => which.every((guest) => guest.up), 5000, 'guests up');
  const outstanding = () => {
    guests[0].send(0);
    return guests[0].outstanding.tx;
  };
  const fronts = [listen(0), listen(1)];
  let lab = await open();
  try {
    for (const comes of [true, false]) {
      await up(...guests);
      await lab.close();
      await waitFor(() => guests.every((guest) => !guest.up), 5000, 'guests down');
      await fronts[1]!.close();
      guests[0].send(50);
      const { received } = guests[1];

      lab = await open();
      await up(guests[0]);
      await sleep(200);
      assert.equal(outstanding(), 50, 'nobody would get them yet');
      if (comes) {
        fronts[1] = listen(1);
        const all = () => {
          guests[1].receive();
          return guests[1].received === received + 50;
        };
        await waitFor(all, 5000, 'all of them', () => `${guests[1].received - received}`);
      }
      await waitFor(() => outstanding() === 0, 2000, 'an end of waiting');
      const { drops } = lab.stats().ports[0]!;
      assert.deepEqual(drops, comes ? {} : { tx_no_receiver: 50 });
    }
  } finally {
    for (const front of fronts) await front.close();
    await lab.close();
    for (const guest of guests) guest.close();
    await loop.close();
  }
});
