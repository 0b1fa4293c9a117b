// Rings that cannot be, and front ends that leave while the workers are on their rings.

import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { RING_FRAMES, RING_RUNNING, RING_STOPPED } from '../../src/abi/layout.ts';
import * as vu from '../../src/abi/vhost-user.ts';
import { F_PROTOCOL_FEATURES, F_RING_PACKED, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { signal } from '../../src/linux/index.ts';
import { ringAddress, ringIndex } from '../../src/memory/control.ts';
import { bit } from '../../src/virtio/features.ts';
import { openFds } from '../linux/fds.ts';
import { LONG } from '../stress/stress.ts';
import type { FrontEnd } from '../vhost-user/harness.ts';
import { BYTES, parts, REGION, SocketLab, UVA } from './socket-lab.ts';

const END = UVA + BigInt(BYTES);

describe('rings', { timeout: LONG ? 7_200_000 : 60_000 }, () => {
  let lab: SocketLab;
  let front: FrontEnd;
  let fds = 0;

  before(async () => {
    lab = await new SocketLab().ready();
  });
  after(() => lab.close());
  beforeEach(async () => {
    fds = openFds();
    front = await lab.connect();
  });
  afterEach(async () => {
    front.close();
    await lab.free();
    assert.equal(openFds(), fds, 'descriptors left open');
    assert.equal(lab.traps, 0);
    assert.deepEqual(lab.errors, []);
  });

  const good = parts(1);
  // Whatever is wrong, the ring's parts are 4096, 518 and 2054 bytes (packed: 4096, 4 and 4).
  const BAD: [name: string, where: Partial<typeof good>][] = [
    ['descriptors at an odd address', { desc: good.desc + 1n }],
    ['descriptors at half of one', { desc: good.desc + 8n }],
    ['the avail ring at an odd address', { avail: good.avail + 1n }],
    ['the used ring between two words', { used: good.used + 2n }],
    ['descriptors at 0', { desc: 0n }],
    ['the avail ring at 0', { avail: 0n }],
    ['the used ring at 0', { used: 0n }],
    ['descriptors in front of memory', { desc: UVA - 4096n }],
    ['descriptors that begin in front of it', { desc: UVA - 16n }],
    ['descriptors over the end', { desc: END - 4080n }],
    ['the avail ring over the end', { avail: END - 2n }],
    ['the used ring over the end', { used: END }],
    ['descriptors at the end of the address space', { desc: (1n << 64n) - 16n }],
    ['the used ring at the end of the address space', { used: (1n << 64n) - 4n }],
    ['a guest address for a front end address', { desc: 0x1_0000n, avail: 0x1_2000n }],
  ];

  for (const packed of [false, true]) {
    it(`class 9: ${packed ? 'packed' : 'split'} rings misaligned, at zero or out of memory never run`, async () => {
      const features = bit(F_VERSION_1) | bit(F_PROTOCOL_FEATURES);
      front.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', (1n << 3n) | (1n << 15n));
      front.send(vu.VU_SET_FEATURES, 'u64', packed ? features | bit(F_RING_PACKED) : features);
      front.send(vu.VU_SET_MEM_TABLE, 'table', [REGION], { fds: [lab.memory] });
      for (const [name, where] of BAD) {
        const index = 1;
        const all = { index, flags: 0, logGpa: 0n, ...good, ...where };
        front.send(vu.VU_SET_VRING_NUM, 'state', { index, num: 256 });
        front.send(vu.VU_SET_VRING_ADDR, 'addr', all, { needReply: true });
        const refused = (await front.expectU64(vu.VU_SET_VRING_ADDR)) !== 0n;
        const kick = { fds: [lab.event], needReply: true };
        front.send(vu.VU_SET_VRING_KICK, 'ringFd', { index, noFd: false }, kick);
        await front.expectU64(vu.VU_SET_VRING_KICK);
        front.send(vu.VU_SET_VRING_ENABLE, 'state', { index, num: 1 }, { needReply: true });
        const enabled = (await front.expectU64(vu.VU_SET_VRING_ENABLE)) === 0n;
        assert.equal(lab.device.rings[index]!.state, RING_STOPPED, name);
        // Somebody was told: at the address, or where it would have begun to run.
        assert.ok(refused || !enabled, `${name}: nobody was told`);
        front.send(vu.VU_SET_VRING_ENABLE, 'state', { index, num: 0 });
        front.send(vu.VU_GET_VRING_BASE, 'state', { index, num: 0 });
        await front.expect(vu.VU_GET_VRING_BASE);
        lab.device.rings[index]!.parts = undefined;
      }
      // The same ring, right.
      const index = 1;
      await lab.done(front, vu.VU_SET_VRING_ADDR, 'addr', { index, flags: 0, logGpa: 0n, ...good });
      await lab.done(front, vu.VU_SET_VRING_KICK, 'ringFd', { index, noFd: false }, [lab.event]);
      await lab.done(front, vu.VU_SET_VRING_ENABLE, 'state', { index, num: 1 });
      assert.equal(lab.device.rings[index]!.state, RING_RUNNING);
    });
  }

  it('class 9: what was aligned for split rings is refused when the ring starts as a packed one', async () => {
    const features = bit(F_VERSION_1) | bit(F_PROTOCOL_FEATURES);
    const index = 1;
    front.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', 1n << 3n);
    front.send(vu.VU_SET_FEATURES, 'u64', features);
    front.send(vu.VU_SET_MEM_TABLE, 'table', [REGION], { fds: [lab.memory] });
    front.send(vu.VU_SET_VRING_NUM, 'state', { index, num: 256 });
    const at = { index, flags: 0, logGpa: 0n, ...good, avail: good.avail + 2n };
    await lab.done(front, vu.VU_SET_VRING_ADDR, 'addr', at);
    await lab.done(front, vu.VU_SET_FEATURES, 'u64', features | bit(F_RING_PACKED));
    await lab.done(front, vu.VU_SET_VRING_ENABLE, 'state', { index, num: 1 });
    const kick = { fds: [lab.event], needReply: true };
    front.send(vu.VU_SET_VRING_KICK, 'ringFd', { index, noFd: false }, kick);
    assert.notEqual(await front.expectU64(vu.VU_SET_VRING_KICK), 0n);
    assert.equal(lab.device.rings[index]!.state, RING_STOPPED);
  });

  it('class 10: front ends that leave while their rings are polled leave nothing behind', async () => {
    const rounds = LONG ? 20_000 : 300;
    const ring = Number(parts(1).desc - UVA);
    const used = Buffer.alloc(2);
    // 256 descriptors of 100 bytes, each its own chain, all of them available again and again.
    const descriptors = Buffer.alloc(256 * 16);
    const heads = Buffer.alloc(512);
    for (let i = 0; i < 256; i++) {
      descriptors.writeBigUInt64LE(0x20_0000n + BigInt(i) * 2048n, i * 16);
      descriptors.writeUInt32LE(100, i * 16 + 8);
      heads.writeUInt16LE(i, i * 2);
    }
    writeSync(lab.memory, descriptors, 0, undefined, ring);
    writeSync(lab.memory, heads, 0, undefined, ring + 0x2000 + 4);
    const frames = () => lab.control.counter(ringAddress(ringIndex(0, 1)) + RING_FRAMES);
    const before = frames();
    for (let round = 0; round < rounds; round++) {
      if (round > 0) front = await lab.connect();
      await lab.start(front, 2);
      for (let burst = 1; burst <= 1 + (round % 5); burst++) {
        used.writeUInt16LE(burst * 50, 0);
        writeSync(lab.memory, used, 0, undefined, ring + 0x2000 + 2);
        signal(lab.event);
      }
      // At once, in the middle of a request, or a moment later.
      if (round % 3 === 0) front.raw(Buffer.from([9, 0, 0, 0, 1, 0, 0, 0, 40, 0]));
      if (round % 3 === 1) await new Promise(setImmediate);
      front.close();
      await lab.free();
      assert.equal(lab.device.rings[1]!.state, RING_STOPPED);
      // Not before: a driver starts on rings that it cleared.
      writeSync(lab.memory, Buffer.alloc(2), 0, undefined, ring + 0x2000 + 2);
      writeSync(lab.memory, Buffer.alloc(4), 0, undefined, ring + 0x4000);
    }
    assert.ok(frames() > before + rounds, 'the worker was never on the ring');
    front = await lab.connect();
  });
});
