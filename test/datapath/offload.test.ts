// Checksums and segmentation left to the receiver: passed on to who takes them, done for others. That
// they are done right is segment.test.ts's.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RING_SEGMENTED, RING_SEGMENTS, RING_SUMMED } from '../../src/abi/layout.ts';
import {
  F_CSUM,
  F_GUEST_CSUM,
  F_GUEST_ECN,
  F_GUEST_TSO4,
  F_GUEST_TSO6,
  F_GUEST_USO4,
  F_GUEST_USO6,
  F_HOST_ECN,
  F_HOST_TSO4,
  F_HOST_TSO6,
  F_HOST_USO,
  F_MRG_RXBUF,
  F_VERSION_1,
  GSO_ECN,
} from '../../src/abi/virtio.ts';
import { ringAddress } from '../../src/memory/control.ts';
import { BROADCAST, frame, header, Receiver, send } from './frames.ts';
import { verify, verifyPartial } from './oracle.ts';
import { type PacketSpec, packet, RECEIVERS } from './packets.ts';
import { features, Rig } from './rig.ts';

const rig = new Rig();
const BASE = features(F_VERSION_1, F_MRG_RXBUF);
const SENDER = BASE | features(F_CSUM, F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN, F_HOST_USO);
const CSUM = features(F_GUEST_CSUM);

/** A packet of each kind, and what a receiver needs to take it as it is. */
const PACKET: PacketSpec = {
  tags: [],
  version: 4,
  options: 0,
  extensions: [],
  protocol: 6,
  tcpOptions: 3,
  flags: 0x10,
  payload: 9000,
  seed: 7,
};
const [QINQ, VLAN] = [0x88a8, 0x8100];
const CASES: { what: string; spec: Partial<PacketSpec>; ecn?: boolean; needs: bigint }[] = [
  { what: 'TSO4', spec: {}, needs: features(F_GUEST_TSO4) },
  { what: 'TSO6', spec: { version: 6 }, needs: features(F_GUEST_TSO6) },
  { what: 'TSO4 with ECN', spec: {}, ecn: true, needs: features(F_GUEST_TSO4, F_GUEST_ECN) },
  {
    what: 'TSO6 with ECN',
    spec: { version: 6 },
    ecn: true,
    needs: features(F_GUEST_TSO6, F_GUEST_ECN),
  },
  { what: 'VLAN tagged TSO4', spec: { tags: [VLAN] }, needs: features(F_GUEST_TSO4) },
  {
    what: 'doubly tagged TSO6',
    spec: { version: 6, tags: [QINQ, VLAN] },
    needs: features(F_GUEST_TSO6),
  },
  { what: 'USO over IPv4', spec: { protocol: 17 }, needs: features(F_GUEST_USO4) },
  { what: 'USO over IPv6', spec: { protocol: 17, version: 6 }, needs: features(F_GUEST_USO6) },
  {
    what: 'VLAN tagged USO',
    spec: { protocol: 17, tags: [VLAN] },
    needs: features(F_GUEST_USO4, F_GUEST_USO6),
  },
];
const SIZE = 1448;

function world(receiver: bigint, sender = SENDER, maxFrame = 0) {
  rig.clear();
  const [a, b] = [rig.port({ features: sender }), rig.port({ features: receiver, maxFrame })];
  rig.wire(a, b);
  return { tx: a.queue(1), sink: new Receiver(b.queue(0)).fill(64) };
}

const counted = (sink: Receiver, field: number): number =>
  rig.control.counter(ringAddress(sink.rx.index) + field);

