import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as vu from '../../src/abi/vhost-user.ts';
import { close, drain, eventfd, memfd, signal } from '../../src/linux/index.ts';
import { CODECS, encodeMessage, Refusal } from '../../src/vhost-user/index.ts';
import { openFds } from '../linux/fds.ts';
import { ALL_PROTOCOL_FEATURES, FakeBackend, withSession } from './harness.ts';

const BIT30 = 1n << 30n;
const ADDR = { flags: 1, desc: 0x1000n, used: 0x2000n, avail: 0x3000n, logGpa: 0x4000n };
const REGION = { gpa: 0n, size: 0x200000n, uva: 0x7f0000000000n, mmapOffset: 0n };

test('the opening of QEMU, one pair after the other, keeps state and is answered', async () => {
  await withSession(async ({ front, backend, session, closed }) => {
    assert.equal(session.peer?.pid, process.pid);
    const fd = eventfd();
    for (let pair = 0; pair < 4; pair++) {
      front.send(vu.VU_GET_FEATURES, 'none', null);
      assert.equal(await front.expectU64(vu.VU_GET_FEATURES), backend.offeredFeatures | BIT30);
      front.send(vu.VU_GET_PROTOCOL_FEATURES, 'none', null);
      const offered = await front.expectU64(vu.VU_GET_PROTOCOL_FEATURES);
      assert.equal(offered, ALL_PROTOCOL_FEATURES);
      front.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', offered);
      if (pair === 0) {
        front.send(vu.VU_GET_QUEUE_NUM, 'none', null);
        assert.equal(await front.expectU64(vu.VU_GET_QUEUE_NUM), 2n);
        front.send(vu.VU_SET_OWNER, 'none', null);
      }
      front.send(vu.VU_GET_MAX_MEM_SLOTS, 'none', null);
      assert.equal(await front.expectU64(vu.VU_GET_MAX_MEM_SLOTS), 32n);
      for (const index of [0, 1]) {
        front.send(vu.VU_SET_VRING_CALL, 'ringFd', { index, noFd: false }, { fds: [fd] });
        front.send(vu.VU_SET_VRING_ERR, 'ringFd', { index, noFd: false }, { fds: [fd] });
      }
    }
    await front.barrier();
    // Nothing but what was asked for: no ring was stopped, no memory dropped by the repeats.
    const names = new Set(backend.calls.map(([name]) => name));
    assert.deepEqual([...names].sort(), ['connected', 'setVringCall', 'setVringErr']);
    assert.deepEqual(closed, []);
    close(fd);
  });
});

