import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import * as vu from '../../src/abi/vhost-user.ts';
import {
  close,
  EventLoop,
  eventfd,
  memfd,
  recvWithFds,
  sendWithFds,
  socketPair,
} from '../../src/linux/index.ts';
import { CODECS, Connection, encodeMessage, type Message } from '../../src/vhost-user/index.ts';
import { openFds } from '../linux/fds.ts';
import { FrontEnd, until, withSession } from './harness.ts';

const inode = (fd: number) => statSync(`/proc/self/fd/${fd}`).ino;
const U64 = (value: bigint) => encodeMessage(vu.VU_SET_FEATURES, 1, 'u64', value);

interface Wire {
  loop: EventLoop;
  connection: Connection;
  front: FrontEnd;
  messages: Message[];
  closed: [string, boolean][];
}

/** A connection whose messages are kept, fds and all. */
async function withConnection(body: (wire: Wire) => Promise<void>): Promise<void> {
  const before = openFds();
  const loop = new EventLoop();
  const [fd, other] = socketPair();
  const front = new FrontEnd(other);
  const messages: Message[] = [];
  const closed: [string, boolean][] = [];
  const connection = new Connection(fd, loop, {
    onMessage: (message) => messages.push(message),
    onClosed: (...args) => closed.push(args),
  });
  try {
    await body({ loop, connection, front, messages, closed });
  } finally {
    connection.close('the test is over');
    for (const { fds } of messages) for (const each of fds) close(each);
    front.close();
    await loop.close();
  }
  assert.equal(closed.length, 1);
  assert.equal(openFds(), before);
}

test('a message cut anywhere, byte by byte, is put together with its descriptors', async () => {
  const files = [memfd('a', 4096), memfd('b', 4096)];
  const regions = files.map((_, i) => ({ gpa: BigInt(i), size: 1n, uva: 2n, mmapOffset: 3n }));
  const whole = encodeMessage(vu.VU_SET_MEM_TABLE, 1, 'table', regions);
  await withConnection(async ({ front, messages }) => {
    for (let cut = 1; cut < whole.length; cut++) {
      front.raw(whole.subarray(0, cut), files);
      front.raw(whole.subarray(cut));
      await until(() => messages.length > 0);
      const [message] = messages.splice(0) as [Message];
      assert.deepEqual(CODECS.table.decode(message.payload), regions);
      assert.deepEqual(message.fds.map(inode), files.map(inode));
      for (const fd of message.fds) close(fd);
    }
    for (const byte of whole) {
      front.raw(Uint8Array.of(byte));
      if (byte === 1) await new Promise(setImmediate);
    }
    await until(() => messages.length === 1);
    assert.deepEqual(CODECS.table.decode(messages[0]!.payload), regions);
  });
  for (const fd of files) close(fd);
});

test('messages coalesced in one segment and in many keep their own descriptors', async () => {
  const files = Array.from({ length: 8 }, (_, i) => memfd(`${i}`, 4096));
  await withConnection(async ({ front, messages }) => {
    // One after the other, all queued before the other side reads the first.
    for (const [i, fd] of files.entries()) {
      front.raw(U64(BigInt(i)), i % 2 === 0 ? [fd] : []);
    }
    // Two in one segment: descriptors belong to the first.
    front.raw(Buffer.concat([U64(8n), U64(9n)]), [files[0]!, files[1]!]);
    // The end of one with the beginning of the next.
    const cut = Buffer.concat([U64(10n), U64(11n)]);
    front.raw(cut.subarray(0, 15));
    front.raw(cut.subarray(15, 27));
    front.raw(cut.subarray(27));
    await until(() => messages.length === 12);
    assert.deepEqual(
      messages.map(({ payload }) => CODECS.u64.decode(payload)),
      Array.from({ length: 12 }, (_, i) => BigInt(i)),
    );
    for (const [i, fd] of files.entries()) {
      assert.deepEqual(messages[i]!.fds.map(inode), i % 2 === 0 ? [inode(fd)] : []);
    }
    assert.deepEqual(
      messages.slice(8).map(({ fds }) => fds.length),
      [2, 0, 0, 0],
    );
  });
  for (const fd of files) close(fd);
});

test('any stream of messages arrives the same however it is cut', async () => {
  const message = fc.tuple(fc.nat(60), fc.uint8Array({ maxLength: 300 }), fc.nat(3));
  const event = eventfd();
  await withConnection(async ({ front, messages }) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(message, { minLength: 1, maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 8 }),
        async (sent, cuts) => {
          let step = 0;
          for (const [request, payload, fds] of sent) {
            const whole = encodeMessage(request, 1, 'opaque', payload);
            for (let at = 0; at < whole.length; ) {
              const end = at + cuts[step++ % cuts.length]!;
              front.raw(whole.subarray(at, end), at === 0 ? Array(fds).fill(event) : []);
              at = end;
            }
          }
          await until(() => messages.length === sent.length);
          const got = messages.splice(0);
          for (const { fds } of got) for (const fd of fds) close(fd);
          assert.deepEqual(
            got.map(({ request, payload, fds }) => [request, payload, fds.length]),
            sent.map(([request, payload, fds]) => [request, payload, fds]),
          );
        },
      ),
      { numRuns: 200 },
    );
  });
  close(event);
});

