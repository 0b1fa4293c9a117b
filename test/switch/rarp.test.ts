// SEND_RARP: a front end says that its guest's address is now behind its port (after a migration), and
// the switch believes it at once.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import { close, connectUnix, sendWithFds } from '../../src/linux/index.ts';
import { message, words } from './raw.ts';

const SET_PROTOCOL_FEATURES = 16;
const SEND_RARP = 19;
const RARP = 1n << 2n;
/** 52:54:00:00:00:01, first byte lowest. */
const MAC = 0x0100_0000_5452n;

describe('SEND_RARP', { timeout: 30_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'vhop-rarp-'));
  let lab: Switch;

  before(async () => {
    lab = await openSwitch();
    for (const name of ['a', 'b']) {
      await lab.addPort({ type: 'vhost-user', path: join(folder, `${name}.sock`) });
    }
  });
  after(async () => {
    await lab.close();
    rmSync(folder, { recursive: true });
  });

  async function announce(port: string): Promise<() => void> {
    const fd = connectUnix(join(folder, `${port}.sock`));
    const requests = [message(SET_PROTOCOL_FEATURES, words(RARP)), message(SEND_RARP, words(MAC))];
    for (const { bytes } of requests) sendWithFds(fd, bytes);
    while (lab.fdb()[0]?.port !== port) await new Promise((resolve) => setTimeout(resolve, 5));
    return () => close(fd);
  }

  it('moves the address to the port it came from', async () => {
    const first = await announce('a');
    assert.deepEqual(lab.fdb(), [{ mac: '52:54:00:00:00:01', port: 'a', age: lab.fdb()[0]!.age }]);
    const second = await announce('b');
    assert.equal(lab.fdb().length, 1);
    assert.equal(lab.stats().fdb.moves, 1);
    first();
    second();
  });
});
