import assert from 'node:assert/strict';
import { openSync, statSync } from 'node:fs';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  close,
  drain,
  dup,
  eventfd,
  isEventfd,
  SystemError,
  setNonblocking,
  signal,
} from '../../src/linux/index.ts';
import { openFds } from './fds.ts';

test('signal is seen by drain once, and through a duplicate', () => {
  const before = openFds();
  const fd = eventfd();
  const twin = dup(fd);
  assert.notEqual(twin, fd);
  assert.equal(drain(fd), false);
  signal(twin);
  signal(fd);
  assert.equal(drain(fd), true);
  assert.equal(drain(twin), false);
  close(fd);
  close(twin);
  assert.equal(openFds(), before);
});

test('only an eventfd is taken for one', () => {
  const fd = eventfd();
  const file = openSync('/dev/null', 'r');
  assert.equal(isEventfd(fd), true);
  assert.equal(isEventfd(file), false);
  setNonblocking(file);
  setNonblocking(fd);
  close(fd);
  close(file);
});

test('a failed call names itself, its object and the errno', () => {
  const fd = eventfd();
  close(fd);
  for (const attempt of [close, signal, drain, setNonblocking, dup]) {
    assert.throws(
      () => attempt(fd),
      (error) =>
        error instanceof SystemError &&
        error.code === 'EBADF' &&
        error.errno === 9 &&
        error.call.startsWith(error.syscall) &&
        error.message.includes(`${fd}: bad file descriptor (EBADF)`),
    );
  }
  assert.ok(statSync('/dev/null'));
});

test('the memory behind the calls outlives garbage collection', () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const fd = eventfd();
  const others: Buffer[] = [];
  for (let round = 0; round < 20; round++) {
    collect();
    // Whatever was freed is given out again and written over.
    for (let i = 0; i < 200; i++) others.push(Buffer.allocUnsafeSlow(128).fill(0));
    signal(fd);
    assert.equal(drain(fd), true);
  }
  close(fd);
});