test('every supported request reaches the back end with its values', async () => {
  await withSession(async ({ front, backend }) => {
    await front.negotiate();
    const [memory, event] = [memfd('test', 0x400000), eventfd()];
    const second = { ...REGION, gpa: 0x200000n, mmapOffset: 0x200000n };
    // ENABLE comes before memory and addresses (QEMU), and is honoured.
    front.send(vu.VU_SET_VRING_ENABLE, 'state', { index: 0, num: 1 });
    front.send(vu.VU_SET_FEATURES, 'u64', (1n << 32n) | BIT30);
    front.send(vu.VU_SET_MEM_TABLE, 'table', [REGION, second], { fds: [memory, memory] });
    front.send(vu.VU_ADD_MEM_REG, 'region', REGION, { fds: [memory] });
    front.send(vu.VU_REM_MEM_REG, 'region', REGION, { fds: [memory] });
    front.send(vu.VU_REM_MEM_REG, 'region', second);
    front.send(vu.VU_SET_VRING_NUM, 'state', { index: 3, num: 0x10000 });
    front.send(vu.VU_SET_VRING_ADDR, 'addr', { index: 2, ...ADDR });
    front.send(vu.VU_SET_VRING_BASE, 'state', { index: 1, num: 0x80008000 });
    front.send(vu.VU_SET_VRING_KICK, 'ringFd', { index: 0, noFd: false }, { fds: [event] });
    front.send(vu.VU_SET_VRING_CALL, 'ringFd', { index: 0, noFd: true });
    front.send(vu.VU_SET_VRING_ENABLE, 'state', { index: 0, num: 0 });
    front.send(vu.VU_GET_VRING_BASE, 'state', { index: 1, num: 0 });
    const base = CODECS.state.decode(await front.expect(vu.VU_GET_VRING_BASE));
    assert.deepEqual(base, { index: 1, num: 0x80008000 });
    front.send(vu.VU_SET_STATUS, 'u64', 0x0fn);
    front.send(vu.VU_GET_STATUS, 'none', null);
    assert.equal(await front.expectU64(vu.VU_GET_STATUS), 0x0fn);
    front.send(vu.VU_NET_SET_MTU, 'u64', 9000n);
    front.send(vu.VU_SEND_RARP, 'u64', 0x0000563412005452n);
    front.send(vu.VU_RESET_OWNER, 'none', null);
    await front.barrier();
    assert.deepEqual(backend.calls.slice(1), [
      ['setVringEnable', 0, true],
      ['setFeatures', (1n << 32n) | BIT30],
      ['setMemTable', [REGION, second]],
      ['addMemRegion', REGION],
      ['removeMemRegion', REGION],
      ['removeMemRegion', second],
      ['setVringNum', 3, 0x10000],
      ['setVringAddr', 2, ADDR],
      ['setVringBase', 1, 0x80008000],
      ['setVringKick', 0, true],
      ['setVringCall', 0, false],
      ['setVringEnable', 0, false],
      ['getVringBase', 1],
      ['setStatus', 0x0f],
      ['getStatus'],
      ['setMtu', 9000],
      ['sendRarp', '525400123456'],
    ]);
    // The ring's descriptor is the one that was sent.
    signal(event);
    assert.equal(drain(backend.fds.at(-1)!), true);
    close(memory);
    close(event);
  });
});

test('without bit 30 every ring is enabled, with it none is touched', async () => {
  await withSession(async ({ front, backend }) => {
    front.send(vu.VU_SET_FEATURES, 'u64', BIT30);
    await front.barrier();
    assert.deepEqual(backend.named('setVringEnable'), []);
    front.send(vu.VU_SET_FEATURES, 'u64', 0n);
    await front.barrier();
    const all = [0, 1, 2, 3].map((index) => [index, true]);
    assert.deepEqual(backend.named('setVringEnable'), all);
  });
});

test('NEED_REPLY: one reply with flags 5, after handling, and only once negotiated', async () => {
  await withSession(async ({ front }) => {
    const ask = { needReply: true };
    front.send(vu.VU_SET_OWNER, 'none', null, ask);
    await front.barrier();
    front.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', 1n << 3n, ask);
    assert.equal(await front.expectU64(vu.VU_SET_PROTOCOL_FEATURES), 0n);
    front.send(vu.VU_SET_OWNER, 'none', null, ask);
    assert.equal(await front.expectU64(vu.VU_SET_OWNER), 0n);
    for (const request of [vu.VU_GET_FEATURES, vu.VU_GET_PROTOCOL_FEATURES]) {
      front.send(request, 'none', null, ask);
      await front.expectU64(request);
    }
    front.send(vu.VU_GET_VRING_BASE, 'state', { index: 0, num: 0 }, ask);
    await front.expect(vu.VU_GET_VRING_BASE);
    front.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', 0n, ask);
    await front.barrier();
  });
});

test('MTU and LOG_SHMFD are offered with their virtio features only', async () => {
  const backend = new FakeBackend();
  backend.offeredFeatures = 1n << 32n;
  await withSession(async ({ front }) => {
    front.send(vu.VU_GET_PROTOCOL_FEATURES, 'none', null);
    const offered = await front.expectU64(vu.VU_GET_PROTOCOL_FEATURES);
    assert.equal(offered, ALL_PROTOCOL_FEATURES & ~((1n << 4n) | (1n << 1n)));
    front.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', ALL_PROTOCOL_FEATURES);
    await front.expectClosed();
  }, backend);
});

