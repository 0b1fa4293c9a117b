// A malformed head (CVE-2026-16457, OpenVMM#4045, cloud-hypervisor#7605/#8142): it is taken once or its
// ring is retired; either way nobody spins on it, others keep going, and a reset revives the ring.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DRV_AVAIL, DRV_DESC } from '../../src/abi/driver.ts';
import {
  BROKEN_AVAIL_JUMP,
  BROKEN_CHAIN,
  BROKEN_HEAD,
  BROKEN_ID,
  RING_BROKEN,
  RING_REASON,
  RING_RUNNING,
  WORKER_BASE,
  WORKER_TRAPS,
} from '../../src/abi/layout.ts';
import { DESC_F_AVAIL, DESC_F_NEXT, DESC_F_WRITE, DESC_SIZE, WRAP } from '../../src/abi/virtio.ts';
import { openSwitch, startTraffic } from '../../src/api/index.ts';
import { close, drain, dup, eventfd, signal } from '../../src/linux/index.ts';
import { BOTH, type Format, overRings } from '../datapath/formats.ts';
import { concat, frame, header, mac, send } from '../datapath/frames.ts';
import type { SplitQueue } from '../datapath/queue-split.ts';
import { gpaOf, PLAIN } from '../datapath/rig.ts';
import { finished, PACKED as PACKED_FEATURES, verify } from '../stress/stress.ts';
import { DeviceBench, FrontEnd } from '../virtio/bench.ts';
import { PackedFrontEnd } from '../virtio/packed-front-end.ts';
import { kick, rig } from './guard.ts';
import * as receiver from './receiver.ts';
import { MODERN, world } from './sender.ts';

const INDIRECT = 4;

/** Heads that are no frame but leave their ring in order. */
const BAD = [
  { addr: 0n, len: 76 },
  { addr: gpaOf(1), len: 76 },
  { addr: gpaOf(0), len: 3 },
  { addr: gpaOf(0), len: 0xffff_ffff },
  { addr: gpaOf(0), len: 76, flags: DESC_F_WRITE },
  { addr: gpaOf(0), len: 24, flags: INDIRECT },
  { addr: 0n, len: 16, flags: INDIRECT },
];

