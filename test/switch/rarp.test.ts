// SEND_RARP: a front end says that its guest's address is now behind its port (after a migration), and
// the switch believes it at once.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { F_GUEST_ANNOUNCE } from '../../src/abi/virtio.ts';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import { close, connectUnix, sendWithFds } from '../../src/linux/index.ts';
import { waitFor } from '../peers/process.ts';
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

/** RFC 903, without FCS. */
const FRAME = Buffer.from(
  'ffffffffffff' +
    '525400000001' +
    '8035' +
    '0001' +
    '0800' +
    '06' +
    '04' +
    '0003' +
    ('525400000001' + '00000000').repeat(2) +
    '00'.repeat(18),
  'hex',
);

describe('the RARP of a guest that does not announce itself', { timeout: 30_000 }, () => {
  for (const [forwarding, hosts, workers] of [
    ['switch', 3, 1],
    ['switch', 3, 3],
    ['wire', 1, 1],
  ] as const) {
    it(`goes to all others, ${forwarding}, workers: ${workers}`, async () => {
      const lab = await openSwitch({ forwarding, workers });
      try {
        const ports = Array.from({ length: hosts }, (_, i) =>
          lab.addNetmapPort({ name: `host${i}`, headers: 'kept' }),
        );
        const guest = lab.addMemoryPort({ type: 'memory', name: 'guest' });
        for (let round = 1; round <= 5; round++) {
          guest.device.sendRarp(Uint8Array.of(0x52, 0x54, 0, 0, 0, 1));
          for (const port of ports) {
            assert.ok(await port.wait(2000, { rx: true }));
            const [ring] = port.rx;
            assert.equal(port.rxSync(ring!), 1);
            assert.deepEqual(Buffer.from(ring!.bytes(ring!.head)), FRAME);
            ring!.head = ring!.cur = ring!.tail;
          }
          // A frame is counted after it is shown.
          const sent = () => lab.stats().ports[hosts]!.txFrames;
          await waitFor(
            () => sent() >= round,
            2000,
            'the count',
            () => `${sent()} of ${round}`,
          );
          const { txFrames, txBytes, rxFrames } = lab.stats().ports[hosts]!;
          assert.deepEqual(
            { txFrames, txBytes, rxFrames },
            { txFrames: round, txBytes: 60 * round, rxFrames: 0 },
          );
        }
        assert.equal(lab.fdb()[0]?.port, 'guest');
        for (const port of ports) await port.close();
      } finally {
        await lab.close();
      }
    });
  }

  it('waits for its port to be up, and is counted where nobody is', async () => {
    const lab = await openSwitch();
    try {
      const guest = lab.addMemoryPort({ type: 'memory', name: 'guest' });
      const { device } = guest;
      for (const index of [0, 1]) device.setVringEnable(index, false);
      device.sendRarp(Uint8Array.of(0x52, 0x54, 0, 0, 0, 1));
      await new Promise((done) => setTimeout(done, 30));
      assert.equal(lab.stats().ports[0]!.txFrames, 0);
      for (const index of [0, 1]) device.setVringEnable(index, true);
      while (lab.stats().ports[0]!.txFrames === 0) await new Promise((done) => setTimeout(done, 5));
      assert.deepEqual(lab.stats().ports[0]!.drops, { tx_no_receiver: 1 });
    } finally {
      await lab.close();
    }
  });

  it('is not sent for one that does', async () => {
    const lab = await openSwitch();
    try {
      const host = lab.addNetmapPort({ name: 'host', headers: 'kept' });
      const { device } = lab.addMemoryPort({ type: 'memory', name: 'guest' });
      device.features |= 1n << BigInt(F_GUEST_ANNOUNCE);
      device.sendRarp(Uint8Array.of(0x52, 0x54, 0, 0, 0, 1));
      assert.equal(lab.fdb()[0]?.port, 'guest');
      assert.equal(await host.wait(100, { rx: true }), false);
      await host.close();
    } finally {
      await lab.close();
    }
  });
});
