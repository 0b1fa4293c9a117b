// Batches on a TAP, in a network namespace of this process's own.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import koffi from 'koffi';
import {
  addressOf,
  Batch,
  close,
  ERRNO,
  MAX_BATCH,
  openTap,
  socketPair,
} from '../../src/linux/index.ts';
import { openFds } from './fds.ts';
import { addressDevice, frame, KERNEL_MAC, ownNetwork, Udp } from './network.ts';

const STRIDE = 2048;
/** EtherType for local experiments: the kernel counts such a frame and drops it. */
const EXPERIMENT = 0x88b5;
const UDP_AT = 14 + 20 + 8;

const pipe2 = koffi.load(null).func('int pipe2(void *fds, int flags)');
const O_NONBLOCK = 0o4000;

/** A TAP with addresses that is up, and buffers. */
async function lab(t: TestContext) {
  if (!(await ownNetwork(t))) return undefined;
  const fds = openFds();
  const tap = openTap({ name: 'vb%d', header: 0 });
  tap.setMac(KERNEL_MAC);
  tap.setUp(true);
  await addressDevice(tap.name);
  const memory = Buffer.alloc(MAX_BATCH * STRIDE);
  const batch = new Batch(addressOf(memory));
  for (let i = 0; i < MAX_BATCH; i++) batch.set(i, i * STRIDE, STRIDE);
  const udp = new Udp(5000);
  t.after(() => {
    udp.close();
    tap.close();
    assert.equal(openFds(), fds);
  });
  return { tap, memory, batch, udp, fd: tap.fds[0]! };
}

/** Frames the kernel has had from the device. */
function received(device: string): number {
  const line = readFileSync('/proc/self/net/dev', 'utf8')
    .split('\n')
    .find((each) => each.includes(`${device}:`));
  return Number(line?.split(/[:\s]+/).filter(Boolean)[2]);
}

test('what is written gets to the kernel', async (t) => {
  const here = await lab(t);
  if (!here) return;
  const { tap, memory, batch, fd } = here;
  for (const n of [1, 2, 32, MAX_BATCH]) {
    const before = received(tap.name);
    for (let i = 0; i < n; i++) {
      const bytes = frame(EXPERIMENT, Buffer.alloc(46 + i));
      bytes.copy(memory, i * STRIDE);
      batch.set(i, i * STRIDE, bytes.length);
    }
    assert.equal(batch.write(fd, n), n);
    for (let i = 0; i < n; i++) assert.equal(batch.result(i), 60 + i);
    assert.equal(received(tap.name), before + n);
  }
  assert.equal(batch.write(fd, 0), 0);
});

test('what the kernel sends is read in order, and then nothing', async (t) => {
  const here = await lab(t);
  if (!here) return;
  const { memory, batch, udp, fd } = here;
  assert.equal(batch.read(fd, MAX_BATCH), 0);
  for (const [sent, asked] of [
    [1, 1],
    [1, 64],
    [5, 64],
    [6, 64],
    [40, 64],
    [64, 64],
    [100, 32],
  ] as const) {
    for (let i = 0; i < sent; i++) udp.send(Buffer.from(`frame ${i}`), 6000);
    for (let seen = 0; seen < sent; ) {
      const n = batch.read(fd, asked);
      assert.equal(n, Math.min(asked, sent - seen));
      for (let i = 0; i < n; i++, seen++) {
        const text = `frame ${seen}`;
        assert.equal(batch.result(i), UDP_AT + text.length);
        const at = i * STRIDE + UDP_AT;
        assert.equal(memory.toString('latin1', at, at + text.length), text);
      }
    }
    assert.equal(batch.read(fd, asked), 0);
  }
});

test('an error is the result of the frame that has it', async (t) => {
  const here = await lab(t);
  if (!here) return;
  const { tap, batch, fd } = here;
  const results = (n: number) => Array.from({ length: n }, (_, i) => batch.result(i));
  // Frames shorter than an Ethernet header.
  for (let i = 0; i < 3; i++) batch.set(i, i * STRIDE, i === 1 ? 5 : 60);
  assert.equal(batch.write(fd, 3), 3);
  assert.deepEqual(results(3), [60, -ERRNO.EINVAL, 60]);
  tap.setUp(false);
  assert.equal(batch.write(fd, 1), 1);
  assert.deepEqual(results(1), [-ERRNO.EIO]);
  assert.equal(batch.read(fd, 2), 0);
  assert.equal(batch.write(99_999, 2), 2);
  assert.deepEqual(results(2), [-ERRNO.EBADF, -ERRNO.EBADF]);
  assert.equal(batch.read(99_999, 1), 1);
  assert.deepEqual(results(1), [-ERRNO.EBADF]);
  // The device is still as good as before.
  tap.setUp(true);
  assert.equal(batch.write(fd, 1), 1);
  assert.equal(batch.result(0), 60);
});

test('offsets above 2 GiB, and one descriptor after the other', (t) => {
  const memory = new WebAssembly.Memory({ initial: 65536, maximum: 65536, shared: true });
  const batch = new Batch(addressOf(new Uint8Array(memory.buffer, 0, 16)), 4);
  const ends = [...socketPair(), ...socketPair()];
  t.after(() => {
    for (const fd of ends) close(fd);
  });
  const at = 2 ** 32 - 4096;
  for (let i = 0; i < 4; i++) batch.set(i, at + 8 * i, 8);
  const words = new BigUint64Array(memory.buffer, at, 4);
  for (const i of [0, 2, 0, 2]) {
    words.set([1n, 2n, 3n, 4n]);
    assert.equal(batch.write(ends[i]!, 4), 4);
    words.fill(0n);
    assert.equal(batch.read(ends[i + 1]!, 4), 4);
    assert.deepEqual([...words], [1n, 2n, 3n, 4n]);
    assert.equal(batch.read(ends[i]!, 4), 0);
  }
});

test('a write ends where there is no more room', (t) => {
  const fds = Buffer.alloc(8);
  assert.equal(pipe2(fds, O_NONBLOCK), 0);
  const [reader, writer] = [fds.readInt32LE(0), fds.readInt32LE(4)];
  t.after(() => {
    for (const fd of [reader, writer]) close(fd);
  });
  const memory = Buffer.alloc(4096);
  const batch = new Batch(addressOf(memory), 20);
  for (let i = 0; i < 20; i++) batch.set(i, 0, 4096);
  // Sixteen pages, and one more when one is read.
  assert.equal(batch.write(writer, 20), 16);
  assert.equal(batch.read(reader, 1), 1);
  assert.equal(batch.write(writer, 20), 1);
  assert.equal(batch.write(writer, 20), 0);
});

test('a batch is of 1 to 64', () => {
  for (const most of [0, 65, 1.5, Number.NaN]) assert.throws(() => new Batch(0, most), RangeError);
  const batch = new Batch(0, 8);
  assert.throws(() => batch.set(8, 0, 0), RangeError);
  assert.throws(() => batch.set(-1, 0, 0), RangeError);
});