/** Sent twice: asking for a reply (the connection lives on) and not asking (it ends). */
const REFUSED: [string, RegExp, () => Uint8Array, number?][] = [];
function refused(why: RegExp, request: number, payload: Uint8Array, fds = 0): void {
  const bytes = Buffer.from(encodeMessage(request, vu.VERSION, 'opaque', payload));
  REFUSED.push([`request ${request}, ${why.source}`, why, () => Buffer.from(bytes), fds]);
}
const bytes = (length: number) => new Uint8Array(length);
const { u64, state } = CODECS;

refused(/no such request/, 99, bytes(0));
refused(/no such request/, 0, bytes(8));
refused(/SET_LOG_FD refused: its descriptor is not an eventfd/, vu.VU_SET_LOG_FD, bytes(0), -1);
refused(/feature BACKEND_REQ/, vu.VU_SET_BACKEND_REQ_FD, bytes(0), 1);
refused(/feature CROSS_ENDIAN/, vu.VU_SET_VRING_ENDIAN, bytes(8));
refused(/feature CONFIG/, vu.VU_GET_CONFIG, bytes(12));
refused(/feature CONFIG/, vu.VU_SET_CONFIG, bytes(12));
refused(/feature INFLIGHT_SHMFD/, vu.VU_GET_INFLIGHT_FD, bytes(24));
refused(/feature INFLIGHT_SHMFD/, vu.VU_SET_INFLIGHT_FD, bytes(24), 1);
refused(/feature RESET_DEVICE/, vu.VU_RESET_DEVICE, bytes(0));
refused(/feature PAGEFAULT/, vu.VU_POSTCOPY_LISTEN, bytes(0));
refused(/feature BACKEND_REQ/, vu.VU_IOTLB_MSG, bytes(32));
for (const index of [4, 5, 0x10000, 0x10001, 0xffffffff]) {
  const why = new RegExp(`ring ${index} does not exist; this port has rings 0-3`);
  const ring = state.encode({ index, num: 1 });
  refused(why, vu.VU_SET_VRING_NUM, ring);
  refused(why, vu.VU_SET_VRING_BASE, ring);
  refused(why, vu.VU_SET_VRING_ENABLE, ring);
  refused(why, vu.VU_SET_VRING_ADDR, CODECS.addr.encode({ index, ...ADDR }));
}
for (const request of [vu.VU_SET_VRING_KICK, vu.VU_SET_VRING_CALL, vu.VU_SET_VRING_ERR]) {
  refused(/ring 4 does not exist/, request, u64.encode(4n), 1);
  refused(/ring 255 does not exist/, request, u64.encode(0x1ffn));
  refused(/ring number 0x10000 cannot be/, request, u64.encode(0x10000n), 1);
  refused(/ring number 0x10001 cannot be/, request, u64.encode(0x10001n));
  refused(/0 descriptors, not 1/, request, u64.encode(0n));
  refused(/2 descriptors, not 1/, request, u64.encode(0n), 2);
  refused(/1 descriptors, not 0/, request, u64.encode(0x100n), 1);
  refused(/not an eventfd/, request, u64.encode(0n), -1);
}
refused(/2 is neither/, vu.VU_SET_VRING_ENABLE, state.encode({ index: 0, num: 2 }));
refused(/status 256 is more than 255/, vu.VU_SET_STATUS, u64.encode(256n));
refused(/MTU 65536 is more than 65535/, vu.VU_NET_SET_MTU, u64.encode(65536n));
refused(/CONFIG was not offered/, vu.VU_SET_PROTOCOL_FEATURES, u64.encode(1n << 9n));
refused(/features were not offered/, vu.VU_SET_FEATURES, u64.encode(1n << 24n));
refused(/payload is 7 bytes, not 8/, vu.VU_SET_FEATURES, bytes(7));
refused(/payload is 4096 bytes, not 8/, vu.VU_SET_FEATURES, bytes(4096));
refused(/payload is 8 bytes, not 0/, vu.VU_SET_OWNER, bytes(8));
refused(/32 descriptors, not 0/, vu.VU_SET_OWNER, bytes(0), 32);
refused(/1 descriptors, not 2/, vu.VU_SET_MEM_TABLE, CODECS.table.encode([REGION, REGION]), 1);
refused(/3 descriptors, not 2/, vu.VU_SET_MEM_TABLE, CODECS.table.encode([REGION, REGION]), 3);
refused(/0 descriptors, not 1/, vu.VU_ADD_MEM_REG, CODECS.region.encode(REGION));
refused(/2 descriptors, not 1/, vu.VU_ADD_MEM_REG, CODECS.region.encode(REGION), 2);
refused(/2 descriptors, not 1/, vu.VU_REM_MEM_REG, CODECS.region.encode(REGION), 2);

