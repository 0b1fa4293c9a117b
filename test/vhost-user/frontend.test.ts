// The front end against a back end of ours, and against back ends that say what they should not.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import * as vu from '../../src/abi/vhost-user.ts';
import { close, drain, EventLoop, eventfd, listenUnix } from '../../src/linux/index.ts';
import {
  Budget,
  CODECS,
  Endpoint,
  encodeMessage,
  Frontend,
  type FrontendOptions,
  Refusal,
  requestName,
} from '../../src/vhost-user/index.ts';
import { openFds } from '../linux/fds.ts';
import { FakeBackend, until } from './harness.ts';
import {
  accept,
  BIT30,
  connect,
  IdleDriver,
  MTU,
  protocol,
  type Script,
  ScriptedBackEnd,
  u64,
  VERSION_1,
} from './scripted.ts';

interface Site {
  path: string;
  loop: EventLoop;
  driver: IdleDriver;
  notices: string[];
  /** A front end of mode `server` unless told. */
  frontend(options?: Partial<FrontendOptions>): Frontend;
  /** The next back end of a front end that listens. */
  backEnd(script?: Script): Promise<ScriptedBackEnd>;
}

async function withSite(body: (site: Site) => Promise<void>): Promise<void> {
  const before = openFds();
  const directory = mkdtempSync(join(tmpdir(), 'vhop-'));
  const path = join(directory, 'port.sock');
  const loop = new EventLoop({ onError: (error) => assert.fail(String(error)) });
  const driver = new IdleDriver();
  const notices: string[] = [];
  const onNotice = (message: string) => notices.push(message);
  const made: Frontend[] = [];
  const peers: ScriptedBackEnd[] = [];
  const frontend = (options: Partial<FrontendOptions> = {}) => {
    const one = new Frontend({ path, mode: 'server', loop, driver, onNotice, ...options });
    made.push(one);
    one.open();
    return one;
  };
  const backEnd = async (script: Script = {}) => {
    const peer = new ScriptedBackEnd(await connect(path), loop, script);
    peers.push(peer);
    return peer;
  };
  try {
    await body({ path, loop, driver, notices, frontend, backEnd });
  } finally {
    for (const peer of peers) peer.connection.close('the test is over');
    for (const one of made) await one.close();
    await loop.close();
    rmSync(directory, { recursive: true });
  }
  assert.equal(openFds(), before);
}

const repeated = (index: number, ...names: string[]) =>
  names.filter((name) => index === 0 || name !== 'SET_VRING_ERR');

/** What a back end hears of a start; `mark`: '!' where it is to acknowledge. */
function opening(
  rings: number,
  { mark = '!', status = true, enable = true, queues = true, mtu = false } = {},
): string[] {
  const list = Array.from({ length: rings }, (_, index) => index);
  return [
    'SET_OWNER',
    'GET_FEATURES',
    ...(enable ? ['GET_PROTOCOL_FEATURES', 'SET_PROTOCOL_FEATURES'] : []),
    ...(queues ? ['GET_QUEUE_NUM'] : []),
    ...list.map(() => `SET_VRING_CALL${mark}`),
    `SET_FEATURES${mark}`,
    ...(status ? [`SET_STATUS${mark}`, 'GET_STATUS'] : []),
    ...(mtu ? [`NET_SET_MTU${mark}`] : []),
    `SET_MEM_TABLE${mark}`,
    ...list.flatMap((index) =>
      [
        ...repeated(index, 'SET_VRING_NUM', 'SET_VRING_BASE', 'SET_VRING_ADDR', 'SET_VRING_KICK'),
        ...repeated(index, 'SET_VRING_CALL', 'SET_VRING_ERR'),
        ...(enable ? ['SET_VRING_ENABLE'] : []),
      ].map((name) => `${name}${mark}`),
    ),
    ...(status ? [`SET_STATUS${mark}`] : []),
    ...(mark === '' ? ['GET_FEATURES'] : []),
  ];
}

