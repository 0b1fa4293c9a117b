// What a hostile guest may write into packed rings only: NEXT without end, any id, any flags, and event
// areas that say nothing sensible. The others' rings are packed in one round, and mixed in the other.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { BROKEN_CHAIN, RING_BROKEN, RING_REASON, RING_STATE } from '../../src/abi/layout.ts';
import {
  DESC_F_AVAIL,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_USED,
  DESC_F_WRITE,
  EVENT_F_DESC,
  EVENT_F_DISABLE,
  WRAP,
} from '../../src/abi/virtio.ts';
import { type Format, overRings } from './formats.ts';
import { frame, Receiver, send } from './frames.ts';
import { innocent, MODERN, refuses, rig, type World, world } from './hostile.ts';
import { later, type PackedQueue } from './queue-packed.ts';

const PACKED: Format[] = ['packed', 'packed to split'];
const LAP = DESC_F_AVAIL | DESC_F_USED;

function packedWorld(size = 16, start?: number): World<PackedQueue> {
  const w = world(MODERN, size) as World<PackedQueue>;
  if (start !== undefined) w.tx = w.tx.port.queue(1, { size, start }) as PackedQueue;
  return w;
}

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
    it(`NEXT on all ${size} descriptors of the ring latches it`, () => {
      for (const start of [WRAP, 1, WRAP + size - 1]) {
        const w = packedWorld(size, start);
        w.tx.addRaw(chain(w, size, true));
        w.tx.publish();
        latches(w);
      }
    });
  }

  for (const size of [2, 3, 16, 300, 1024]) {
    it(`a chain of all ${size} descriptors of the ring is one, wherever it begins`, () => {
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

  it('a chain of 1024 descriptors on a ring of 32768 is one, of 1025 latches the ring', () => {
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

  it('a chain too long behind good ones latches the ring before any of them is used', () => {
    const w = packedWorld(2000);
    for (let i = 0; i < 5; i++) send(w.tx, frame());
    w.tx.addRaw(chain(w, 1025));
    w.tx.publish();
    latches(w);
  });

  it('a chain that runs into slots never made available ends where NEXT does', () => {
    const w = packedWorld();
    const next = { addr: w.good + 76n, len: 20, flags: 0, id: 0x4321 };
    w.tx.descriptor(w.tx.at(1), next);
    w.tx.descriptor(w.tx.at(0), { addr: w.good, len: 76, flags: DESC_F_AVAIL | DESC_F_NEXT });
    assert.equal(rig.settle(), 1);
    assert.equal(w.sink.take()[0]?.frame.length, 84);
    // Used where the chain began, by the id of where it ended; the next chain is looked for behind it.
    assert.equal(rig.view.getUint16(w.tx.at(0) + 12, true), 0x4321);
    assert.equal(rig.view.getUint16(w.tx.at(0) + 14, true), LAP);
    w.tx.descriptor(w.tx.at(2), { addr: w.good, len: 76, flags: DESC_F_AVAIL });
    assert.equal(rig.settle(), 1);
    assert.deepEqual(rig.latched, []);
  });

  for (const [what, before, after] of [
    ['first', 0, 1],
    ['in the middle', 2, 1],
    ['last', 3, 0],
  ] as const) {
    it(`INDIRECT ${what} in a chain`, () => {
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

  it('in an indirect table NEXT, AVAIL, USED and ids mean nothing', () => {
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

overRings(rig, PACKED, 'hostile packed rings', () => {
  it('every u16 is a buffer id, and comes back as it was', () => {
    const w = packedWorld(256);
    const sink = new Receiver(w.sink.rx.port.queue(0, { size: 64 }));
    for (let id = 0; id < 0x1_0000; id += 256) {
      for (let i = 0; i < 256; i++) w.tx.addRaw([{ addr: w.good, len: 76, id: id + i }]);
      w.tx.publish();
      rig.settle();
      // used() compares each with what was added.
      assert.deepEqual(
        w.tx.used().map(({ head }) => head),
        Array.from({ length: 256 }, (_, i) => id + i),
      );
    }
    assert.deepEqual([sink.rx.drops, w.tx.drops], [{ rx_full: 0x1_0000 }, {}]);
  });

  it('one id for all that is outstanding comes back as often', () => {
    const w = packedWorld();
    for (let i = 0; i < 16; i++) w.tx.addRaw([{ addr: w.good, len: 76, id: 0xdead }]);
    w.tx.publish();
    assert.equal(rig.settle(), 16);
    assert.deepEqual(w.tx.used(), Array(16).fill({ head: 0xdead, len: 0 }));
    assert.equal(w.sink.take().length, 16);
  });

  it('AVAIL and USED in every combination, in both laps: only the one of the lap is a buffer', () => {
    for (const start of [WRAP, 0, WRAP + 15, 15]) {
      for (const lap of [0, DESC_F_AVAIL, DESC_F_USED, LAP]) {
        const w = packedWorld(16, start);
        const at = w.tx.next;
        w.tx.descriptor(w.tx.at(at), { addr: w.good, len: 76, flags: lap });
        const taken = lap === (at & WRAP ? DESC_F_AVAIL : DESC_F_USED);
        assert.equal(rig.settle(), taken ? 1 : 0, `start ${start}, flags ${lap}`);
        assert.equal(w.sink.take().length, taken ? 1 : 0);
        if (!taken) {
          w.tx.checkUntouched();
          // The ring waits at this slot, and goes on when it is made available.
          innocent(w, false);
        }
      }
    }
  });

  it('a slot of the wrong lap in mid-ring holds the ring up until it is right', () => {
    const w = packedWorld();
    const sent = Array.from({ length: 10 }, (_, i) => frame({ seed: i }));
    for (const bytes of sent) send(w.tx, bytes);
    w.tx.publish();
    const slot = later(w.tx.next, -6, 16);
    w.tx.setFlags(slot, DESC_F_USED);
    assert.equal(rig.settle(), 4);
    assert.equal(w.tx.used().length, 4);
    assert.equal(rig.settle(), 0);
    w.tx.setFlags(slot, DESC_F_AVAIL);
    assert.equal(rig.settle(), 6);
    assert.equal(w.tx.used().length, 6);
    assert.deepEqual(
      w.sink.take().map((got) => got.frame),
      sent,
    );
    innocent(w, false);
  });

  it('what is made available twice in a lap is taken once', () => {
    const w = packedWorld();
    for (let i = 0; i < 16; i++) send(w.tx, frame({ seed: i }));
    w.tx.publish();
    assert.equal(rig.settle(), 16);
    assert.equal(w.tx.used().length, 16);
    assert.equal(w.sink.take().length, 16);
    for (let slot = 0; slot < 16; slot++) w.tx.setFlags(slot | WRAP, DESC_F_AVAIL);
    assert.equal(rig.settle(), 0);
    w.tx.checkUntouched();
    innocent(w, false);
  });

  it('a guest that never waits for used descriptors gets one burst a poll, like others', () => {
    const w = packedWorld(64);
    const refill = (position: number) => {
      for (let i = 0; i < 64; i++) {
        const at = later(position, i, 64);
        const flags = at & WRAP ? DESC_F_AVAIL : DESC_F_USED;
        w.tx.descriptor(w.tx.at(at), { addr: w.good, len: 76, flags, id: i });
      }
    };
    const other = rig.ports[2]!.queues[1]!;
    let lap = 0;
    refill(WRAP);
    rig.datapath.poll();
    for (let i = 0; i < 50; i++) {
      refill(++lap % 2 ? 0 : WRAP);
      send(other, frame({ seed: i }));
      other.publish();
      const moved = rig.datapath.poll();
      assert.ok(moved <= 128, `${moved} in one poll`);
    }
    rig.settle();
    assert.equal(other.used().length, 50);
    assert.deepEqual(rig.latched, []);
  });

  it('descriptors rewritten in mid-burst: what was found goes out and comes back', () => {
    for (const flags of [0, DESC_F_NEXT, DESC_F_INDIRECT, DESC_F_WRITE, LAP | DESC_F_NEXT]) {
      const w = packedWorld(32);
      const sent = Array.from({ length: 8 }, (_, i) => frame({ length: 300, seed: i }));
      for (const bytes of sent) send(w.tx, bytes, { cuts: [12, 100] });
      w.tx.publish();
      const ids = [...w.tx.outstanding.keys()];
      // The receiver is called before the sender's buffers are given back.
      let calls = 0;
      rig.onCall = (ring) => {
        if (ring !== w.sink.rx.index) return;
        calls++;
        for (let slot = 0; slot < 32; slot++) {
          w.tx.descriptor(w.tx.desc + slot * 16, { addr: 1n, len: 0xffff_ffff, flags, id: 7 });
        }
      };
      assert.equal(rig.datapath.poll() + rig.settle(), 8);
      rig.onCall = () => {};
      assert.equal(calls, 1);
      assert.deepEqual(
        w.tx.used().map(({ head }) => head),
        ids,
      );
      assert.deepEqual(
        w.sink.take().map((got) => got.frame),
        sent,
      );
      assert.deepEqual(w.tx.drops, {});
      innocent(w, false);
    }
  });

  it('event areas that say nothing sensible: a call rather than none, traffic as ever', () => {
    for (const flags of [0, 1, 2, 3, 4, 0x7ffe, 0x8001, 0xffff]) {
      for (const offWrap of [0, 15, 16, 17, 0x7fff, WRAP, WRAP | 16, 0xffff]) {
        const w = packedWorld();
        send(w.tx, frame());
        w.tx.publish();
        rig.settle();
        w.tx.used();
        for (let burst = 0; burst < 4; burst++) {
          w.tx.ask(flags, offWrap);
          const before = rig.calls.length;
          for (let i = 0; i < 5; i++) send(w.tx, frame());
          w.tx.publish();
          assert.equal(rig.settle(), 5);
          assert.equal(w.tx.used().length, 5);
          const calls = rig.calls.slice(before).filter((ring) => ring === w.tx.index).length;
          if (flags === EVENT_F_DISABLE) assert.equal(calls, 0);
          else if (flags !== EVENT_F_DESC) assert.equal(calls, 1);
          else assert.ok(calls <= 1);
        }
        assert.equal(w.sink.take().length, 21);
        innocent(w, false);
      }
    }
  });

  it('the device event area is ours: what the guest writes there is not read', () => {
    const w = packedWorld();
    const area = w.tx.usedRing;
    for (const word of [0, 1, 0x2_ffff, 0x3_0000, 0xffff_ffff]) {
      rig.view.setUint32(area, word, true);
      send(w.tx, frame());
      w.tx.publish();
      assert.equal(rig.settle(), 1);
      w.tx.used();
      rig.view.setUint32(area, word, true);
      rig.datapath.armAll();
      // With EVENT_IDX: flags DESC, and the position where the next chain will be.
      assert.equal(rig.view.getUint32(area, true), (EVENT_F_DESC << 16) | w.tx.next);
      rig.datapath.activate(w.tx.index);
      assert.equal(rig.view.getUint16(area + 2, true), EVENT_F_DISABLE);
    }
    assert.equal(w.sink.take().length, 5);
    rig.datapath.activate(rig.ports[2]!.queues[1]!.index);
    innocent(w, false);
  });
});
