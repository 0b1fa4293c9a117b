// Memory that cannot be, and memory that goes away under what uses it.

import assert from 'node:assert/strict';
import { openSync, readFileSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { RING_RUNNING, RING_STOPPED } from '../../src/abi/layout.ts';
import * as vu from '../../src/abi/vhost-user.ts';
import { close, memfd } from '../../src/linux/index.ts';
import { CODECS } from '../../src/vhost-user/index.ts';
import { openFds } from '../linux/fds.ts';
import type { FrontEnd } from '../vhost-user/harness.ts';
import { BYTES, parts, REGION, SocketLab } from './socket-lab.ts';

const { table, region, state } = CODECS;
const TOP = 1n << 64n;

describe('memory', { timeout: 60_000 }, () => {
  let lab: SocketLab;
  let front: FrontEnd;
  let fds = 0;
  let free = 0;

  before(async () => {
    lab = await new SocketLab().ready();
  });
  after(() => lab.close());
  beforeEach(async () => {
    [fds, free] = [openFds(), lab.window.largestFree()];
    front = await lab.connect();
  });
  afterEach(async () => {
    front.close();
    await lab.free();
    assert.equal(openFds(), fds, 'descriptors left open');
    assert.equal(lab.window.largestFree(), free, 'memory left mapped');
    assert.deepEqual(lab.errors, []);
  });

  const BAD: [name: string, what: object, says: RegExp][] = [
    ['of size 0', { size: 0n }, /is empty/],
    ['past the end of its file', { size: REGION.size + 4096n }, /ends past its file/],
    ['from beyond its file', { mmapOffset: REGION.size, size: 4096n }, /ends past its file/],
    ['whose GPA wraps', { gpa: TOP - 4096n }, /wraps around/],
    ['whose front-end address wraps', { uva: TOP - 4096n }, /wraps around/],
    ['whose offset wraps', { mmapOffset: TOP - 4096n }, /wraps around/],
    ['of nearly 2^64 bytes', { size: TOP - 4096n, gpa: 0n, uva: 0n }, /ends past its file/],
    ['of 2^32 bytes and one page', { size: (1n << 32n) + 4096n }, /ends past its file/],
    ['at half a page', { gpa: 2048n }, /is not aligned/],
    ['of half a page', { size: 2048n }, /is not aligned/],
    ['from half a page', { mmapOffset: 2048n, size: 4096n }, /is not aligned/],
  ];

  it('class 5: regions that cannot be are refused, and no memory is left', async () => {
    await front.negotiate((1n << 3n) | (1n << 15n));
    for (const [name, what, says] of BAD) {
      const bad = { ...REGION, ...what };
      await lab.refused(front, vu.VU_SET_MEM_TABLE, table.encode([bad]), says, [lab.memory]);
      await lab.refused(front, vu.VU_ADD_MEM_REG, region.encode(bad), says, [lab.memory]);
      assert.equal(lab.device.regions.bytes, 0, name);
    }
  });

  it('class 5: regions that overlap in either address are refused', async () => {
    await front.negotiate((1n << 3n) | (1n << 15n));
    const page = { ...REGION, size: 4096n };
    for (const other of [
      page,
      { ...page, gpa: 1n << 40n },
      { ...page, uva: 1n << 40n },
      { ...page, gpa: REGION.size - 4096n, uva: 1n << 40n },
    ]) {
      const both = [REGION, other];
      const sent = [lab.memory, lab.memory];
      await lab.refused(front, vu.VU_SET_MEM_TABLE, table.encode(both), /overlaps/, sent);
      assert.equal(lab.device.regions.bytes, 0);
    }
    await lab.done(front, vu.VU_ADD_MEM_REG, 'region', REGION, [lab.memory]);
    const inside = region.encode({ ...page, gpa: 4096n, uva: REGION.uva + 4096n });
    await lab.refused(front, vu.VU_ADD_MEM_REG, inside, /overlaps/, [lab.memory]);
    assert.equal(lab.device.regions.bytes, BYTES);
  });

  it('class 5: what is no memory, or not to be written, is refused', async () => {
    await front.negotiate((1n << 3n) | (1n << 15n));
    const page = table.encode([{ ...REGION, size: 4096n }]);
    const file = openSync(import.meta.filename, 'r');
    const none = openSync('/dev/null', 'r+');
    for (const fd of [lab.event, none, file]) {
      const says = /ends past its file|cannot be mapped/;
      await lab.refused(front, vu.VU_SET_MEM_TABLE, page, says, [fd]);
    }
    close(file);
    close(none);
  });

  it('class 5: the thirty-third region of a table and the surplus of its bytes are refused', async () => {
    await front.negotiate((1n << 3n) | (1n << 15n));
    const one = table.encode([REGION]);
    for (const count of [0xffff_ffff, 0x8000_0001, 2, 33]) {
      const bytes = one.slice();
      new DataView(bytes.buffer).setUint32(0, count, true);
      await lab.refused(front, vu.VU_SET_MEM_TABLE, bytes, /SET_MEM_TABLE refused/, [lab.memory]);
    }
    const longer = new Uint8Array([...one, 0]);
    await lab.refused(front, vu.VU_SET_MEM_TABLE, longer, /SET_MEM_TABLE refused/, [lab.memory]);
  });

  it('class 6: a table replaced under live rings: the old addresses are dead before they are unmapped', async () => {
    await lab.start(front, 4);
    assert.deepEqual(ringStates(4), Array(4).fill(RING_RUNNING));
    const elsewhere = { gpa: 1n << 33n, size: 4096n, uva: 1n << 45n, mmapOffset: 0n };
    const file = memfd('other', 4096, { seal: true });
    front.send(vu.VU_SET_MEM_TABLE, 'table', [elsewhere], { fds: [file], needReply: true });
    assert.notEqual(await front.expectU64(vu.VU_SET_MEM_TABLE), 0n);
    close(file);
    assert.deepEqual(ringStates(4), Array(4).fill(RING_STOPPED));
    assert.equal(lab.device.regions.fromUva(parts(0).desc, 16), 0);
    assert.doesNotMatch(readFileSync('/proc/self/maps', 'utf8'), /memfd:guest/);
    // The old table again: they run as before.
    await lab.done(front, vu.VU_SET_MEM_TABLE, 'table', [REGION], [lab.memory]);
    assert.deepEqual(ringStates(4), Array(4).fill(RING_RUNNING));
  });

  it('class 6: a ring that runs is not resized, moved or turned back', async () => {
    await lab.start(front, 4);
    for (const num of [128, 512]) {
      const bytes = state.encode({ index: 1, num });
      await lab.refused(front, vu.VU_SET_VRING_NUM, bytes, /runs; stop it with GET_VRING_BASE/);
      await lab.refused(front, vu.VU_SET_VRING_BASE, bytes, /runs; stop it with GET_VRING_BASE/);
    }
    const moved = CODECS.addr.encode({ index: 1, flags: 0, logGpa: 0n, ...parts(5) });
    await lab.refused(front, vu.VU_SET_VRING_ADDR, moved, /runs; stop it with GET_VRING_BASE/);
  });

  function ringStates(count: number): number[] {
    return lab.device.rings.slice(0, count).map((ring) => ring.state);
  }
});
