// What is not handed over to another process; what is, is in test/restart/takeover.test.ts.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import * as vu from '../../src/abi/vhost-user.ts';
import { F_LOG_ALL, F_PROTOCOL_FEATURES, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { openSwitch } from '../../src/api/index.ts';
import { connectUnix } from '../../src/linux/index.ts';
import { bit } from '../../src/virtio/features.ts';
import { removeFolder, temporaryFolder } from '../peers/process.ts';
import { FrontEnd } from '../vhost-user/harness.ts';

it('a guest that is being migrated stays, and so do the others', { timeout: 20_000 }, async () => {
  const folder = temporaryFolder();
  const lab = await openSwitch();
  const ports = ['a', 'b'].map((name) => join(folder, name));
  for (const path of ports) await lab.addPort({ type: 'vhost-user', path });
  const fronts = ports.map((path) => new FrontEnd(connectUnix(path)));
  try {
    const [, moving] = fronts;
    await moving!.negotiate(1n << BigInt(vu.PF_REPLY_ACK));
    const features = bit(F_VERSION_1) | bit(F_PROTOCOL_FEATURES) | bit(F_LOG_ALL);
    moving!.send(vu.VU_SET_FEATURES, 'u64', features);
    await moving!.barrier();
    await assert.rejects(
      lab.handOver(join(folder, 'nobody')),
      /^HandoverError: port b is being migrated/,
    );
    for (const front of fronts) await front.barrier();
    moving!.send(vu.VU_SET_FEATURES, 'u64', features & ~bit(F_LOG_ALL));
    await moving!.barrier();
    await assert.rejects(lab.handOver(join(folder, 'nobody')), /cannot be reached/);
    for (const front of fronts) await front.barrier();
  } finally {
    for (const front of fronts) front.close();
    await lab.close();
    removeFolder(folder);
  }
});
