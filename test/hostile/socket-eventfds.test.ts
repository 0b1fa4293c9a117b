// Eventfds that their owner made a trap of: O_NONBLOCK belongs to the open file, so a front end can take
// it away again at any time, and a write to a full counter then sleeps until somebody reads it.

import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { describe, it } from 'node:test';
import koffi from 'koffi';
import { RING_BURSTS, RING_CALLS, RING_RUNNING } from '../../src/abi/layout.ts';
import * as vu from '../../src/abi/vhost-user.ts';
import { close, drain, eventfd, setNonblocking, signal } from '../../src/linux/index.ts';
import { parts, SocketLab, UVA } from './socket-lab.ts';

const libc = koffi.load(null);
const fcntl = libc.func('int fcntl(int fd, int command, ...)');
const F_SETFL = 4;

/** As full as a counter gets, and blocking. */
function spring(fd: number): void {
  const most = Buffer.alloc(8);
  most.writeBigUInt64LE((1n << 64n) - 2n);
  drain(fd);
  writeSync(fd, most);
  assert.equal(fcntl(fd, F_SETFL, 'int', 0), 0);
}

describe('a call eventfd that is full and blocks', { timeout: 60_000 }, () => {
  it('stops neither the worker nor main', async () => {
    const lab = new SocketLab();
    const front = await lab.connect();
    const trap = eventfd();
    await lab.start(front, 2);
    for (const request of [vu.VU_SET_VRING_CALL, vu.VU_SET_VRING_ERR]) {
      await lab.done(front, request, 'ringFd', { index: 1, noFd: false }, [trap]);
    }
    spring(trap);
    const ring = lab.device.rings[1]!;
    const at = Number(parts(1).desc - UVA);
    const descriptor = Buffer.alloc(16);
    descriptor.writeBigUInt64LE(0x20_0000n, 0);
    descriptor.writeUInt32LE(100, 8);
    for (let sent = 1; sent <= 50; sent++) {
      const calls = ring.counter(RING_CALLS);
      writeSync(lab.memory, descriptor, 0, undefined, at + 16 * (sent & 255));
      const avail = Buffer.alloc(2);
      avail.writeUInt16LE(sent & 255);
      writeSync(lab.memory, avail, 0, undefined, at + 0x2000 + 4 + 2 * ((sent - 1) & 255));
      avail.writeUInt16LE(sent);
      writeSync(lab.memory, avail, 0, undefined, at + 0x2000 + 2);
      signal(lab.event);
      while (ring.counter(RING_CALLS) === calls) await new Promise(setImmediate);
    }
    assert.equal(ring.state, RING_RUNNING);
    assert.ok(ring.counter(RING_BURSTS) > 0);
    // Main signals a call eventfd when it is installed, an err eventfd when its ring is latched.
    lab.device.setVringCall(1, -1);
    writeSync(lab.memory, Buffer.from([0xff, 0x7f]), 0, undefined, at + 0x2000 + 2);
    signal(lab.event);
    while (lab.device.takeBroken().length === 0) await new Promise(setImmediate);
    const second = eventfd();
    spring(second);
    lab.device.setVringCall(0, second);
    assert.equal(lab.traps, 0);
    setNonblocking(trap);
    close(trap);
    front.close();
    await lab.free();
    await lab.close();
  });

  it('is signalled all the same', async () => {
    const lab = new SocketLab();
    const front = await lab.connect();
    await lab.start(front, 2);
    const call = eventfd();
    await lab.done(front, vu.VU_SET_VRING_CALL, 'ringFd', { index: 1, noFd: false }, [call]);
    assert.equal(drain(call), true);
    assert.equal(drain(call), false);
    close(call);
    front.close();
    await lab.free();
    await lab.close();
  });
});
