// Messages that are wrong in themselves: refused, with nothing changed and nothing kept.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { PORT_BASE, PORT_HDR_LEN } from '../../src/abi/layout.ts';
import * as vu from '../../src/abi/vhost-user.ts';
import * as V from '../../src/abi/virtio.ts';
import { close, eventfd } from '../../src/linux/index.ts';
import { CODECS, encodeMessage } from '../../src/vhost-user/index.ts';
import { bit, has } from '../../src/virtio/features.ts';
import { openFds } from '../linux/fds.ts';
import { type FrontEnd, withSession } from '../vhost-user/harness.ts';
import { REGION, SocketLab } from './socket-lab.ts';

const { state, u64, addr, inflight, transfer } = CODECS;
const LOG_SHMFD = (1n << 3n) | (1n << 15n) | 1n | (1n << 1n);
const LOGGED = bit(V.F_LOG_ALL) | bit(V.F_VERSION_1) | bit(V.F_PROTOCOL_FEATURES);
const PARTS = { flags: 0, desc: 0n, avail: 0n, used: 0n, logGpa: 0n };

describe('messages', { timeout: 60_000 }, () => {
  let lab: SocketLab;
  let front: FrontEnd;
  let fds = 0;

  before(async () => {
    lab = await new SocketLab(8, { mtu: 9000 }).ready();
  });
  after(() => lab.close());
  beforeEach(async () => {
    fds = openFds();
    front = await lab.connect();
    await lab.start(front, 4);
  });
  afterEach(async () => {
    front.close();
    await lab.free();
    assert.equal(openFds(), fds, 'descriptors left open');
    assert.deepEqual(lab.errors, []);
  });

  const refused = (request: number, payload: Uint8Array, why: RegExp, sent?: number[]) =>
    lab.refused(front, request, payload, why, sent);

  it('class 1: surplus descriptors on every request, 2000 times, leave none open', async () => {
    const event = eventfd();
    await withSession(async ({ front, backend, session }) => {
      await front.negotiate();
      const flat = openFds();
      // Those with a reply of their own end the connection when wrong; see session.test.ts. 7 may have one.
      const requests = Array.from({ length: 45 }, (_, i) => i + 1).filter(
        (request) => ![1, 6, 7, 11, 15, 17, 36, 40].includes(request),
      );
      for (let round = 0; round < 2000; round++) {
        const request = requests[round % requests.length]!;
        const bytes = encodeMessage(request, vu.VERSION | vu.FLAG_NEED_REPLY, 'none', null);
        front.raw(bytes, Array(1 + (round % 32)).fill(event));
        assert.notEqual(await front.expectU64(request), 0n);
        if (round % 100 === 0) assert.equal(openFds(), flat);
      }
      assert.equal(openFds(), flat);
      assert.equal(session.open, true);
      assert.deepEqual(backend.fds, []);
    });
    close(event);
  });

  it('class 1: more descriptors than are taken (MSG_CTRUNC) end the connection, 200 times', async () => {
    for (let round = 0; round < 200; round++) {
      const other = await withNext();
      other.raw(
        encodeMessage(vu.VU_SET_OWNER, vu.VERSION, 'none', null),
        Array(33 + round).fill(lab.event),
      );
      await other.expectClosed();
      other.close();
      await lab.free();
    }
    front = await lab.connect();
  });

  /** The first front end goes, another comes. */
  async function withNext(): Promise<FrontEnd> {
    front.close();
    await lab.free();
    return lab.connect();
  }

  it('class 2: a size set 2000 times is one size, with nothing allocated for it', async () => {
    const [open, free] = [openFds(), lab.window.largestFree()];
    for (let round = 0; round < 2000; round++) {
      const num = 1 << (round % 16);
      await lab.done(front, vu.VU_SET_VRING_NUM, 'state', { index: 15, num });
    }
    assert.equal(lab.device.rings[15]!.size, 1 << 15);
    assert.deepEqual([openFds(), lab.window.largestFree()], [open, free]);
  });

  it('class 2: a memory table set 500 times, a region added 500 times, is one mapping', async () => {
    const second = { ...REGION, gpa: REGION.size, uva: REGION.uva + REGION.size };
    const mappings = () => readFileSync('/proc/self/maps', 'utf8').match(/memfd:guest/g)?.length;
    const [open, maps] = [openFds(), mappings()];
    for (let round = 0; round < 500; round++) {
      await lab.done(front, vu.VU_SET_MEM_TABLE, 'table', [REGION], [lab.memory]);
    }
    assert.deepEqual([openFds(), mappings()], [open, maps]);
    for (let round = 0; round < 500; round++) {
      await lab.done(front, vu.VU_ADD_MEM_REG, 'region', second, [lab.memory]);
    }
    // One mapping, and one descriptor, for whoever takes the port over.
    assert.deepEqual([openFds(), mappings()], [open + 1, maps! + 1]);
    assert.equal(lab.device.regions.bytes, 2 * Number(REGION.size));
  });

  it('class 2: GET_INFLIGHT_FD, 200 times, is refused and maps nothing', async () => {
    const payload = inflight.encode({ size: 0n, offset: 0n, queues: 16, queueSize: 256 });
    for (let round = 0; round < 200; round++) {
      await refused(vu.VU_GET_INFLIGHT_FD, payload, /INFLIGHT_SHMFD was not negotiated/);
    }
  });

  it('class 3: ring index 0x10000+k is refused, state unchanged', async () => {
    for (const index of [16, 17, 255, 256, 257, 0xffff, 0x10000, 0x10001, 0x1000f, 0xffffffff]) {
      const ring = state.encode({ index, num: 1 });
      const why = new RegExp(`ring ${index} does not exist; this port has rings 0-15`);
      for (const request of [vu.VU_SET_VRING_NUM, vu.VU_SET_VRING_BASE, vu.VU_SET_VRING_ENABLE]) {
        await refused(request, ring, why);
      }
      await refused(vu.VU_SET_VRING_ADDR, addr.encode({ index, ...PARTS }), why);
    }
    for (const request of [vu.VU_SET_VRING_KICK, vu.VU_SET_VRING_CALL, vu.VU_SET_VRING_ERR]) {
      for (const value of [0x10n, 0xffn, 0x10000n, 0x10001n, 1n << 32n, 1n << 63n]) {
        await refused(request, u64.encode(value), /does not exist|cannot be/, [lab.event]);
      }
      for (const value of [0x110n, 0x1ffn, 0x10100n]) {
        await refused(request, u64.encode(value), /does not exist|cannot be/);
      }
    }
  });

  it('class 3: the queues a port has are what it says, not what is asked', async () => {
    front.send(vu.VU_GET_QUEUE_NUM, 'none', null);
    assert.equal(await front.expectU64(vu.VU_GET_QUEUE_NUM), 8n);
    // A reply of its own cannot say no: the connection ends.
    front.send(vu.VU_GET_VRING_BASE, 'state', { index: 0x10000, num: 0 }, { needReply: true });
    await front.expectClosed();
  });

  it('class 4: a dirty log that cannot be ends the connection, and is not kept', async () => {
    const small = { size: 4096n, offset: 0n };
    const areas: [area: typeof small, why: RegExp][] = [
      [small, /ends at GPA 0x8000000, the guest's memory at/],
      [{ size: 4096n, offset: REGION.size }, /ends past its file/],
      [{ size: 0n, offset: 0n }, /is empty/],
      [{ size: (1n << 64n) - 1n, offset: 4096n }, /wraps around/],
      [{ size: 4096n, offset: (1n << 64n) - 4096n }, /wraps around/],
      [{ size: 1n << 62n, offset: 0n }, /is more than/],
    ];
    await refused(vu.VU_SET_FEATURES, u64.encode(LOGGED), /SET_LOG_BASE has to come first/);
    await refused(vu.VU_SET_LOG_FD, new Uint8Array(), /not an eventfd/, [lab.memory]);
    // What is said is limited, as are those who say it: only what is said must be right.
    const ends = async (area: typeof small, why: RegExp) => {
      const said = lab.notices.length;
      front.send(vu.VU_SET_LOG_BASE, 'log', area, { needReply: true, fds: [lab.memory] });
      await front.expectClosed();
      for (const notice of lab.notices.slice(said)) assert.match(notice, why);
    };
    await ends(small, /LOG_SHMFD was not negotiated/);
    const pinned = lab.window.largestPinned();
    for (const [area, why] of areas) {
      front = await withNext();
      await lab.start(front, 4);
      front.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', LOG_SHMFD);
      // Memory up to 256 MiB: more than a page of bits.
      const far = { ...REGION, gpa: 0x1000_0000n - REGION.size, uva: 1n << 46n };
      front.send(vu.VU_ADD_MEM_REG, 'region', far, { fds: [lab.memory] });
      await front.barrier();
      await ends(area, why);
      assert.equal(lab.window.largestPinned(), pinned);
    }
  });

  it('class 7: state from elsewhere, with any number of queues, is refused', async () => {
    for (const queues of [1, 16, 17, 0xffff]) {
      const area = { size: 1n << 31n, offset: 0n, queues, queueSize: 0xffff };
      const bytes = inflight.encode(area);
      await refused(vu.VU_SET_INFLIGHT_FD, bytes, /INFLIGHT_SHMFD was not negotiated/, [
        lab.memory,
      ]);
    }
    const load = transfer.encode({ direction: 1, phase: 0 });
    await refused(vu.VU_SET_DEVICE_STATE_FD, load, /DEVICE_STATE was not negotiated/, [lab.event]);
    await refused(vu.VU_CHECK_DEVICE_STATE, new Uint8Array(), /DEVICE_STATE was not negotiated/);
    for (const num of [0, 0x8000 + 1, 0x10000, 0x10100, 0x8000_0100, 0xffff_ffff]) {
      await refused(vu.VU_SET_VRING_NUM, state.encode({ index: 15, num }), /cannot have/);
    }
    for (const num of [0x10000, 0x8000_0000, 0xffff_ffff]) {
      await refused(vu.VU_SET_VRING_BASE, state.encode({ index: 15, num }), /cannot start at/);
    }
  });

  it('class 8: feature bits that were not offered are refused one by one, state unchanged', async () => {
    const offered = lab.device.offeredFeatures | bit(V.F_PROTOCOL_FEATURES);
    for (let n = 0; n < 64; n++) {
      if (has(offered, n)) continue;
      await refused(vu.VU_SET_FEATURES, u64.encode(bit(n) | bit(V.F_VERSION_1)), /never offered/);
    }
    for (let n = 0; n < 64; n++) {
      if ([0, 1, 2, 3, 4, 15, 16].includes(n)) continue;
      await refused(vu.VU_SET_PROTOCOL_FEATURES, u64.encode(bit(n)), /was not offered/);
    }
  });

  it('class 8: whatever is accepted of what was offered, the header has one length', async () => {
    const other = await withNext();
    other.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', 1n << 3n);
    const offered = lab.device.offeredFeatures;
    for (let round = 1; round < 400; round++) {
      // Any set, dependencies or not: TSO without checksums, MQ without a control queue.
      const mix = BigInt.asUintN(64, BigInt(round) * 0x9e37_79b9_7f4a_7c15n);
      const features = (offered & mix) | bit(V.F_PROTOCOL_FEATURES);
      await lab.done(other, vu.VU_SET_FEATURES, 'u64', features);
      assert.equal(lab.device.features, offered & mix);
      const twelve = has(features, V.F_VERSION_1) || has(features, V.F_MRG_RXBUF);
      assert.equal(lab.control.get(PORT_BASE + PORT_HDR_LEN), twelve ? 12 : 10);
    }
    other.close();
    await lab.free();
    assert.equal(lab.control.get(PORT_BASE + PORT_HDR_LEN), 10);
    front = await lab.connect();
  });
});