test('a start, as our own back end sees it, and a clean stop', async () => {
  await withSite(async ({ path, loop, driver, notices, frontend }) => {
    const backend = new FakeBackend();
    const onNotice = (message: string) => notices.push(message);
    const endpoint = new Endpoint({ path, mode: 'server', loop, backend, onNotice });
    endpoint.open();
    driver.pairs = 2;
    const front = frontend({ mode: 'client' });
    await until(() => driver.last === 'started');
    const ring = (index: number) => {
      const desc = 0x1000n * BigInt(index + 1);
      const addr = { flags: 0, desc, avail: desc + 0x400n, used: desc + 0x800n, logGpa: 0n };
      return [
        ['setVringNum', index, 16],
        ['setVringBase', index, index],
        ['setVringAddr', index, addr],
        ['setVringKick', index, true],
        ['setVringCall', index, true],
        ...(index === 0 ? [['setVringErr', 0, true]] : []),
        ['setVringEnable', index, true],
      ];
    };
    assert.deepEqual(backend.calls.slice(1), [
      ...[0, 1, 2, 3].map((index) => ['setVringCall', index, true]),
      ['setFeatures', VERSION_1 | BIT30],
      ['setStatus', 0x0b],
      ['getStatus'],
      ['setMemTable', [{ gpa: 0x1000n, uva: 0x1000n, size: 0x10000n, mmapOffset: 0n }]],
      ...[0, 1, 2, 3].flatMap(ring),
      ['setStatus', 0x0f],
    ]);
    assert.deepEqual(
      driver.kicks.map((fd) => drain(fd)),
      [true, true, true, true],
    );
    const negotiate = `negotiate 0x${backend.offeredFeatures.toString(16)} 2`;
    assert.deepEqual(driver.told, [negotiate, 'setUp', 'started']);
    assert.equal(front.connected, true);
    assert.equal(front.peer?.pid, process.pid);

    await Promise.all([front.close(), front.close()]);
    assert.equal(driver.last, 'stopped: the port was closed');
    await until(() => backend.ends.length > 0);
    assert.deepEqual(backend.calls.slice(-5), [
      ...[0, 1, 2, 3].map((index) => ['getVringBase', index]),
      ['disconnected', 'the peer closed the connection'],
    ]);
    await front.close();
    // And it can be opened again.
    front.open();
    await until(() => driver.last === 'started');
    await front.close();
    assert.deepEqual(notices, []);
    endpoint.close();
  });
});

test('what a back end hears follows what it can', async () => {
  const offers = (bits: bigint): Script => ({
    [vu.VU_GET_PROTOCOL_FEATURES]: () => u64(vu.VU_GET_PROTOCOL_FEATURES, bits),
  });
  const { PF_MQ, PF_REPLY_ACK, PF_STATUS, PF_LOG_SHMFD, PF_MTU } = vu;
  const old: Script = { [vu.VU_GET_FEATURES]: () => u64(vu.VU_GET_FEATURES, VERSION_1) };
  const plain = { mark: '', status: false };
  const cases: [string, Script, string[], bigint][] = [
    ['all', {}, opening(4), protocol(PF_MQ, PF_REPLY_ACK, PF_STATUS)],
    ['VPP', offers(protocol(PF_LOG_SHMFD, PF_MQ)), opening(4, plain), protocol(PF_MQ)],
    ['none', offers(0n), opening(2, { ...plain, queues: false }), 0n],
    ['MTU', offers(protocol(PF_MTU)), opening(2, { ...plain, queues: false }), 0n],
    ['STATUS', offers(protocol(PF_STATUS)), opening(2, { mark: '', queues: false }), 1n << 16n],
    ['no bit 30', old, opening(2, { ...plain, queues: false, enable: false }), 0n],
  ];
  for (const [name, script, said, protocolFeatures] of cases) {
    await withSite(async ({ driver, frontend, backEnd }) => {
      frontend();
      driver.pairs = said.includes('GET_QUEUE_NUM') ? 2 : 1;
      const peer = await backEnd(script);
      await until(() => driver.last === 'started');
      assert.deepEqual(peer.said, said, name);
      const extended = name === 'no bit 30' ? 0n : BIT30;
      assert.equal(peer.word(vu.VU_SET_FEATURES), VERSION_1 | extended);
      if (extended) assert.equal(peer.word(vu.VU_SET_PROTOCOL_FEATURES), protocolFeatures, name);
      assert.match(driver.told[0]!, new RegExp(` ${driver.pairs}$`));
      assert.ok(driver.kicks.every((fd) => drain(fd)));
    });
  }
});

