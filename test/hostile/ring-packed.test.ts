// What a hostile guest may write into packed rings only: any id, any flags, and event areas that say
// nothing sensible.
//
// class 16  virtio-queue#196, CVE-2016-5403
// class 19  CVE-2020-14375, DPDK 285e6b8b18, cloud-hypervisor#7530
// class 20  SPDK#3860
// class 24  vhost-user-backend#180, #343
// class 27  CVE-2019-3900, CVE-2020-16843, CVE-2015-7295, CVE-2021-28714/28715

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { BROKEN_ID, RING_BROKEN, RING_REASON, RING_STATE } from '../../src/abi/layout.ts';
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
import { overRings } from '../datapath/formats.ts';
import { frame, send } from '../datapath/frames.ts';
import { later } from '../datapath/queue-packed.ts';
import { rig } from './guard.ts';
import { innocent, PACKED, packedWorld } from './sender.ts';

const LAP = DESC_F_AVAIL | DESC_F_USED;

overRings(rig, PACKED, 'hostile packed rings', () => {
  it('class 20: every id below the size is a buffer id, and comes back as it was', () => {
    for (const size of [1, 2, 3, 16, 300]) {
      const w = packedWorld(size);
      // Nobody takes one for a slot.
      const ids = Array.from({ length: size }, (_, i) => size - 1 - i);
      for (let lap = 0; lap < 3; lap++) {
        for (const id of ids) w.tx.addRaw([{ addr: w.good, len: 76, id }]);
        w.tx.publish();
        assert.equal(rig.settle(), size);
        // used() compares each with what was added.
        assert.deepEqual(
          w.tx.used().map(({ head }) => head),
          ids,
        );
        const arrived = w.sink.take().length;
        w.sink.fill(arrived);
      }
      assert.deepEqual([w.tx.drops, rig.latched], [{}, []]);
    }
  });

  for (const id of [16, 17, 0x7fff, 0x8000, 0xffff]) {
    it(`class 20: id ${id} on a ring of 16 latches it, among good ones too`, () => {
      for (const before of [0, 1, 5]) {
        const w = packedWorld();
        for (let i = 0; i < before; i++) w.tx.addRaw([{ addr: w.good, len: 76, id: i }]);
        w.tx.addRaw([{ addr: w.good, len: 76, id }]);
        for (let i = 6; i < 6 + before; i++) w.tx.addRaw([{ addr: w.good, len: 76, id: i }]);
        w.tx.publish();
        rig.settle();
        assert.deepEqual([w.tx.get(RING_STATE), w.tx.get(RING_REASON)], [RING_BROKEN, BROKEN_ID]);
        assert.deepEqual(rig.latched, [w.tx.index]);
        assert.deepEqual([w.tx.frames, w.tx.completed], [0, 0]);
        innocent(w, true);
      }
    });

    it(`class 20: id ${id} at the end of a chain latches the ring, elsewhere it means nothing`, () => {
      const w = packedWorld();
      const part = { addr: w.good, len: 38 };
      w.tx.addRaw([
        { ...part, flags: DESC_F_NEXT, id },
        { addr: w.good + 38n, len: 38, id: 5 },
      ]);
      w.tx.publish();
      assert.equal(rig.settle(), 1);
      assert.deepEqual(w.tx.used(), [{ head: 5, len: 0 }]);
      assert.equal(w.sink.take().length, 1);
      w.tx.addRaw([
        { ...part, flags: DESC_F_NEXT, id: 5 },
        { addr: w.good + 38n, len: 38, id },
      ]);
      w.tx.publish();
      rig.settle();
      assert.equal(w.tx.get(RING_REASON), BROKEN_ID);
      innocent(w, true);
    });
  }

  it('class 20: one id for all that is outstanding comes back as often', () => {
    const w = packedWorld();
    for (let i = 0; i < 16; i++) w.tx.addRaw([{ addr: w.good, len: 76, id: 7 }]);
    w.tx.publish();
    assert.equal(rig.settle(), 16);
    assert.deepEqual(w.tx.used(), Array(16).fill({ head: 7, len: 0 }));
    assert.equal(w.sink.take().length, 16);
    innocent(w, false);
  });

  it('class 20: AVAIL and USED in every combination, in both laps: only the one of the lap is a buffer', () => {
    for (const start of [WRAP, 0, WRAP + 15, 15]) {
      for (const lap of [0, DESC_F_AVAIL, DESC_F_USED, LAP]) {
        const w = packedWorld(16, start);
        const at = w.tx.next;
        w.tx.descriptor(w.tx.at(at), { addr: w.good, len: 76, flags: lap, id: 3 });
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

  it('class 20: a slot of the wrong lap in mid-ring holds the ring up until it is right', () => {
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

  it('class 16: what is made available twice in a lap is taken once', () => {
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

  it('class 27: a guest that never waits for used descriptors gets one burst a poll, like others', () => {
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

  it('class 19: descriptors rewritten in mid-burst: what was found goes out and comes back', () => {
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

  it('class 24: event areas that say nothing sensible: a call rather than none, traffic as ever', () => {
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

  it('class 24: the device event area is ours: what the guest writes there is not read', () => {
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