test('what is refused changes nothing, leaks nothing, and says why', async () => {
  const before = openFds();
  const event = eventfd();
  const file = memfd('not an eventfd', 4096);
  const fdsFor = (count: number) => (count < 0 ? [file] : Array(count).fill(event));
  await withSession(async ({ front, backend, notices, closed }) => {
    await front.negotiate();
    const open = openFds();
    for (const [name, why, message, count = 0] of REFUSED) {
      const whole = message() as Buffer;
      const request = whole.readUInt32LE(0);
      whole.writeUInt32LE(vu.VERSION | vu.FLAG_NEED_REPLY, 4);
      front.raw(whole, fdsFor(count));
      assert.notEqual(await front.expectU64(request), 0n, name);
      assert.match(notices.pop() ?? '', why, name);
      assert.equal(openFds(), open, name);
    }
    assert.deepEqual(closed, []);
    const names = new Set(backend.calls.map(([each]) => each));
    assert.deepEqual([...names], ['connected', 'setFeatures']);
  });
  for (const [name, why, message, count = 0] of REFUSED) {
    await withSession(async ({ front, backend, closed }) => {
      await front.negotiate();
      front.raw(message(), fdsFor(count));
      await front.expectClosed();
      assert.equal(closed.length, 1);
      assert.match(closed[0]!.reason, why, name);
      assert.equal(closed[0]!.fault, true);
      assert.deepEqual(backend.ends, [closed[0]!.reason]);
    });
    assert.equal(openFds(), before + 2, name);
  }
  close(event);
  close(file);
});

test('SET_LOG_BASE is answered with its own 16 bytes, asked for or not', async () => {
  const fd = memfd('log', 8192);
  await withSession(async ({ front, backend }) => {
    await front.negotiate();
    const area = { size: 4096n, offset: 4096n };
    for (const needReply of [false, true]) {
      front.send(vu.VU_SET_LOG_BASE, 'log', area, { needReply, fds: [fd] });
      const reply = await front.expect(vu.VU_SET_LOG_BASE);
      assert.deepEqual(CODECS.log.decode(reply), area);
    }
    await front.barrier();
    assert.deepEqual(backend.named('setLogBase'), [[area], [area]]);
    // One that cannot be ends the connection: it has no other "no".
    backend.failing.set('setLogBase', new Refusal('too small'));
    front.send(vu.VU_SET_LOG_BASE, 'log', area, { needReply: true, fds: [fd] });
    await front.expectClosed();
  });
  close(fd);
});

test('a request whose own reply cannot say no ends the connection', async () => {
  const wrong: [number, Uint8Array][] = [
    [vu.VU_GET_VRING_BASE, state.encode({ index: 4, num: 0 })],
    [vu.VU_GET_VRING_BASE, state.encode({ index: 0x10000, num: 0 })],
    [vu.VU_GET_FEATURES, bytes(8)],
  ];
  for (const [request, payload] of wrong) {
    await withSession(async ({ front, closed }) => {
      await front.negotiate();
      front.send(request, 'opaque', payload, { needReply: true });
      await front.expectClosed();
      assert.equal(closed[0]?.fault, true);
    });
  }
});