test('an MTU is told to who takes it', async () => {
  for (const features of [VERSION_1, VERSION_1 | MTU]) {
    await withSite(async ({ driver, frontend, backEnd }) => {
      driver.features = features;
      frontend({ mtu: 9000 });
      const peer = await backEnd();
      await until(() => driver.last === 'started');
      const mtu = features !== VERSION_1;
      assert.deepEqual(peer.said, opening(2, { mtu }));
      if (mtu) assert.equal(peer.word(vu.VU_NET_SET_MTU), 9000n);
    });
  }
});

test('so many queue pairs as there are numbers for', async () => {
  const has = (pairs: bigint): Script => ({
    [vu.VU_GET_QUEUE_NUM]: () => u64(vu.VU_GET_QUEUE_NUM, pairs),
  });
  for (const [pairs, told] of [
    [1n, 1],
    [128n, 128],
    [0x8000n, 128],
  ] as const) {
    await withSite(async ({ driver, frontend, backEnd }) => {
      frontend();
      await backEnd(has(pairs));
      await until(() => driver.last === 'started');
      assert.match(driver.told[0]!, new RegExp(` ${told}$`));
    });
  }
});

/** A back end's mistake, and what is said of it behind the path. */
const WRONG: [RegExp, Script][] = [];
function wrong(why: RegExp, request: number, answer: Script[number]): void {
  WRONG.push([why, { [request]: answer }]);
}
const { VU_GET_FEATURES: GET, VU_SET_MEM_TABLE: TABLE, VU_GET_STATUS } = vu;
const opaque = (request: number, size: number, flags = vu.REPLY_FLAGS) => ({
  bytes: encodeMessage(request, flags, 'opaque', new Uint8Array(size)),
});
const CHECK = '; check that it is a vhost-user back end$';
wrong(new RegExp(`answered GET_FEATURES with SET_OWNER${CHECK}`), GET, () => u64(3, 0n));
wrong(new RegExp(`answered SET_MEM_TABLE with request 99${CHECK}`), TABLE, () => u64(99, 0n));
for (const flags of [0x1, 0x9, 0xd, 0x15, 0x8000_0005]) {
  const shown = flags.toString(16);
  const why = new RegExp(`to GET_FEATURES is wrong: its flags are 0x${shown}, not 0x5${CHECK}`);
  wrong(why, GET, () => u64(GET, VERSION_1, flags));
}
for (const size of [0, 7, 9, 4096]) {
  const why = new RegExp(`to GET_FEATURES is wrong: its payload is ${size} bytes, not 8${CHECK}`);
  wrong(why, GET, () => opaque(GET, size));
  wrong(/to SET_MEM_TABLE is wrong: its payload/, TABLE, () => opaque(TABLE, size));
}
for (const count of [1, 32]) {
  const why = new RegExp(`to GET_STATUS is wrong: it came with ${count} descriptors, not 0`);
  wrong(why, VU_GET_STATUS, () => {
    const fd = eventfd();
    setImmediate(close, fd);
    return { ...opaque(VU_GET_STATUS, 8), fds: Array<number>(count).fill(fd) };
  });
}
wrong(/does not speak vhost-user version 1.* after GET_FEATURES; the log of/, GET, () =>
  u64(GET, VERSION_1, 6),
);
wrong(/4097 bytes is more than 4096 after GET_FEATURES; the log of/, GET, () => ({
  bytes: new Uint8Array(Uint32Array.of(GET, vu.REPLY_FLAGS, 4097).buffer),
}));
wrong(/has no queue pairs; configure it to have at least one$/, vu.VU_GET_QUEUE_NUM, () =>
  u64(vu.VU_GET_QUEUE_NUM, 0n),
);
for (const pairs of [0x8001n, (1n << 64n) - 1n]) {
  const why = new RegExp(`claims ${pairs} queue pairs; check that it is a network device$`);
  wrong(why, vu.VU_GET_QUEUE_NUM, () => u64(vu.VU_GET_QUEUE_NUM, pairs));
}
wrong(/did not agree to the features VERSION_1; its log should tell why$/, VU_GET_STATUS, () =>
  u64(VU_GET_STATUS, 0x03n),
);
for (const request of [vu.VU_SET_FEATURES, vu.VU_SET_STATUS, TABLE, vu.VU_SET_VRING_KICK]) {
  const why = new RegExp(`the back end refused ${requestName(request)}; its log should tell why$`);
  wrong(why, request, () => u64(request, 1n));
  wrong(why, request, () => u64(request, 1n << 63n));
}

