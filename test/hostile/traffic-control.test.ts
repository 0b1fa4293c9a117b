// The control queue (CVE-2024-6505, CVE-2023-22098, CVE-2026-86562/86564): RSS, VLAN and MAC tables that
// a command could index out of bounds. CTRL_VQ is offered for GUEST_ANNOUNCE only, and the queue itself
// is the front end's: there is no ring here that commands could come by.

import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import * as vu from '../../src/abi/vhost-user.ts';
import * as V from '../../src/abi/virtio.ts';
import { eventfd } from '../../src/linux/index.ts';
import { Refusal } from '../../src/vhost-user/backend.ts';
import { HANDLERS } from '../../src/vhost-user/handlers.ts';
import { bit, has, offeredFeatures } from '../../src/virtio/features.ts';
import { BOTH, overRings } from '../datapath/formats.ts';
import { concat, header, place } from '../datapath/frames.ts';
import { DeviceBench, FrontEnd, PLAIN } from '../virtio/bench.ts';
import { rig } from './guard.ts';
import { innocent, MODERN, world } from './sender.ts';

/** What would bring commands with it: bit, name. */
const COMMANDS: [number, string][] = [
  [V.F_CTRL_GUEST_OFFLOADS, 'CTRL_GUEST_OFFLOADS'],
  [V.F_CTRL_RX, 'CTRL_RX'],
  [V.F_CTRL_VLAN, 'CTRL_VLAN'],
  [V.F_CTRL_MAC_ADDR, 'CTRL_MAC_ADDR'],
  [53, 'VQ_NOTF_COAL'],
  [57, 'HASH_REPORT'],
  [60, 'RSS'],
];

/** Commands {class, command, data}: RSS index, VLAN 4096 and more, MAC table too long, pairs 0. */
const PAYLOADS: [string, number[]][] = [
  ['VLAN 4096', [2, 0, 0x00, 0x10]],
  ['VLAN 65535', [2, 0, 0xff, 0xff]],
  ['half a VLAN', [2, 0, 0x00]],
  ['no data', [2, 0]],
  ['a class alone', [4]],
  ['65535 queue pairs', [4, 0, 0xff, 0xff]],
  ['RSS with an index past its table', [4, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
  ['a MAC table of 2^32 - 1', [1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
  ['an offload nobody knows', [5, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]],
];

describe('control queue', () => {
  let front: FrontEnd | undefined;
  afterEach(() => {
    front?.close();
    front = undefined;
  });

  it('class 26: no feature is offered that would bring RSS, VLAN or MAC commands here', () => {
    for (const pairs of [1, 8]) {
      const offered = offeredFeatures({ pairs, mtu: 1500 });
      for (const [n, name] of COMMANDS) assert.equal(has(offered, n), false, name);
      assert.ok(has(offered, V.F_CTRL_VQ) && has(offered, V.F_GUEST_ANNOUNCE));
    }
  });

  it('class 26: a driver that takes such a feature all the same is refused, nothing changed', () => {
    const bench = new DeviceBench();
    front = new FrontEnd(bench, bench.device().device);
    for (const [n] of COMMANDS) {
      assert.throws(() => front!.device.setFeatures(PLAIN | bit(n)), /never offered/);
      assert.equal(front.device.features, 0n);
    }
  });

  for (const pairs of [1, 4, 8]) {
    it(`class 26: behind ${pairs} pairs there is no ring for a control queue`, () => {
      const bench = new DeviceBench();
      const { device } = bench.device(pairs);
      front = new FrontEnd(bench, device).open();
      assert.equal(device.rings.length, 2 * pairs);
      const before = Buffer.from(bench.control.bytes.slice(0, 0x30_0000));
      const negotiation = { backend: device, protocolFeatures: ~0n };
      for (const index of [2 * pairs, 2 * pairs + 1, 16, 255, 256, 0x1_0000, 0xffff_ffff]) {
        const message = { request: 0, flags: 1, payload: new Uint8Array(), fds: [] as number[] };
        const state = { index, num: 1 };
        const addr = { index, flags: 0, desc: 0n, avail: 0n, used: 0n, logGpa: 0n };
        const fd = { index, noFd: true };
        for (const send of [
          () => HANDLERS[vu.VU_SET_VRING_NUM]!(negotiation, state, message),
          () => HANDLERS[vu.VU_SET_VRING_BASE]!(negotiation, state, message),
          () => HANDLERS[vu.VU_GET_VRING_BASE]!(negotiation, state, message),
          () => HANDLERS[vu.VU_SET_VRING_ENABLE]!(negotiation, state, message),
          () => HANDLERS[vu.VU_SET_VRING_ADDR]!(negotiation, addr, message),
          () => HANDLERS[vu.VU_SET_VRING_KICK]!(negotiation, fd, message),
          () => HANDLERS[vu.VU_SET_VRING_CALL]!(negotiation, fd, message),
          () => HANDLERS[vu.VU_SET_VRING_ERR]!(negotiation, fd, message),
        ]) {
          assert.throws(send, (error) => {
            assert.ok(error instanceof Refusal);
            assert.match(error.message, new RegExp(`^ring ${index} does not exist`));
            return true;
          });
        }
      }
      assert.ok(before.equals(bench.control.bytes.slice(0, 0x30_0000)), 'something changed');
    });
  }

  it('class 26: a kick on a ring behind the last wakes nothing', () => {
    const bench = new DeviceBench();
    front = new FrontEnd(bench, bench.device(1).device).open();
    const fd = eventfd();
    bench.settle();
    const active = bench.datapath.activeRings();
    for (let ring = 2; ring < 16; ring++) bench.datapath.activate(ring);
    assert.equal(bench.datapath.activeRings(), active);
    front.device.setVringKick(1, fd);
  });
});

overRings(rig, BOTH, 'commands on a ring that is for frames', () => {
  for (const [what, bytes] of PAYLOADS) {
    it(`class 26: ${what}: a frame too short, and no command`, () => {
      const w = world(MODERN | bit(V.F_CTRL_VQ) | bit(V.F_GUEST_ANNOUNCE));
      const port = Buffer.from(rig.bytes.slice(0x2_0000, 0x3_0000));
      for (const inner of [undefined, 0]) {
        // As a driver lays one out: command and data to read, one byte for the answer to write.
        const command = place(w.tx, Uint8Array.from(bytes), [2]);
        w.tx.add([...command, { addr: w.good, len: 1, write: true }], inner);
        // And without that byte, behind a virtio-net header.
        w.tx.add(place(w.tx, concat(header(), Uint8Array.from(bytes)), [12]), inner);
        w.tx.publish();
        assert.equal(rig.settle(), 2);
        assert.deepEqual(
          w.tx.used().map(({ len }) => len),
          [0, 0],
        );
      }
      assert.deepEqual(w.tx.drops, { tx_writable: 2, tx_too_short: 2 });
      assert.ok(port.equals(rig.bytes.slice(0x2_0000, 0x3_0000)));
      innocent(w, false);
    });
  }
});