test('requests that need a protocol feature are refused without it', async () => {
  const needing: [number, Uint8Array][] = [
    [vu.VU_GET_QUEUE_NUM, bytes(0)],
    [vu.VU_GET_MAX_MEM_SLOTS, bytes(0)],
    [vu.VU_ADD_MEM_REG, bytes(40)],
    [vu.VU_REM_MEM_REG, bytes(40)],
    [vu.VU_SET_STATUS, bytes(8)],
    [vu.VU_GET_STATUS, bytes(0)],
    [vu.VU_NET_SET_MTU, bytes(8)],
    [vu.VU_SEND_RARP, bytes(8)],
  ];
  for (const [request, payload] of needing) {
    await withSession(async ({ front, closed }) => {
      front.send(request, 'opaque', payload);
      await front.expectClosed();
      assert.match(closed[0]!.reason, /was not negotiated$/);
    });
  }
});

test('a failing back end is contained and its failure answered', async () => {
  const before = openFds();
  const event = eventfd();
  const backend = new FakeBackend();
  backend.failing.set('setVringNum', new Refusal('300 is not a power of two'));
  backend.failing.set('setVringKick', new TypeError('a mistake of ours'));
  backend.failing.set('disconnected', new Error('a mistake at the end'));
  await withSession(async ({ front, notices, closed }) => {
    await front.negotiate();
    front.send(vu.VU_SET_VRING_NUM, 'state', { index: 0, num: 300 }, { needReply: true });
    assert.equal(await front.expectU64(vu.VU_SET_VRING_NUM), 1n);
    const kick = { fds: [event], needReply: true };
    front.send(vu.VU_SET_VRING_KICK, 'ringFd', { index: 0, noFd: false }, kick);
    assert.equal(await front.expectU64(vu.VU_SET_VRING_KICK), 1n);
    assert.deepEqual(notices, [
      'SET_VRING_NUM refused: 300 is not a power of two',
      'SET_VRING_KICK refused: internal error (TypeError: a mistake of ours)',
    ]);
    front.send(vu.VU_SET_VRING_NUM, 'state', { index: 0, num: 300 });
    await front.expectClosed();
    assert.match(notices.at(-1)!, /^disconnected: internal error/);
    assert.equal(closed.length, 1);
  }, backend);
  close(event);
  assert.equal(openFds(), before);
});

test('a back end that turns the front end away at once', async () => {
  const backend = new FakeBackend();
  backend.failing.set('connected', new Refusal('no room'));
  await withSession(async ({ front, session, closed }) => {
    await front.expectClosed();
    assert.equal(session.open, false);
    assert.deepEqual(closed, [{ reason: 'connected: no room', fault: true }]);
  }, backend);
});

test('replies that nobody asked for, other versions and sizes end the connection', async () => {
  const header = (...words: number[]) => Buffer.from(Uint32Array.from(words).buffer);
  const wrong: [RegExp, Uint8Array][] = [
    [/it is a reply/, header(1, 5, 0)],
    [/it is a reply/, header(1, 5 | 8, 0)],
    [/version 1/, header(1, 0, 0)],
    [/version 1/, header(1, 2, 0)],
    [/version 1/, Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    [/4097 bytes is more than 4096/, header(1, 1, 4097)],
    [/more than 4096/, header(1, 1, 0xffffffff)],
  ];
  for (const [why, message] of wrong) {
    await withSession(async ({ front, closed }) => {
      await front.negotiate();
      front.raw(message);
      await front.expectClosed();
      assert.match(closed[0]!.reason, why);
      assert.equal(closed[0]!.fault, true);
    });
  }
});