test('each mistake of a back end ends the session in a sentence; the next one is let in', async () => {
  for (const mode of ['server', 'client'] as const) {
    await withSite(async ({ path, loop, driver, notices, frontend, backEnd }) => {
      const listener = mode === 'client' ? listenUnix(path) : -1;
      const front = frontend({ mode, retryMs: 10 });
      const next = async (script: Script) =>
        mode === 'server'
          ? backEnd(script)
          : new ScriptedBackEnd(await accept(listener), loop, script);
      // A client is connected already.
      const flat = openFds() - (mode === 'client' ? 1 : 0);
      for (const [why, script] of WRONG) {
        const ends = driver.ends.length;
        const peer = await next(script);
        await until(() => driver.ends.length > ends && peer.ended !== undefined);
        assert.equal(driver.ends.length, ends + 1);
        assert.match(driver.last, why);
        assert.ok(driver.last.startsWith(`fault: ${path}: `), driver.last);
        // A client may be on its way again.
        if (mode === 'server') assert.equal(front.connected, false);
        assert.ok(!driver.told.includes('started'));
        await new Promise(setImmediate);
        assert.equal(openFds(), flat, driver.last);
      }
      assert.ok(notices.length >= 10);
      assert.ok(notices.every((notice) => notice.startsWith(`${path}: `)));
      const good = await next({});
      await until(() => driver.last === 'started');
      await front.close();
      await until(() => good.ended !== undefined);
      if (listener >= 0) close(listener);
    });
  }
});

/** The requests of a start, each with how many of its kind came before. */
function walk(): { name: string; request: number; nth: number }[] {
  const numbers = new Map(Array.from({ length: 64 }, (_, id) => [requestName(id), id]));
  const seen = new Map<string, number>();
  return opening(2).map((said) => {
    const name = said.replace('!', '');
    const nth = seen.get(name) ?? 0;
    seen.set(name, nth + 1);
    return { name, request: numbers.get(name)!, nth };
  });
}

const at = (request: number, nth: number, answer: Script[number]): Script => ({
  [request]: (message, count) => (count === nth ? answer(message, count) : 'as usual'),
});

