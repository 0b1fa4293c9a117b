// How rings start and stop, as front ends rely on it (QEMU, virtio-user, cloud-hypervisor).

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  PORT_DOWN,
  PORT_STATE,
  PORT_UP,
  RING_BROKEN,
  RING_LAST_AVAIL,
  RING_RUNNING,
  RING_STOPPED,
} from '../../src/abi/layout.ts';
import { close, drain, dup, eventfd } from '../../src/linux/index.ts';
import { DeviceBench, FrontEnd, GUEST_BYTES, PLAIN } from './bench.ts';
import { a, BYTES, b, bench, block, events, pass } from './pair.ts';

describe('start and stop', () => {
  it('frames pass once both are open, and the port comes up once', () => {
    a.open();
    b.open();
    assert.ok(pass());
    assert.deepEqual(
      events.filter((name) => name === 'up' || name === 'down'),
      ['up'],
    );
    assert.equal(bench.control.get(block(0) + PORT_STATE), PORT_UP);
  });

  it('ENABLE before memory and addresses is honoured', () => {
    b.open();
    a.device.setVringEnable(0, true);
    a.device.setVringEnable(1, true);
    a.device.setFeatures(PLAIN);
    a.device.setMemTable([a.region()]);
    for (const queue of [0, 1]) a.start(queue);
    assert.ok(pass());
  });

  it('memory that comes after the rings starts them', () => {
    b.open();
    a.device.setFeatures(PLAIN);
    for (const queue of [0, 1]) {
      a.start(queue);
      a.device.setVringEnable(queue, true);
    }
    assert.equal(a.device.up, false);
    a.device.setMemTable([a.region()]);
    assert.equal(a.device.up, true);
    assert.ok(pass());
  });

  it('a ring that is started but not enabled holds its frames until it is', () => {
    a.open();
    b.open();
    a.device.getVringBase(1);
    a.device.setVringEnable(1, false);
    a.device.setVringKick(1, eventfd());
    assert.equal(pass(), false);
    a.device.setVringEnable(1, true);
    bench.settle();
    assert.equal(b.usedIdx(0), 1);
  });

  it('what a guest sends waits while it is held, what it receives does not', () => {
    a.device.held = true;
    a.open();
    b.open();
    assert.equal(pass(), false);
    assert.ok(a.device.up);
    a.device.release();
    bench.settle();
    assert.equal(b.usedIdx(0), 1);
    assert.ok(pass());
    // Stopped rings stay as they are.
    assert.equal(a.device.getVringBase(1), 2);
    a.device.held = true;
    a.device.release();
    assert.equal(a.device.rings[1]!.state, RING_STOPPED);
  });

  it('stop and start without ENABLE resumes where it was', () => {
    a.open();
    b.open();
    for (let i = 0; i < 5; i++) assert.ok(pass());
    const bases = a.device.rings.map(({ queue }) => a.device.getVringBase(queue));
    assert.deepEqual(bases, [0, 5, 0, 0, 0, 0, 0, 0]);
    assert.equal(bench.control.get(block(0) + PORT_STATE), PORT_DOWN);
    assert.equal(pass(), false);
    for (const queue of [0, 1]) a.start(queue, bases[queue]);
    bench.settle();
    assert.equal(b.usedIdx(0), 6);
    assert.ok(pass());
  });

  it('GET_VRING_BASE of a ring that never started answers what was set, and is repeatable', () => {
    a.device.setVringNum(2, 16);
    a.device.setVringBase(2, 77);
    assert.equal(a.device.getVringBase(2), 77);
    assert.equal(a.device.getVringBase(2), 77);
    assert.equal(a.device.getVringBase(3), 0);
  });

  it('nothing is written to the guest after the answer to GET_VRING_BASE', () => {
    a.open();
    b.open();
    b.post(0, 2048, true);
    b.device.getVringBase(0);
    const image = () =>
      Buffer.from(bench.control.bytes.slice(b.linear(0), b.linear(0) + GUEST_BYTES));
    const before = image();
    a.post(1, BYTES.length, false, BYTES);
    bench.settle();
    assert.ok(image().equals(before));
    assert.equal(a.usedIdx(1), 1);
  });

  it('a base other than used.idx in memory: memory is right', () => {
    for (const [base, used] of [
      [0, 500],
      [500, 0],
      [3, 65535],
    ] as const) {
      const world = new DeviceBench();
      const { device } = world.device();
      const front = new FrontEnd(world, device);
      device.setFeatures(PLAIN);
      device.setMemTable([front.region()]);
      const view = new DataView(world.control.memory.buffer);
      const parts = front.at(1);
      view.setUint16(front.linear(parts.used) + 2, used, true);
      view.setUint16(front.linear(parts.avail) + 2, used, true);
      front.start(1, base);
      device.setVringEnable(1, true);
      assert.equal(device.rings[1]!.get(RING_LAST_AVAIL), used);
      assert.equal(device.getVringBase(1), used);
      front.close();
    }
  });

  it('STATUS 0 touches neither base, memory nor enables', () => {
    a.open();
    b.open();
    pass();
    a.device.setStatus(15);
    assert.equal(a.device.getStatus(), 15);
    a.device.setStatus(0);
    assert.equal(a.device.getStatus(), 0);
    assert.ok(pass());
    assert.equal(a.device.getVringBase(1), 2);
  });

  it('a latched ring comes back with the next start', () => {
    a.open();
    b.open();
    pass();
    const view = new DataView(bench.control.memory.buffer);
    const avail = a.linear(a.at(1).avail) + 2;
    view.setUint16(avail, 0x4000, true);
    bench.settle();
    assert.deepEqual(bench.latched, [1]);
    assert.equal(a.device.rings[1]!.state, RING_BROKEN);
    assert.deepEqual(
      a.device.takeBroken().map(({ queue }) => queue),
      [1],
    );
    assert.deepEqual(a.device.takeBroken(), []);
    // Neither ENABLE nor new memory heals it: only a start does.
    a.device.setVringEnable(1, false);
    a.device.setVringEnable(1, true);
    a.device.setMemTable([a.region()]);
    assert.equal(a.device.rings[1]!.state, RING_BROKEN);
    assert.equal(a.device.getVringBase(1), 1);
    view.setUint16(a.linear(a.at(1).avail) + 2, 1, true);
    a.start(1, 1);
    assert.equal(a.device.rings[1]!.state, RING_RUNNING);
    assert.ok(pass());
  });

  it('the err eventfd of a latched ring is signalled once', () => {
    a.open();
    const err = eventfd();
    a.device.setVringErr(1, dup(err));
    const view = new DataView(bench.control.memory.buffer);
    view.setUint16(a.linear(a.at(1).avail) + 2, 0x4000, true);
    bench.settle();
    a.device.takeBroken();
    assert.equal(drain(err), true);
    a.device.takeBroken();
    assert.equal(drain(err), false);
    close(err);
  });
});
