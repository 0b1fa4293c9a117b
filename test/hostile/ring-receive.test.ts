// What a hostile guest may post to receive into. Every head comes back or the ring is latched, what
// it costs is counted at this port only, and the frames of the same burst reach the others.
//
// class 11  CVE-2018-1059
// class 12  CVE-2016-7422, OpenVMM#4047
// class 15  DPDK 450539b47e, 6ec1778134, CVE-2020-14378, virtio-queue#236
// class 16  virtio-queue#196, CVE-2016-5403
// class 18  CVE-2011-2212, CVE-2026-93683, CVE-2026-86848, QEMU#3984
// class 21  CVE-2026-16457, OpenVMM#4045, cloud-hypervisor#7605, #8142
// class 22  CVE-2026-74356, CVE-2018-16880, CVE-2021-3748, CVE-2022-26353
// class 27  CVE-2019-3900, CVE-2020-16843, CVE-2015-7295, CVE-2021-28714/28715

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { BROKEN_AVAIL_JUMP, BROKEN_HEAD } from '../../src/abi/layout.ts';
import { F_INDIRECT_DESC, F_MRG_RXBUF, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { BOTH, overRings } from '../datapath/formats.ts';
import { frame, mac, Receiver, send } from '../datapath/frames.ts';
import type { Descriptor, TestQueue } from '../datapath/queue.ts';
import type { SplitQueue } from '../datapath/queue-split.ts';
import { features, gpaOf, PLAIN } from '../datapath/rig.ts';
import { rig } from './guard.ts';
import { ARENA, broadcast, latched, type World, world } from './receiver.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const SINGLE = features(F_VERSION_1, F_INDIRECT_DESC);
type SplitWorld = World & { rx: SplitQueue };

/** The same, the rings being split ones. */
function splitWorld(acked: bigint, size = 16): SplitWorld {
  return world(acked, size) as SplitWorld;
}

const chains: [string, (w: World, rx: TestQueue) => Descriptor[]][] = [
  ['class 21: readable', ({ room }) => [{ addr: room, len: 2048 }]],
  [
    'class 21: readable after writable',
    ({ room }) => [
      { addr: room, len: 12, flags: WRITE | NEXT, next: 1 },
      { addr: room, len: 2000 },
    ],
  ],
  ['class 11: outside of memory', () => [{ addr: 0n, len: 2048, flags: WRITE }]],
  ["class 11: in another guest's memory", () => [{ addr: gpaOf(2), len: 2048, flags: WRITE }]],
  [
    'class 11: over the end of memory',
    () => [{ addr: gpaOf(1) + BigInt(ARENA - 2047), len: 2048, flags: WRITE }],
  ],
  ['class 12: past 2^64', () => [{ addr: (1n << 64n) - 1000n, len: 2048, flags: WRITE }]],
  ['class 18: an empty indirect table', ({ room }) => [{ addr: room, len: 0, flags: INDIRECT }]],
  ['class 18: an odd indirect table', ({ room }) => [{ addr: room, len: 24, flags: INDIRECT }]],
  [
    'class 18: an indirect table of too many',
    ({ room }) => [{ addr: room, len: 1025 * 16, flags: INDIRECT }],
  ],
  [
    'class 18: a table in a table',
    ({ room }, rx) => {
      const inner = rx.port.gpa(rx.table([{ addr: room, len: 2048, flags: WRITE }]));
      const outer = rx.port.gpa(rx.table([{ addr: inner, len: 16, flags: INDIRECT }]));
      return [{ addr: outer, len: 16, flags: INDIRECT }];
    },
  ],
];

/** A split ring only has `next`. */
const splitChains: typeof chains = [
  ['class 15: a loop', ({ room }) => [{ addr: room, len: 1, flags: WRITE | NEXT, next: 0 }]],
  [
    'class 15: next past the table',
    ({ room }) => [{ addr: room, len: 1, flags: WRITE | NEXT, next: 16 }],
  ],
];

overRings(rig, BOTH, 'hostile RX chains', (format) => {
  for (const [what, make] of format === 'split' ? [...chains, ...splitChains] : chains) {
    for (const [kind, acked] of [
      ['merged', PLAIN],
      ['single', SINGLE],
    ] as const) {
      it(`${what} (${kind}): the buffer comes back empty, the frame is counted`, () => {
        const w = world(acked);
        const { rx } = w;
        for (let round = 1; round <= 3; round++) {
          const head = rx.addRaw(make(w, rx), 0);
          rx.publish();
          broadcast(w, 1);
          assert.deepEqual(rx.drops, { rx_bad_chain: round });
          assert.deepEqual(rx.used(), [{ head, len: 0 }]);
          rx.sortFree();
        }
        assert.deepEqual(rig.latched, []);
        // Good buffers work again.
        const sink = new Receiver(rx).fill(2);
        const sent = broadcast(w, 2);
        assert.deepEqual(
          sink.take().map((got) => got.frame),
          sent,
        );
        assert.equal(rx.frames + rx.dropped, 5);
      });
    }
  }

  it('class 18: an indirect table without the feature', () => {
    const w = world(features(F_VERSION_1));
    const table = w.rx.port.gpa(w.rx.table([{ addr: w.room, len: 2048, flags: WRITE }]));
    const head = w.rx.addRaw([{ addr: table, len: 16, flags: INDIRECT }]);
    w.rx.publish();
    broadcast(w, 1);
    assert.deepEqual(w.rx.drops, { rx_bad_chain: 1 });
    assert.deepEqual(w.rx.used(), [{ head, len: 0 }]);
  });

  for (let where = 0; where < 4; where++) {
    it(`class 22: a bad chain as buffer ${where} of a merged frame gives back all it took`, () => {
      const w = world(features(F_VERSION_1, F_MRG_RXBUF), 64);
      const { rx } = w;
      const sink = new Receiver(rx);
      for (let i = 0; i < 4; i++) {
        if (i === where) rx.add([{ addr: 0n, len: 500, write: true }]);
        else sink.post([500]);
      }
      for (let i = 0; i < 8; i++) sink.post([500]);
      rx.publish();
      const sent = broadcast(w, 2, 1800);
      // Whether the frame that met the bad buffer is dropped or goes into the next ones: it is
      // delivered whole or counted once, and each head comes back exactly once.
      const used = rx.used();
      const heads = new Set(used.map(({ head }) => head));
      assert.equal(heads.size, used.length);
      assert.equal(rx.outstanding.size + used.length, 12);
      assert.equal(used.filter(({ len }) => len === 0).length, where + 1);
      assert.equal(rx.frames + rx.dropped, 2);
      assert.equal(rx.frames, 1);
      const total = used.reduce((sum, { len }) => sum + len, 0);
      assert.equal(total, sent[1]!.length + 12);
      assert.deepEqual(rig.latched, []);
    });
  }

  it('class 21: a ring full of bad chains costs one buffer a frame, and all come back', () => {
    const w = world(PLAIN, 1024);
    for (let i = 0; i < 1024; i++) w.rx.add([{ addr: 0n, len: 2048, write: true }]);
    w.rx.publish();
    let back = 0;
    for (let i = 0; i < 20; i++) {
      broadcast(w, 10);
      back += w.rx.used().length;
    }
    assert.equal(back, 200);
    assert.deepEqual(w.rx.drops, { rx_bad_chain: 200 });
  });

  it('class 27: a receiver that never posts costs counted drops, and nobody else', () => {
    const w = world(PLAIN);
    broadcast(w, 100);
    assert.deepEqual(w.rx.drops, { rx_full: 100 });
  });
});

overRings(rig, ['split'], 'hostile RX rings', () => {
  for (const head of [16, 0x8000, 0xffff]) {
    it(`class 16: head ${head} on a ring of 16`, () => {
      const w = splitWorld(PLAIN);
      w.rx.post(head);
      w.rx.publish();
      broadcast(w, 3);
      latched(w, BROKEN_HEAD, 3);
    });
  }

  for (const before of [1, 5, 15]) {
    it(`class 16: a bad head behind ${before} good buffers: every frame is delivered or counted`, () => {
      const w = splitWorld(PLAIN);
      for (let i = 0; i < before; i++) w.rx.add([{ addr: w.room, len: 2048, write: true }]);
      w.rx.post(77);
      w.rx.publish();
      broadcast(w, 1);
      broadcast(w, 20);
      latched(w, BROKEN_HEAD, 21);
      assert.equal(w.rx.frames, w.rx.completed);
    });
  }

  it('class 16: a bad head in the middle of a merged frame', () => {
    const w = splitWorld(PLAIN, 64);
    for (let i = 0; i < 40; i++) w.rx.add([{ addr: w.room, len: 100, write: true }]);
    w.rx.post(64);
    w.rx.publish();
    broadcast(w, 3, 1500);
    latched(w, BROKEN_HEAD, 3);
    assert.equal(w.rx.frames * 16, w.rx.completed);
  });

  for (const jump of [17, 64, 0x7fff, 0xffff]) {
    it(`class 16: avail.idx ${jump} ahead on a ring of 16`, () => {
      const w = splitWorld(PLAIN);
      w.rx.publish(jump);
      broadcast(w, 3);
      latched(w, BROKEN_AVAIL_JUMP, 3);
    });
  }

  it('class 21: unicast to a latched ring is counted there', () => {
    const w = splitWorld(PLAIN);
    rig.datapath.fdbLearn(0x02_00_00_00_00_02n, 0);
    const host = mac(0x22);
    const value = host.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    rig.datapath.fdbLearn(value, 1);
    w.rx.publish(0x7fff);
    send(w.tx, frame({ to: host }));
    w.tx.publish();
    rig.settle();
    assert.deepEqual(w.rx.drops, { rx_down: 1 });
    assert.deepEqual(w.good.take(), []);
  });
});