test('a back end that hangs up, refuses or is silent, wherever it does', async () => {
  await withSite(async ({ path, driver, frontend, backEnd }) => {
    frontend({ timeoutMs: 30 });
    const flat = openFds();
    const start = opening(2);
    for (const [i, { name, request, nth }] of walk().entries()) {
      const acknowledged = start[i]!.endsWith('!');
      const replies = acknowledged || name.startsWith('GET_');
      const late = name === 'SET_OWNER' || name === 'SET_PROTOCOL_FEATURES';
      const cases: [RegExp, Script[number]][] = [[/after \w+; the log/, () => 'hang up']];
      if (replies) {
        const silent = `did not answer ${name} within 30 ms; check that it runs`;
        cases.push([new RegExp(silent), () => 'nothing']);
      }
      if (acknowledged) cases.push([new RegExp(`refused ${name};`), () => u64(request, 1n)]);
      for (const [why, answer] of cases) {
        const ends = driver.ends.length;
        const peer = await backEnd(at(request, nth, answer));
        await until(() => driver.ends.length > ends && peer.ended !== undefined);
        assert.match(driver.last, why);
        assert.ok(driver.last.startsWith(`fault: ${path}: `));
        if (!late && why.source.startsWith('after')) {
          assert.match(driver.last, new RegExp(`after ${name};`));
        }
        assert.equal(openFds(), flat, driver.last);
      }
    }
    assert.ok(!driver.told.includes('started'));
  });
});

test('a back end that answers and is gone: the driver hears nothing after its end', async () => {
  const offer = encodeMessage(vu.VU_GET_PROTOCOL_FEATURES, vu.REPLY_FLAGS, 'u64', 0n);
  const offers = encodeMessage(GET, vu.REPLY_FLAGS, 'u64', VERSION_1);
  for (const [script, told] of [
    [{ [vu.VU_GET_PROTOCOL_FEATURES]: () => ({ bytes: offer, last: true }) }, 1],
    [{ [GET]: () => ({ bytes: offers, last: true }) }, 3],
  ] as const) {
    await withSite(async ({ driver, frontend, backEnd }) => {
      frontend();
      await backEnd(script);
      await until(() => driver.ends.length > 0);
      await new Promise(setImmediate);
      assert.equal(driver.told.length, told, driver.told.join('\n'));
      assert.equal(driver.last, driver.ends[0]);
      assert.match(driver.last, /^fault: .* after \w+; the log of the back end should tell why$/);
    });
  }
});

test('a client leaves a back end that it could not start alone for a while', async () => {
  await withSite(async ({ path, loop, driver, frontend }) => {
    const listener = listenUnix(path);
    frontend({ mode: 'client', retryMs: 500 });
    const first = new ScriptedBackEnd(await accept(listener), loop, { [GET]: () => 'hang up' });
    await until(() => first.ended !== undefined && driver.ends.length === 1);
    const failed = performance.now();
    const second = new ScriptedBackEnd(await accept(listener), loop);
    const waited = performance.now() - failed;
    assert.ok(waited > 450, `${waited} ms`);
    await until(() => driver.last === 'started');
    // One that ran is looked for at once.
    second.connection.close('it restarts');
    await until(() => driver.ends.length === 2);
    const left = performance.now();
    new ScriptedBackEnd(await accept(listener), loop).connection.close('enough');
    assert.ok(performance.now() - left < 450);
    close(listener);
  });
});

test('once started, nothing may come unasked', async () => {
  await withSite(async ({ path, driver, notices, frontend, backEnd }) => {
    frontend();
    const flat = openFds();
    for (const request of [GET, vu.VU_SET_OWNER, 99]) {
      const peer = await backEnd();
      await until(() => driver.last === 'started');
      peer.connection.send(encodeMessage(request, vu.REPLY_FLAGS, 'u64', 0n));
      await until(() => peer.ended !== undefined);
      const name = requestName(request);
      const why = `${path}: the back end sent ${name}, and nothing was asked`;
      assert.equal(driver.last, `fault: ${why}; check that it is a vhost-user back end`);
      assert.equal(`fault: ${notices.at(-1)}`, driver.last);
    }
    // Half a message, and an end.
    const peer = await backEnd();
    await until(() => driver.last === 'started');
    peer.connection.send(new Uint8Array(5));
    peer.connection.close('in the middle');
    await until(() => driver.last !== 'started');
    assert.match(driver.last, /^fault: .*in the middle of a message after SET_STATUS; the log/);
    assert.equal(openFds(), flat);
  });
});