describe('offloads', () => {
  for (const { what, spec, ecn, needs } of CASES) {
    it(`${what}: unchanged to who takes it, in segments to all others`, () => {
      const made = packet({ ...PACKET, ...spec });
      const gso = made.header.gso | (ecn ? GSO_ECN : 0);
      const asked = { ...made.header, gso, gsoSize: SIZE, hdrLen: made.headers };
      for (let mask = 0; mask < 64; mask++) {
        const bits = [F_GUEST_CSUM, ...RECEIVERS].filter((_, i) => mask & (1 << i));
        const acked = features(...bits);
        for (const cuts of [[], [3, 17, 40]]) {
          const { tx, sink } = world(BASE | acked);
          send(tx, made.bytes, { header: header(asked), cuts });
          tx.publish();
          rig.settle();
          const got = sink.take();
          assert.deepEqual([tx.drops, sink.rx.drops], [{}, {}]);
          if ((acked & (needs | CSUM)) === (needs | CSUM)) {
            const buffers = Math.ceil((made.bytes.length + 12) / 2048);
            assert.deepEqual(got[0]?.frame, made.bytes);
            assert.deepEqual(got[0]?.header, header({ ...asked, buffers }));
            assert.equal(counted(sink, RING_SEGMENTED), 0);
          } else {
            assert.equal(got.length, Math.ceil(9000 / SIZE));
            assert.equal(counted(sink, RING_SEGMENTED), 1);
            assert.equal(counted(sink, RING_SEGMENTS), got.length);
            for (const one of got) {
              (acked & CSUM ? verifyPartial : verify)(one.frame);
              assert.equal(one.header[0], acked & CSUM ? 1 : 0);
              assert.equal(one.header[1], 0);
            }
          }
        }
      }
    });
  }

  it('a partial checksum: unchanged to who takes it, completed for all others', () => {
    const { bytes, header: asked } = packet({ ...PACKET, payload: 700 });
    const partial = header({ ...asked, gso: 0, buffers: 1 });
    for (const acked of [0n, CSUM, features(F_GUEST_TSO4)]) {
      const { tx, sink } = world(BASE | acked);
      send(tx, bytes, { header: partial });
      tx.publish();
      rig.settle();
      const [got] = sink.take();
      assert.equal(counted(sink, RING_SUMMED), acked === CSUM ? 0 : 1);
      if (acked === CSUM) {
        assert.deepEqual(got, { frame: bytes, header: partial, buffers: 1 });
      } else {
        verify(got!.frame);
        assert.deepEqual(got!.header, header({ buffers: 1 }));
      }
    }
  });

  it('DATA_VALID and RSC_INFO mean nothing on transmit: they are cleared', () => {
    for (const flags of [2, 4, 6, 0xfe]) {
      const { tx, sink } = world(BASE | CSUM);
      send(tx, frame(), { header: header({ flags, start: 34, offset: 16 }) });
      send(tx, frame(), { header: header({ flags: flags | 1, start: 34, offset: 16 }) });
      tx.publish();
      rig.settle();
      const [plain, partial] = sink.take();
      assert.equal(plain?.header[0], 0);
      assert.equal(partial?.header[0], 1);
    }
  });

  it('DATA_VALID reaches a receiver without GUEST_CSUM as no flag at all', () => {
    const { tx, sink } = world(BASE);
    send(tx, frame(), { header: header({ flags: 2 }) });
    tx.publish();
    rig.settle();
    assert.equal(sink.take()[0]?.header[0], 0);
  });

  it("the sender's num_buffers is not the receiver's", () => {
    const { tx, sink } = world(BASE);
    send(tx, frame(), { header: header({ buffers: 77 }) });
    tx.publish();
    rig.settle();
    assert.equal(sink.take()[0]?.header[10], 1);
  });

  it('a broadcast reaches ports of mixed features, each as it negotiated', () => {
    const takers: [acked: bigint, form: 'whole' | 'partial' | 'full'][] = [
      [BASE | CSUM | features(F_GUEST_TSO4, F_GUEST_USO4), 'whole'],
      [BASE | CSUM, 'partial'],
      [BASE | CSUM | features(F_GUEST_TSO6, F_GUEST_USO6), 'partial'],
      [BASE, 'full'],
      [0n, 'full'],
      [features(F_VERSION_1), 'full'],
    ];
    for (const protocol of [6, 17] as const) {
      rig.clear();
      const tx = rig.port({ features: SENDER }).queue(1);
      const sinks = takers.map(([acked]) =>
        new Receiver(rig.port({ features: acked }).queue(0)).fill(64, 10000),
      );
      const made = packet({ ...PACKET, protocol, to: BROADCAST });
      send(tx, made.bytes, { header: header({ ...made.header, gsoSize: SIZE }) });
      send(tx, made.bytes, { header: header({ ...made.header, gso: 0 }) });
      send(tx, made.bytes);
      tx.publish();
      rig.settle();
      assert.deepEqual(tx.drops, {});
      for (const [i, sink] of sinks.entries()) {
        const got = sink.take();
        const form = takers[i]![1];
        const segments = form === 'whole' ? 1 : Math.ceil(9000 / SIZE);
        assert.equal(got.length, segments + 2, `port ${i + 1}`);
        assert.deepEqual(sink.rx.drops, {});
        assert.equal(
          sink.rx.bytes,
          got.reduce((sum, one) => sum + one.frame.length, 0),
        );
        // The last was sent as it is; what goes before is done for those who do not.
        assert.deepEqual(got.pop()!.frame, made.bytes);
        for (const { frame: bytes } of got) (form === 'full' ? verify : verifyPartial)(bytes);
      }
    }
  });
});