overRings(rig, BOTH, 'malformed heads', (format) => {
  for (const [i, bad] of BAD.entries()) {
    it(`class 21: a ring full of malformed head ${i} is gone in a few bursts, others keep going`, () => {
      const w = world(MODERN, 256);
      const other = rig.ports[2]!.queues[1]!;
      for (let round = 0; round < 4; round++) {
        w.tx.sortFree();
        for (let k = 0; k < 256; k++) w.tx.addRaw([bad]);
        kick(w.tx);
        const bytes = frame({ from: mac(3), to: mac(9), seed: round });
        // Whoever shares the worker sends one frame a round, and each goes out.
        let bursts = 0;
        let sent = 0;
        for (let polls = 0; w.tx.outstanding.size > 0 && polls < 1000; polls++) {
          if (polls % 20 === 0) {
            send(other, bytes);
            kick(other);
            sent++;
          }
          rig.datapath.poll();
          if (w.tx.used().length > 0) bursts++;
        }
        assert.ok(bursts > 0 && bursts < 10, `${bursts} bursts for 256 malformed heads`);
        rig.settle();
        assert.equal(other.used().length, sent);
        const got = w.sink.take();
        assert.equal(got.length, sent);
        w.sink.fill(sent);
      }
      assert.equal(w.tx.dropped, 1024);
      assert.equal(w.tx.frames, 1024);
      assert.deepEqual(rig.latched, []);
      // And it sleeps like any other when there is nothing more.
      rig.settle();
      assert.equal(rig.datapath.armAll(), 0);
    });
  }

  it('class 21: a retired ring is not looked at again, however long it is polled', () => {
    const w = world(MODERN, 16);
    if (format === 'split') (w.tx as SplitQueue).post(99);
    else w.tx.addRaw(Array(16).fill({ addr: w.good, len: 1, flags: DESC_F_NEXT }), 0);
    w.tx.publish();
    rig.settle();
    assert.deepEqual(rig.latched, [w.tx.index]);
    // Those of the two others.
    assert.equal(rig.datapath.activeRings(), 2);
    for (let i = 0; i < 50; i++) {
      send(w.tx, frame());
      w.tx.publish();
      rig.publish();
      assert.equal(rig.settle(), 0);
      rig.datapath.activate(w.tx.index);
    }
    assert.deepEqual(rig.latched, [w.tx.index]);
    assert.equal(w.tx.completed, 0);
    assert.equal(rig.datapath.armAll(), 0);
  });

  it('class 21: a retired receive ring gets nothing more, also when its guest mended it', () => {
    const w = receiver.world(PLAIN, 16);
    const good = { addr: w.room, len: 2048, flags: DESC_F_WRITE };
    if (format === 'split') {
      (w.rx as SplitQueue).post(99);
      w.rx.publish();
    } else {
      w.rx.addRaw(Array(16).fill({ ...good, flags: DESC_F_WRITE | DESC_F_NEXT }));
      w.rx.publish();
    }
    receiver.broadcast(w, 1);
    assert.deepEqual(rig.latched, [w.rx.index]);
    if (format === 'split') {
      w.rx.descriptor(w.rx.desc, good);
      rig.view.setUint16(w.rx.avail + 4, 0, true);
    } else {
      const flags = DESC_F_WRITE | DESC_F_AVAIL;
      for (let i = 0; i < 16; i++) w.rx.descriptor(w.rx.desc + i * 16, { ...good, id: i, flags });
    }
    const room = () => Buffer.from(rig.bytes.slice(w.linear, w.linear + 2048));
    const before = room();
    receiver.broadcast(w, 5);
    assert.deepEqual(w.rx.drops, { rx_down: 6 });
    assert.ok(room().equals(before), 'its buffers were written');
    assert.deepEqual([w.rx.completed, rig.latched], [0, [w.rx.index]]);
  });
});

const BYTES = concat(header(), frame({ from: mac(1), to: mac(2), length: 100 }));

/** What a guest does to its TX ring, and why that is retired. */
const BREAKS: [Format, string, number, (bench: DeviceBench, front: FrontEnd) => void][] = [
  [
    'split',
    'avail.idx jumps',
    BROKEN_AVAIL_JUMP,
    (bench, front) => {
      const at = front.linear(front.at(1).avail);
      new DataView(bench.control.memory.buffer).setUint16(at + 2, 0x4000, true);
    },
  ],
  [
    'split',
    'a head out of the table',
    BROKEN_HEAD,
    (bench, front) => {
      const view = new DataView(bench.control.memory.buffer);
      const at = front.linear(front.at(1).avail);
      const idx = view.getUint16(at + 2, true);
      view.setUint16(at + 4 + (idx & 15) * 2, 16, true);
      view.setUint16(at + 2, idx + 1, true);
    },
  ],
  [
    'packed',
    'a chain without end',
    BROKEN_CHAIN,
    (_bench, front) => {
      for (let i = 0; i < 16; i++) {
        (front as PackedFrontEnd).post(1, 1, false, BYTES, DESC_F_NEXT);
      }
    },
  ],
  [
    'packed',
    'an id that is none',
    BROKEN_ID,
    (bench, front) => {
      front.post(1, BYTES.length, false, BYTES);
      const desc = front.linear(front.at(1).desc);
      // The id of every descriptor, used or not.
      for (let i = 0; i < 16; i++) {
        new DataView(bench.control.memory.buffer).setUint16(desc + i * 16 + 12, 16, true);
      }
    },
  ],
];