for (const mode of ['server', 'client'] as const) {
  test(`back ends come and go, mode ${mode}, with a flat fd count`, async () => {
    await withSite(async ({ path, loop, driver, notices, frontend, backEnd }) => {
      let listener = mode === 'client' ? listenUnix(path) : -1;
      const front = frontend({ mode });
      const next = async () =>
        mode === 'server' ? backEnd() : new ScriptedBackEnd(await accept(listener), loop);
      const flat = openFds() - (mode === 'client' ? 1 : 0);
      for (let round = 0; round < 20; round++) {
        const peer = await next();
        await until(() => driver.starts === round + 1);
        assert.equal(front.connected, true);
        peer.connection.close('it restarts');
        // Every other one is followed before its end was noticed.
        if (round % 2 === 0) {
          await until(() => driver.last === 'stopped: the peer closed the connection');
          assert.equal(openFds(), flat);
        }
      }
      await until(() => driver.ends.length === 20);
      assert.equal(driver.starts, 20);
      assert.deepEqual(notices, []);
      if (mode === 'client') {
        close(listener);
        unlinkSync(path);
        await until(() => notices.length > 0);
        assert.deepEqual(notices, [`waiting for ${path}: there is no such socket yet`]);
        listener = listenUnix(path);
      }
      const last = await next();
      await until(() => driver.last === 'started');
      front.hangUp('it broke the rules');
      assert.equal(driver.last, 'fault: it broke the rules');
      assert.equal(notices.at(-1), 'it broke the rules');
      await until(() => last.ended !== undefined);
      await next();
      await until(() => driver.last === 'started');
      await front.close();
      if (listener >= 0) close(listener);
    });
  });
}

test('closing asks for the rings, and does not wait for ever', async () => {
  const cases: [Script, string | RegExp][] = [
    [{}, 'stopped: the port was closed'],
    [at(vu.VU_GET_VRING_BASE, 1, () => 'hang up'), 'stopped: the peer closed the connection'],
    [at(vu.VU_GET_VRING_BASE, 1, () => 'nothing'), /did not answer GET_VRING_BASE within 30 ms/],
    [
      at(vu.VU_GET_VRING_BASE, 1, () => ({
        bytes: encodeMessage(
          vu.VU_GET_VRING_BASE,
          5,
          'opaque',
          CODECS.state.encode({ index: 7, num: 0 }),
        ),
      })),
      /the back end stopped ring 7 instead of 1; its log should tell why$/,
    ],
  ];
  for (const [script, end] of cases) {
    await withSite(async ({ driver, frontend, backEnd }) => {
      const front = frontend({ timeoutMs: 30 });
      const peer = await backEnd(script);
      await until(() => driver.last === 'started');
      const said = peer.said.length;
      await front.close();
      if (typeof end === 'string') assert.equal(driver.last, end);
      else assert.match(driver.last, end);
      assert.equal(driver.ends.length, 1);
      assert.deepEqual(peer.said.slice(said), ['GET_VRING_BASE', 'GET_VRING_BASE']);
      assert.equal(front.connected, false);
    });
  }
});

test('closing in the middle of a start', async () => {
  await withSite(async ({ driver, notices, frontend, backEnd }) => {
    const front = frontend();
    await backEnd({ [TABLE]: () => 'nothing' });
    await until(() => driver.last === 'setUp');
    await front.close();
    assert.equal(driver.last, 'stopped: the port was closed');
    assert.deepEqual(notices, []);
  });
});