describe('MTU', () => {
  it('a frame longer than the receiver takes is dropped there, one as long is not', () => {
    const { tx, sink } = world(BASE, SENDER, 1518);
    send(tx, frame({ length: 1518 }));
    send(tx, frame({ length: 1519 }));
    send(tx, frame({ length: 65557 }));
    tx.publish();
    rig.settle();
    assert.equal(sink.take().length, 1);
    assert.deepEqual(sink.rx.drops, { rx_mtu: 2 });
  });

  /** Sends a packet to be cut at `gsoSize` to a receiver of frames up to 1518 bytes. */
  function limited(acked: bigint, spec: Partial<PacketSpec>, gsoSize: number) {
    const { tx, sink } = world(BASE | acked, SENDER, 1518);
    const made = packet({ ...PACKET, ...spec });
    send(tx, made.bytes, { header: header({ ...made.header, gsoSize }) });
    tx.publish();
    rig.settle();
    return { frames: sink.take().length, drops: sink.rx.drops };
  }
  const MTU = { frames: 0, drops: { rx_mtu: 1 } };

  it('of a frame to be segmented it is its segments that must fit', () => {
    const takes = CSUM | features(F_GUEST_TSO4);
    assert.deepEqual(limited(takes, {}, 1448), { frames: 1, drops: {} });
    // TCP's options are not looked at in a frame that passes.
    assert.deepEqual(limited(takes, {}, 1464), { frames: 1, drops: {} });
    assert.deepEqual(limited(takes, {}, 1465), MTU);
    assert.deepEqual(limited(takes, { payload: 1400 }, 9000), { frames: 1, drops: {} });
    const uso = CSUM | features(F_GUEST_USO4);
    assert.deepEqual(limited(uso, { protocol: 17 }, 1476), { frames: 1, drops: {} });
    assert.deepEqual(limited(uso, { protocol: 17 }, 1477), MTU);
  });

  it('of one that is cut as well, to the byte', () => {
    for (const acked of [0n, CSUM]) {
      assert.deepEqual(limited(acked, {}, 1452), { frames: 7, drops: {} });
      assert.deepEqual(limited(acked, {}, 1453), MTU);
      assert.deepEqual(limited(acked, { payload: 1452 }, 9000), { frames: 1, drops: {} });
      assert.deepEqual(limited(acked, { payload: 1453 }, 9000), MTU);
    }
  });
});
