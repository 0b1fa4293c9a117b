import assert from 'node:assert/strict';
import { fstatSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  acceptUnix,
  close,
  connectUnix,
  drain,
  eventfd,
  listenUnix,
  peerCredentials,
  type Received,
  recvWithFds,
  SystemError,
  sendWithFds,
  signal,
  socketPair,
} from '../../src/linux/index.ts';
import { openFds } from './fds.ts';

function received(result: Received | 'again'): Received {
  assert.notEqual(result, 'again');
  return result as Received;
}

test('bytes and descriptors cross, CLOEXEC, and the end is seen', () => {
  const before = openFds();
  const [a, b] = socketPair();
  const event = eventfd();
  const buffer = Buffer.alloc(16);
  assert.equal(recvWithFds(b, buffer, 8), 'again');
  assert.equal(sendWithFds(a, Buffer.from('hello'), [event, event]), 5);
  const first = received(recvWithFds(b, buffer, 8));
  assert.deepEqual([first.bytes, first.fds.length, first.truncated], [5, 2, false]);
  assert.equal(buffer.toString('utf8', 0, 5), 'hello');
  signal(first.fds[0]!);
  assert.equal(drain(event), true);
  for (const fd of first.fds) close(fd);
  close(a);
  const end = received(recvWithFds(b, buffer, 8));
  assert.deepEqual([end.bytes, end.fds, end.truncated], [0, [], false]);
  close(b);
  close(event);
  assert.equal(openFds(), before);
});

test('surplus descriptors are reported and none is left open', () => {
  const before = openFds();
  const [a, b] = socketPair();
  for (let round = 0; round < 200; round++) {
    const room = round % 7;
    sendWithFds(a, Buffer.from('x'), Array(8).fill(a));
    const got = received(recvWithFds(b, Buffer.alloc(1), room));
    assert.equal(got.truncated, true);
    assert.equal(got.fds.length, room);
    for (const fd of got.fds) close(fd);
  }
  close(a);
  close(b);
  assert.equal(openFds(), before);
});

test('the most descriptors a message may carry, and one more', () => {
  const [a, b] = socketPair();
  assert.equal(sendWithFds(a, Buffer.from('x'), Array(253).fill(a)), 1);
  const got = received(recvWithFds(b, Buffer.alloc(1), 253));
  assert.deepEqual([got.fds.length, got.truncated], [253, false]);
  for (const fd of got.fds) close(fd);
  assert.throws(() => sendWithFds(a, Buffer.from('x'), Array(254).fill(a)), RangeError);
  assert.throws(() => sendWithFds(a, Buffer.alloc(0), [a]), RangeError);
  close(a);
  close(b);
});

test('a full socket says again; a closed one says EPIPE', () => {
  const [a, b] = socketPair();
  const chunk = Buffer.alloc(65536, 7);
  let sent = 0;
  for (;;) {
    const result = sendWithFds(a, chunk);
    if (result === 'again') break;
    assert.ok(result > 0 && result < chunk.length);
    sent += result;
  }
  let got = 0;
  for (;;) {
    const result = recvWithFds(b, chunk, 0);
    if (result === 'again') break;
    got += result.bytes;
  }
  assert.equal(got, sent);
  close(b);
  assert.throws(
    () => sendWithFds(a, chunk),
    (error) => error instanceof SystemError && error.code === 'EPIPE',
  );
  close(a);
});

test('listen, connect, accept, credentials and the mode of the file', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vhop-'));
  const path = join(directory, 'sock');
  const before = openFds();
  try {
    const listener = listenUnix(path, { mode: 0o666 });
    assert.equal(statSync(path).mode & 0o777, 0o666);
    assert.equal(acceptUnix(listener), -1);
    const client = connectUnix(path);
    const server = acceptUnix(listener);
    assert.ok(fstatSync(server).isSocket());
    const own = { pid: process.pid, uid: process.getuid!(), gid: process.getgid!() };
    assert.deepEqual(peerCredentials(server), own);
    assert.deepEqual(peerCredentials(client), own);
    assert.throws(
      () => listenUnix(path),
      (error) =>
        error instanceof SystemError &&
        error.message === `bind ${path}: address already in use (EADDRINUSE)`,
    );
    for (const fd of [listener, client, server]) close(fd);
    assert.throws(() => connectUnix(path), /connection refused \(ECONNREFUSED\)/);
    assert.throws(() => connectUnix(`${path}2`), /ENOENT/);
    assert.equal(openFds(), before);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('a path is measured in bytes: 107 fit, 108 do not', () => {
  const directory = mkdtempSync(join(tmpdir(), 'vhop-'));
  const before = openFds();
  try {
    const room = 107 - directory.length - 1;
    const longest = join(directory, 'é'.repeat(room >> 1) + 'x'.repeat(room & 1));
    assert.equal(Buffer.byteLength(longest), 107);
    const listener = listenUnix(longest);
    close(connectUnix(longest));
    close(listener);
    for (const attempt of [listenUnix, connectUnix]) {
      assert.throws(() => attempt(`${longest}x`), /is 108 bytes long; the system allows 107/);
      assert.throws(() => attempt('a\0b'), RangeError);
      assert.throws(() => attempt(''), RangeError);
    }
    assert.equal(openFds(), before);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
