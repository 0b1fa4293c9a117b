// What a hostile guest may post on packed rings only.
//
// class 15  DPDK 450539b47e, 6ec1778134, CVE-2020-14378, virtio-queue#236
// class 18  CVE-2011-2212, CVE-2026-93683, CVE-2026-86848, QEMU#3984

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { BROKEN_CHAIN } from '../../src/abi/layout.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../src/abi/virtio.ts';
import { type Format, overRings } from '../datapath/formats.ts';
import { Receiver } from '../datapath/frames.ts';
import type { PackedQueue } from '../datapath/queue-packed.ts';
import { PLAIN } from '../datapath/rig.ts';
import { rig } from './guard.ts';
import { broadcast, latched, type World, world } from './receiver.ts';

const PACKED: Format[] = ['packed', 'split to packed'];
type PackedWorld = World & { rx: PackedQueue };

function packedWorld(size = 16): PackedWorld {
  return world(PLAIN, size) as PackedWorld;
}

/** NEXT on `n` descriptors: no end within them. */
function endless({ room }: World, n: number) {
  return Array(n).fill({ addr: room, len: 100, flags: DESC_F_WRITE | DESC_F_NEXT });
}

overRings(rig, PACKED, 'hostile packed RX rings', () => {
  for (const size of [2, 16, 300, 32768]) {
    it(`class 15: NEXT on all ${size} descriptors latches the ring`, () => {
      const w = packedWorld(size);
      w.rx.addRaw(endless(w, size));
      w.rx.publish();
      broadcast(w, 3);
      latched(w, BROKEN_CHAIN, 3);
    });
  }

  it('class 15: a chain of 1025 descriptors latches a ring of 32768; one of 1024 is a buffer', () => {
    const w = packedWorld(32768);
    const sink = new Receiver(w.rx);
    sink.post(Array(1024).fill(2));
    w.rx.publish();
    const sent = broadcast(w, 1);
    assert.deepEqual(
      sink.take().map((got) => got.frame),
      sent,
    );
    w.rx.addRaw([...endless(w, 1024), { addr: w.room, len: 100, flags: DESC_F_WRITE }]);
    w.rx.publish();
    broadcast(w, 3);
    latched(w, BROKEN_CHAIN, 4);
  });

  for (const before of [1, 5, 15]) {
    it(`class 15: a chain too long behind ${before} good buffers: every frame is delivered or counted`, () => {
      const w = packedWorld(2000);
      for (let i = 0; i < before; i++) w.rx.add([{ addr: w.room, len: 2048, write: true }]);
      w.rx.addRaw(endless(w, 1025));
      w.rx.publish();
      broadcast(w, 1);
      broadcast(w, 20);
      latched(w, BROKEN_CHAIN, 21);
      assert.equal(w.rx.frames, w.rx.completed);
    });
  }

  it('class 15: a chain too long in the middle of a merged frame', () => {
    const w = packedWorld(2000);
    for (let i = 0; i < 40; i++) w.rx.add([{ addr: w.room, len: 100, write: true }]);
    w.rx.addRaw(endless(w, 1025));
    w.rx.publish();
    broadcast(w, 3, 1500);
    latched(w, BROKEN_CHAIN, 3);
    assert.equal(w.rx.frames * 16, w.rx.completed);
  });

  it('class 18: INDIRECT in a chain: the buffer comes back empty, all its slots with it', () => {
    for (const where of [0, 1, 2]) {
      const w = packedWorld();
      const table = w.rx.port.gpa(w.rx.table([{ addr: w.room, len: 2048, flags: DESC_F_WRITE }]));
      for (let round = 1; round <= 12; round++) {
        const parts = [0, 1, 2].map((i) => {
          const flags = i < 2 ? DESC_F_NEXT : 0;
          if (i === where) return { addr: table, len: 16, flags: flags | DESC_F_INDIRECT };
          return { addr: w.room, len: 12, flags: flags | DESC_F_WRITE };
        });
        const head = w.rx.addRaw(parts);
        w.rx.publish();
        broadcast(w, 1);
        assert.deepEqual(w.rx.drops, { rx_bad_chain: round });
        assert.deepEqual(w.rx.used(), [{ head, len: 0 }]);
        assert.equal(w.rx.free, 16);
      }
      const sink = new Receiver(w.rx).fill(2);
      const sent = broadcast(w, 2);
      assert.deepEqual(
        sink.take().map((got) => got.frame),
        sent,
      );
    }
  });
});
