// Chains a hostile guest may make of packed rings only: NEXT without end, and INDIRECT among them.
//
// class 15  DPDK 450539b47e, 6ec1778134, CVE-2020-14378, virtio-queue#236
// class 18  CVE-2011-2212, CVE-2026-93683, CVE-2026-86848, QEMU#3984
// class 20  SPDK#3860

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { BROKEN_CHAIN, RING_BROKEN, RING_REASON, RING_STATE } from '../../src/abi/layout.ts';
import {
  DESC_F_AVAIL,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_USED,
  WRAP,
} from '../../src/abi/virtio.ts';
import { overRings } from '../datapath/formats.ts';
import { frame, send } from '../datapath/frames.ts';
import type { PackedQueue } from '../datapath/queue-packed.ts';
import { rig } from './guard.ts';
import { innocent, PACKED, packedWorld, refuses, type World } from './sender.ts';

const LAP = DESC_F_AVAIL | DESC_F_USED;

/** `n` descriptors of one byte each, all but the last with NEXT; endless when that has it too. */
function chain({ good }: World, n: number, endless = false) {
  return Array.from({ length: n }, (_, i) => ({
    addr: good + BigInt(i % 4000),
    len: 1,
    flags: i + 1 < n || endless ? DESC_F_NEXT : 0,
  }));
}

function latches(w: World<PackedQueue>, completed = 0): void {
  rig.settle();
  assert.equal(w.tx.get(RING_STATE), RING_BROKEN);
  assert.equal(w.tx.get(RING_REASON), BROKEN_CHAIN);
  assert.deepEqual(rig.latched, [w.tx.index]);
  const { frames } = w.tx;
  // Latched is latched: nothing more is read or written, whatever the guest does.
  for (let slot = 0; slot < w.tx.size; slot++) {
    w.tx.descriptor(w.tx.desc + slot * 16, { addr: w.good, len: 76, flags: DESC_F_AVAIL });
  }
  rig.publish();
  rig.settle();
  w.tx.checkUntouched();
  assert.equal(w.tx.frames, frames);
  assert.equal(frames, completed);
  assert.equal(rig.latched.length, 1);
  innocent(w, true);
}

overRings(rig, PACKED, 'hostile packed TX chains', () => {
  for (const size of [2, 16, 300, 1024, 1025, 32768]) {
    it(`class 15: NEXT on all ${size} descriptors of the ring latches it`, () => {
      for (const start of [WRAP, 1, WRAP + size - 1]) {
        const w = packedWorld(size, start);
        w.tx.addRaw(chain(w, size, true));
        w.tx.publish();
        latches(w);
      }
    });
  }

  for (const size of [2, 3, 16, 300, 1024]) {
    it(`class 15: a chain of all ${size} descriptors of the ring is one, wherever it begins`, () => {
      for (const start of [WRAP, 1, WRAP + size - 1]) {
        const w = packedWorld(size, start);
        for (let round = 0; round < 3; round++) {
          const bytes = frame({ length: size + 50, seed: round });
          const cuts = Array.from({ length: size - 1 }, (_, i) => i + 1);
          assert.ok(send(w.tx, bytes, { cuts }) >= 0);
          assert.equal(w.tx.free, 0);
          w.tx.publish();
          rig.settle();
          assert.deepEqual(w.sink.take()[0]?.frame, bytes);
          assert.deepEqual([w.tx.used().length, w.tx.free], [1, size]);
        }
      }
    });
  }

  it('class 15: a chain of 1024 descriptors on a ring of 32768 is one, of 1025 latches the ring', () => {
    const w = packedWorld(32768);
    w.tx.addRaw(chain(w, 1024));
    w.tx.publish();
    rig.settle();
    assert.equal(w.sink.take()[0]?.frame.length, 1012);
    assert.equal(w.tx.used().length, 1);
    w.tx.addRaw(chain(w, 1025));
    w.tx.publish();
    latches(w, 1);
  });

  it('class 15: a chain too long behind good ones latches the ring before any of them is used', () => {
    const w = packedWorld(2000);
    for (let i = 0; i < 5; i++) send(w.tx, frame());
    w.tx.addRaw(chain(w, 1025));
    w.tx.publish();
    latches(w);
  });

  it('class 20: a chain that runs into slots never made available ends where NEXT does', () => {
    const w = packedWorld();
    const next = { addr: w.good + 76n, len: 20, flags: 0, id: 11 };
    w.tx.descriptor(w.tx.at(1), next);
    w.tx.descriptor(w.tx.at(0), { addr: w.good, len: 76, flags: DESC_F_AVAIL | DESC_F_NEXT });
    assert.equal(rig.settle(), 1);
    assert.equal(w.sink.take()[0]?.frame.length, 84);
    // Used where the chain began, by the id of where it ended; the next chain is looked for behind it.
    assert.equal(rig.view.getUint16(w.tx.at(0) + 12, true), 11);
    assert.equal(rig.view.getUint16(w.tx.at(0) + 14, true), LAP);
    w.tx.descriptor(w.tx.at(2), { addr: w.good, len: 76, flags: DESC_F_AVAIL, id: 2 });
    assert.equal(rig.settle(), 1);
    assert.deepEqual(rig.latched, []);
  });

  for (const [what, before, after] of [
    ['first', 0, 1],
    ['in the middle', 2, 1],
    ['last', 3, 0],
  ] as const) {
    it(`class 18: INDIRECT ${what} in a chain`, () => {
      const w = packedWorld();
      const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76 }]));
      const plain = { addr: w.good, len: 20, flags: DESC_F_NEXT };
      const next = after > 0 ? DESC_F_NEXT : 0;
      refuses('tx_bad_indirect', w, [
        ...Array(before).fill(plain),
        { addr: table, len: 16, flags: DESC_F_INDIRECT | next },
        ...Array(after).fill({ ...plain, flags: 0 }),
      ]);
    });
  }

  it('class 18: in an indirect table NEXT, AVAIL, USED and ids mean nothing', () => {
    for (const flags of [0, DESC_F_NEXT, LAP, DESC_F_AVAIL, DESC_F_USED, LAP | DESC_F_NEXT]) {
      const w = packedWorld();
      const bytes = frame({ length: 100 });
      const at = w.tx.port.alloc(112);
      rig.bytes.fill(0, at, at + 12);
      rig.bytes.set(bytes, at + 12);
      const entries = [0, 1, 2, 3].map((i) => ({
        addr: w.tx.port.gpa(at + i * 28),
        len: 28,
        flags,
        id: 0xffff,
      }));
      const table = w.tx.port.gpa(w.tx.table(entries));
      w.tx.addRaw([{ addr: table, len: 64, flags: DESC_F_INDIRECT }]);
      w.tx.publish();
      rig.settle();
      assert.deepEqual(w.sink.take()[0]?.frame, bytes, `flags ${flags}`);
    }
  });
});
