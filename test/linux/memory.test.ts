import assert from 'node:assert/strict';
import { fstatSync, readSync } from 'node:fs';
import { test } from 'node:test';
import {
  addressOf,
  close,
  eventfd,
  fileShape,
  memfd,
  mmapAnonymousFixed,
  mmapFixed,
  SEAL_GROW,
  SEAL_SHRINK,
  SystemError,
  seals,
} from '../../src/linux/index.ts';

const MIB = 1 << 20;

test('a file is mapped over WebAssembly memory, at an offset, and taken away again', () => {
  const memory = new WebAssembly.Memory({ initial: 65536, maximum: 65536, shared: true });
  const base = addressOf(new Uint8Array(memory.buffer, 0, 16));
  assert.ok(Number.isSafeInteger(base) && base > 0);
  // The last megabyte of the 4 GiB: offsets above 2^31 must survive the trip.
  const at = 4096 * MIB - MIB;
  assert.equal(addressOf(new Uint8Array(memory.buffer, at, 16)), base + at);
  const fd = memfd('vhop-test', 2 * MIB);
  mmapFixed(base + at, MIB, fd, MIB);
  const window = new Uint8Array(memory.buffer, at, MIB);
  window.set([1, 2, 3], 100);
  const back = Buffer.alloc(3);
  readSync(fd, back, 0, 3, MIB + 100);
  assert.deepEqual([...back], [1, 2, 3]);
  mmapAnonymousFixed(base + at, MIB);
  assert.equal(window[100], 0);
  window[100] = 9;
  readSync(fd, back, 0, 3, MIB + 100);
  assert.deepEqual([...back], [1, 2, 3]);
  close(fd);
});

test('a sealed memfd cannot change its size', () => {
  const fd = memfd('vhop-test', MIB, { seal: true });
  assert.equal(seals(fd), SEAL_SHRINK | SEAL_GROW);
  assert.deepEqual(fileShape(fd), { size: MIB, blockSize: 4096 });
  const open = memfd('vhop-test', MIB);
  assert.equal(seals(open), 0);
  close(fd);
  close(open);
});

test('what cannot be mapped is refused before or by the system, never guessed', () => {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared: true });
  const base = addressOf(new Uint8Array(memory.buffer, 0, 16));
  const fd = memfd('vhop-test', MIB);
  const event = eventfd();
  for (const bad of [0, -4096, Number.NaN, 2 ** 53]) {
    assert.throws(() => mmapFixed(bad, 4096, fd, 0), RangeError);
    assert.throws(() => mmapFixed(base, bad, fd, 0), RangeError);
    if (bad !== 0) assert.throws(() => mmapFixed(base, 4096, fd, bad), RangeError);
    assert.throws(() => mmapAnonymousFixed(bad, 4096), RangeError);
  }
  const isSystemError = (error: unknown) =>
    error instanceof SystemError && error.syscall === 'mmap';
  assert.throws(() => mmapFixed(base, 4096, fd, 1), isSystemError);
  assert.throws(() => mmapFixed(base + 1, 4096, fd, 0), isSystemError);
  assert.throws(() => mmapFixed(base, 4096, event, 0), isSystemError);
  assert.equal(seals(event), 0);
  assert.ok(fstatSync(fd).size === MIB);
  close(fd);
  close(event);
});