describe('reset', () => {
  for (const [format, what, reason, spoil] of BREAKS) {
    for (const how of [
      'a new start of the ring',
      'a kick descriptor',
      'a new connection',
    ] as const) {
      it(`class 21: ${what} (${format}): ${how} revives the ring`, () => {
        const bench = new DeviceBench();
        const make = format === 'packed' ? PackedFrontEnd : FrontEnd;
        const bad = new make(bench, bench.device().device);
        const good = new FrontEnd(bench, bench.device().device);
        const victim = new FrontEnd(bench, bench.device().device);
        for (const front of [bad, good, victim]) front.open();
        const passes = (from: FrontEnd) => {
          victim.post(0, 2048, true);
          const before = victim.usedIdx(0);
          const bytes = concat(header(), frame({ from: mac(1), to: mac(2), length: 100 }));
          from.post(1, bytes.length, false, bytes);
          bench.settle();
          return victim.usedIdx(0) === ((before + 1) & 0xffff);
        };
        const err = eventfd();
        let own = bad;
        try {
          bad.device.setVringErr(1, dup(err));
          assert.ok(passes(bad));
          spoil(bench, bad);
          bench.settle();
          const ring = bad.device.rings[1]!;
          assert.deepEqual([ring.state, ring.get(RING_REASON)], [RING_BROKEN, reason]);
          assert.deepEqual(
            bad.device.takeBroken().map(({ queue }) => queue),
            [1],
          );
          assert.ok(drain(err), 'its err eventfd was not signalled');
          for (let i = 0; i < 5; i++) assert.ok(passes(good), 'an innocent port stands still');
          // What a driver's reset does: the ring is empty, from its beginning.
          const { desc, avail, used } = bad.at(1);
          const [from, to] = [bad.linear(desc), bad.linear(used) + 4096];
          bench.control.bytes.fill(0, from, to);
          assert.ok(bad.linear(avail) > from);
          own = new make(bench, bad.device, 16, bad.fd);
          if (how === 'a new connection') {
            bad.device.disconnected('the guest was reset');
            own.open();
          } else if (how === 'a kick descriptor') {
            // Some front ends set up a ring anew without asking for its base.
            bad.device.setVringKick(1, eventfd());
          } else {
            bad.device.getVringBase(1);
            own.start(1, format === 'packed' ? WRAP : 0);
          }
          assert.equal(ring.state, RING_RUNNING);
          for (let i = 0; i < 40; i++) assert.ok(passes(own), `frame ${i} after the reset`);
          assert.deepEqual(bad.device.takeBroken(), []);
        } finally {
          close(err);
          for (const front of [own, good, victim]) front.close();
        }
      });
    }
  }

  for (const packed of [false, true]) {
    it(`class 21: in a real switch the worker lives on (${packed ? 'packed' : 'split'})`, async () => {
      const lab = await openSwitch({ workers: 1 });
      const traffic = startTraffic(lab, { frames: 20_000, length: 100 });
      const view = new DataView(lab.control.memory.buffer);
      try {
        for (let round = 0; round < 3; round++) {
          const retired = new Promise((resolve) => lab.on('quarantined', resolve));
          const bad = lab.addMemoryPort({
            type: 'memory',
            name: 'bad',
            ringSize: 16,
            ...(packed ? { features: PACKED_FEATURES } : {}),
          });
          const { drv, kickFd } = bad.queues[1]!;
          const desc = lab.control.get(drv + DRV_DESC);
          for (let i = 15; packed && i >= 0; i--) {
            view.setUint16(desc + i * DESC_SIZE + 14, DESC_F_AVAIL | DESC_F_NEXT, true);
          }
          if (!packed) view.setUint16(lab.control.get(drv + DRV_AVAIL) + 2, 0x4000, true);
          signal(kickFd);
          await retired;
          const broken = lab.rings().filter((ring) => ring.broken);
          assert.deepEqual(
            broken.map(({ port }) => port),
            ['bad'],
          );
          await lab.removePort('bad');
        }
        await finished(lab, traffic, 20_000);
        await verify(lab, traffic);
        assert.equal(lab.control.counter(WORKER_BASE + WORKER_TRAPS), 0);
      } finally {
        await traffic.stop();
        await lab.close();
      }
    });
  }
});
