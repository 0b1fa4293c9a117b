// What a front end may set, when, and what is refused.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PORT_HDR_LEN, PORT_MTU, PORT_RX_PAIRS, RING_RUNNING } from '../../src/abi/layout.ts';
import { F_ACCESS_PLATFORM, F_MTU, F_PROTOCOL_FEATURES } from '../../src/abi/virtio.ts';
import { close, drain, dup, eventfd } from '../../src/linux/index.ts';
import { Refusal } from '../../src/vhost-user/backend.ts';
import { bit } from '../../src/virtio/features.ts';
import { PLAIN } from './bench.ts';
import { a, b, bench, block, pass } from './pair.ts';

describe('features', () => {
  it('bits never offered are refused, and FEATURES_OK shows it', () => {
    a.device.setStatus(11);
    assert.throws(() => a.device.setFeatures(PLAIN | bit(F_ACCESS_PLATFORM)), /never offered/);
    assert.equal(a.device.getStatus(), 3);
    assert.equal(a.device.features, 0n);
    assert.throws(() => a.device.setFeatures(bit(F_MTU)), /never offered/);
    a.device.setFeatures(PLAIN);
    assert.equal(a.device.getStatus(), 11);
  });

  it('bit 30 is not a virtio feature', () => {
    a.device.setFeatures(PLAIN | bit(F_PROTOCOL_FEATURES));
    assert.equal(a.device.features, PLAIN);
  });

  it('may change only while no ring runs; the same ones may be set again', () => {
    a.open();
    b.open();
    assert.throws(() => a.device.setFeatures(0n), /while rings run/);
    a.device.setFeatures(PLAIN);
    assert.ok(pass());
    for (const [queue] of a.device.rings.entries()) a.device.getVringBase(queue);
    a.device.setFeatures(0n);
    assert.equal(bench.control.get(block(0) + PORT_HDR_LEN), 10);
  });

  it('an MTU out of range is refused', () => {
    for (const mtu of [0, 67, 65536, 2 ** 40]) assert.throws(() => a.device.setMtu(mtu), Refusal);
    a.device.setMtu(1500);
    assert.equal(a.device.mtu, 1500);
  });
});

describe('MTU', () => {
  it('is what the datapath measures frames by, whatever tags they have', () => {
    for (const mtu of [68, 1500, 9000, 65535]) {
      const { port, device } = bench.device(1, mtu);
      assert.equal(device.mtu, mtu);
      assert.equal(bench.control.get(block(port) + PORT_MTU), mtu);
    }
    assert.equal(bench.control.get(block(0) + PORT_MTU), 0);
  });

  it("may be lowered by the front end, never beyond the port's own, and is the port's own again", () => {
    const { port, device } = bench.device(1, 9000);
    const limit = () => bench.control.get(block(port) + PORT_MTU);
    for (const mtu of [68, 1500, 9000]) {
      device.setMtu(mtu);
      assert.deepEqual([device.mtu, limit()], [mtu, mtu]);
    }
    device.setMtu(1500);
    assert.throws(() => device.setMtu(9001), /9001 is more than the 9000 this port allows/);
    assert.deepEqual([device.mtu, limit()], [1500, 1500]);
    device.disconnected('the front end left');
    assert.deepEqual([device.mtu, limit()], [9000, 9000]);
  });
});

describe('rings', () => {
  it('sizes that are no power of two, 0, or beyond 32768 are refused', () => {
    for (const size of [0, 3, 100, 32769, 65536, 2 ** 31]) {
      assert.throws(() => a.device.setVringNum(0, size), /power of two/);
    }
    for (const size of [1, 8, 32768]) a.device.setVringNum(0, size);
  });

  it('misaligned parts are refused', () => {
    const good = { flags: 0, desc: 0x1000n, avail: 0x2000n, used: 0x3000n, logGpa: 0n };
    for (const over of [{ desc: 0x1008n }, { avail: 0x2001n }, { used: 0x3002n }]) {
      assert.throws(() => a.device.setVringAddr(0, { ...good, ...over }), /misaligned/);
    }
    a.device.setVringAddr(0, good);
  });

  it('a base beyond 16 bits is refused', () => {
    assert.throws(() => a.device.setVringBase(0, 0x1_0000), /65535/);
  });

  it('NUM, ADDR and BASE are refused on a ring that runs; its own address again is not', () => {
    a.open();
    assert.throws(() => a.device.setVringNum(0, 32), /ring 0 runs/);
    assert.throws(() => a.device.setVringBase(0, 1), /ring 0 runs/);
    const other = { ...a.addresses(0), used: a.addresses(1).used };
    assert.throws(() => a.device.setVringAddr(0, other), /ring 0 runs/);
    a.device.setVringAddr(0, { ...a.addresses(0), flags: 1 });
  });

  it('a ring outside of memory is refused, and the port is not up with it', () => {
    b.open();
    a.open();
    assert.equal(a.device.up, true);
    // The table shrinks under the rings: pages from 2 MiB on, where no ring is.
    assert.throws(() => a.device.setMemTable([a.region(0x20_0000)]), /outside the memory/);
    for (const ring of a.device.rings) assert.notEqual(ring.state, RING_RUNNING);
    assert.equal(a.device.up, false);
    assert.equal(bench.control.get(block(0) + PORT_RX_PAIRS), 0);
    a.device.setMemTable([a.region()]);
    assert.equal(a.device.up, true);
    assert.ok(pass());
  });

  it('a call eventfd is signalled when it is installed; none is none', () => {
    const call = eventfd();
    a.device.setVringCall(1, dup(call));
    assert.equal(drain(call), true);
    a.device.setVringCall(1, -1);
    assert.equal(drain(call), false);
    close(call);
  });
});
