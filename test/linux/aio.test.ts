// An eventfd whose peer has filled it and taken O_NONBLOCK off: write(2) would wait for ever.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import {
  aioContext,
  close,
  drain,
  eventfd,
  SystemError,
  signalPeer,
} from '../../src/linux/index.ts';
import { openFds } from './fds.ts';

/** In a process of its own, which is killed if it hangs. */
function child(call: string) {
  const source = `
    import koffi from 'koffi';
    import { writeSync } from 'node:fs';
    import { eventfd, signal, signalPeer } from '${import.meta.dirname}/../../src/linux/index.ts';
    const fcntl = koffi.load(null).func('int fcntl(int fd, int command, ...)');
    const fd = eventfd();
    writeSync(fd, new Uint8Array(new BigUint64Array([0xffff_ffff_ffff_fffen]).buffer));
    if (fcntl(fd, 4, 'int', 0) !== 0) process.exit(3);
    ${call}
    console.log('returned');
  `;
  const cwd = `${import.meta.dirname}/../..`;
  return spawnSync(process.execPath, ['--input-type=module-typescript', '-e', source], {
    cwd,
    timeout: 3000,
    encoding: 'utf8',
  });
}

test('a full, blocking eventfd holds write(2) up, and signalPeer not', () => {
  assert.notEqual(aioContext(), 0);
  const blocked = child('signal(fd);');
  assert.equal(blocked.signal, 'SIGTERM', blocked.stderr);
  const free = child('for (let i = 0; i < 1000; i++) signalPeer(fd);');
  assert.equal(free.stdout, 'returned\n', free.stderr);
});

test('it is seen once by who waits, however often', () => {
  const fd = eventfd();
  signalPeer(fd);
  const before = openFds();
  for (let i = 0; i < 1000; i++) signalPeer(fd);
  assert.equal(drain(fd), true);
  assert.equal(drain(fd), false);
  assert.equal(openFds(), before);
  close(fd);
});

test('what is no eventfd is refused', () => {
  for (const fd of [0, 99_999]) {
    assert.throws(() => signalPeer(fd), SystemError);
  }
});
