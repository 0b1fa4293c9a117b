import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  close,
  closePeerSignal,
  drain,
  eventfd,
  memfd,
  signalPeer,
} from '../../src/linux/index.ts';
import { openFds } from './fds.ts';

const contexts = () => Number(readFileSync('/proc/sys/fs/aio-nr', 'utf8'));

test('an eventfd is signalled once for each call, thousands of times', () => {
  const before = openFds();
  const fd = eventfd();
  for (let i = 0; i < 5000; i++) {
    signalPeer(fd);
    assert.equal(drain(fd), true, `call ${i}`);
    assert.equal(drain(fd), false, `call ${i}`);
  }
  close(fd);
  assert.equal(openFds(), before);
});

test('what is no eventfd, or not there, does no harm', () => {
  const file = memfd('no eventfd', 4096);
  const fd = eventfd();
  for (let i = 0; i < 1000; i++) {
    signalPeer(file);
    signalPeer(999_999);
    signalPeer(-1);
    signalPeer(fd);
    assert.equal(drain(fd), true);
  }
  close(file);
  close(fd);
});

test('it gives back what it holds, and takes it again', () => {
  closePeerSignal();
  const fd = eventfd();
  const free = contexts();
  for (let i = 0; i < 100; i++) {
    signalPeer(fd);
    closePeerSignal();
    closePeerSignal();
  }
  // The kernel frees a context a moment after the call, and other processes have theirs.
  assert.ok(contexts() < free + 100 * 128, 'contexts stay');
  close(fd);
});