test('thirty-two descriptors pass, one more ends the connection, none is left', async () => {
  const event = eventfd();
  for (const [first, second] of [
    [32, 0],
    [16, 16],
    [33, 0],
    [32, 1],
    [100, 0],
  ] as const) {
    await withConnection(async ({ front, messages, closed }) => {
      front.raw(U64(1n).subarray(0, 12), Array(first).fill(event));
      front.raw(U64(1n).subarray(12), Array(second).fill(event));
      if (first + second <= 32) {
        await until(() => messages.length === 1);
        assert.equal(messages[0]!.fds.length, 32);
      } else {
        await until(() => closed.length === 1);
        assert.deepEqual(closed, [
          ['a message came with more descriptors than can be taken', true],
        ]);
      }
    });
  }
  close(event);
});

test('hanging up between messages is no fault; within one it is, and its fds are closed', async () => {
  const whole = U64(7n);
  for (let cut = 0; cut <= whole.length; cut++) {
    const event = eventfd();
    await withConnection(async ({ front, messages, closed }) => {
      if (cut > 0) front.raw(whole.subarray(0, cut), [event]);
      front.close();
      await until(() => closed.length === 1);
      const between = cut === 0 || cut === whole.length;
      assert.equal(messages.length, cut === whole.length ? 1 : 0);
      assert.equal(closed[0]![1], !between);
    });
    close(event);
  }
});

test('what a slow peer does not read waits in bounded memory, and its requests wait too', async () => {
  await withSession(async ({ front, session }) => {
    const ask = encodeMessage(vu.VU_GET_FEATURES, 1, 'none', null);
    const batch = Buffer.concat(Array(256).fill(ask));
    let asked = 0;
    // Until neither side can go on: our requests fill its socket, its replies fill ours.
    for (let idle = 0; idle < 50; ) {
      const before = session.requests;
      // A short send cuts a request; go on where it stopped.
      const sent = sendWithFds(front.fd, batch.subarray(asked % 12));
      if (sent !== 'again') asked += sent;
      await new Promise(setImmediate);
      idle = sent === 'again' && session.requests === before ? idle + 1 : 0;
      assert.ok(asked < 50_000_000, 'nothing ever held the peer back');
    }
    const answered = session.requests;
    assert.ok(answered * 12 < asked, 'the session took requests it could not answer');
    // Now it reads: every request taken is answered, in order, and the rest is taken.
    const wanted = Math.floor(asked / 12);
    const buffer = Buffer.alloc(60000);
    let got = 0;
    while (got < wanted * 20) {
      const result = recvWithFds(front.fd, buffer, 0);
      if (result === 'again') await new Promise(setImmediate);
      else got += result.bytes;
    }
    assert.equal(got, wanted * 20);
    assert.equal(session.requests, wanted);
  });
});

test('descriptors that must wait are duplicates, delivered or closed', async () => {
  for (const read of [true, false]) {
    await withConnection(async ({ connection, front }) => {
      const filler = encodeMessage(1, 5, 'opaque', new Uint8Array(4000));
      const event = eventfd();
      const fill = 400;
      for (let i = 0; i < fill; i++) connection.send(filler);
      connection.send(U64(1n), [event]);
      close(event);
      if (!read) return;
      const buffer = Buffer.alloc(4012);
      let bytes = 0;
      const fds: number[] = [];
      while (bytes < fill * filler.length + 20) {
        const got = recvWithFds(front.fd, buffer, 4);
        if (got === 'again') await new Promise(setImmediate);
        else {
          bytes += got.bytes;
          fds.push(...got.fds);
        }
      }
      assert.equal(fds.length, 1);
      for (const fd of fds) close(fd);
    });
  }
});

test('hostile: whole sessions of garbage never throw and never leak', async () => {
  const before = openFds();
  const event = eventfd();
  const header = fc
    .tuple(fc.nat(50), fc.constantFrom(1, 9, 5, 0xfffffff9), fc.uint8Array({ maxLength: 80 }))
    .map(([request, flags, payload]) => encodeMessage(request, flags, 'opaque', payload));
  const piece = fc.oneof({ weight: 8, arbitrary: header }, fc.uint8Array({ minLength: 1 }));
  const session = fc.array(fc.tuple(piece, fc.nat(3)), { maxLength: 20 });
  await fc.assert(
    fc.asyncProperty(session, fc.boolean(), async (pieces, negotiate) => {
      await withSession(async ({ front, backend, closed }) => {
        if (negotiate) await front.negotiate();
        for (const [bytes, fds] of pieces) {
          if (closed.length > 0) break;
          try {
            sendWithFds(front.fd, bytes, Array(fds).fill(event));
          } catch {
            break; // EPIPE: it has hung up already.
          }
        }
        front.close();
        await until(() => closed.length === 1);
        assert.equal(backend.ends.length, 1);
      });
    }),
    { numRuns: 300 },
  );
  close(event);
  assert.equal(openFds(), before);
});