test('a driver that will not, or cannot', async () => {
  const lacks = new Refusal('the back end does not offer RING_PACKED');
  for (const [method, error, why, ends] of [
    ['negotiate', lacks, 'the back end does not offer RING_PACKED', true],
    ['setUp', new TypeError('oops'), 'internal error (TypeError: oops)', true],
    ['started', new TypeError('oops'), 'internal error (TypeError: oops)', true],
    ['stopped', new TypeError('oops'), 'stopped: internal error (TypeError: oops)', false],
  ] as const) {
    await withSite(async ({ path, driver, notices, frontend, backEnd }) => {
      driver.failing.set(method, error);
      frontend();
      const peer = await backEnd();
      if (!ends) {
        await until(() => driver.last === 'started');
        peer.connection.close('it restarts');
      }
      await until(() => driver.ends.length > 0 && peer.ended !== undefined);
      assert.deepEqual(notices, [ends ? `${path}: ${why}` : why]);
      if (ends) assert.deepEqual(driver.ends, [`fault: ${path}: ${why}`]);
      assert.equal(peer.said.includes('SET_FEATURES!'), method === 'started' || !ends);
    });
  }
});

test('one back end at a time', async () => {
  await withSite(async ({ path, driver, notices, frontend, backEnd }) => {
    frontend();
    await backEnd();
    await until(() => driver.last === 'started');
    const second = await backEnd();
    await until(() => second.ended !== undefined);
    const { pid } = process;
    assert.deepEqual(notices, [
      `a second back end (pid ${pid}) on ${path} was turned away: pid ${pid} is connected`,
    ]);
    assert.equal(driver.last, 'started');
  });
});

test('whatever a back end answers, the session starts or ends in a sentence', async () => {
  await withSite(async ({ path, driver, frontend, backEnd }) => {
    const budget = new Budget({ burst: Number.POSITIVE_INFINITY });
    frontend({ timeoutMs: 20, budget });
    const event = eventfd();
    const flat = openFds();
    const asked = walk().map(({ request }) => request);
    const answer = fc.record({
      request: fc.constantFrom(...asked),
      nth: fc.nat(2),
      id: fc.oneof(fc.constant(undefined), fc.constantFrom(...asked), fc.nat()),
      flags: fc.oneof(fc.constant(5), fc.nat({ max: 0xffff_ffff })),
      payload: fc.oneof(fc.uint8Array({ minLength: 8, maxLength: 8 }), fc.uint8Array()),
      fds: fc.oneof(fc.constant(0), fc.nat(2)),
      times: fc.integer({ min: 1, max: 3 }),
    });
    const property = fc.asyncProperty(fc.array(answer, { minLength: 1 }), async (answers) => {
      const script: Script = {};
      for (const { request, nth, id, flags, payload, fds, times } of answers) {
        const bytes = encodeMessage(id ?? request, flags, 'opaque', payload);
        const all = Buffer.concat(Array<Uint8Array>(times).fill(bytes));
        const reply = { bytes: all, fds: Array<number>(fds).fill(event) };
        script[request] = (_message, count) => (count === nth ? reply : 'as usual');
      }
      const told = driver.told.length;
      const peer = await backEnd(script);
      await until(() => driver.told.slice(told).some((each) => /^(started|fault)/.test(each)));
      peer.connection.close('enough');
      await until(() => driver.told.slice(told).some((each) => /^(stopped|fault): /.test(each)));
      const [end = '', ...more] = driver.told
        .slice(told)
        .filter((each) => /^(stopped|fault)/.test(each));
      assert.deepEqual(more, []);
      assert.ok(end === 'stopped: the peer closed the connection' || end.includes(`: ${path}: `));
      assert.doesNotMatch(end, /internal error/);
      assert.equal(openFds(), flat);
    });
    await fc.assert(property, { numRuns: 300 });
    assert.ok(driver.starts > 0 && driver.starts < 300, `${driver.starts} of 300 started`);
    close(event);
  });
});
