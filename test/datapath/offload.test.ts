// Checksums and segmentation left to the receiver: passed on to who takes them, refused for others.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  F_CSUM,
  F_GUEST_CSUM,
  F_GUEST_ECN,
  F_GUEST_TSO4,
  F_GUEST_TSO6,
  F_HOST_ECN,
  F_HOST_TSO4,
  F_HOST_TSO6,
  F_MRG_RXBUF,
  F_VERSION_1,
  GSO_ECN,
  GSO_TCPV4,
  GSO_TCPV6,
} from '../../src/abi/virtio.ts';
import { frame, type HeaderSpec, header, Receiver, send } from './frames.ts';
import { features, Rig } from './rig.ts';

const rig = new Rig();
const BASE = features(F_VERSION_1, F_MRG_RXBUF);
const SENDER = BASE | features(F_CSUM, F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN);
const CSUM = features(F_GUEST_CSUM);

interface Case {
  what: string;
  spec: HeaderSpec;
  type: number;
  length: number;
  /** Receiver features it needs. */
  needs: bigint;
}

const tso = { flags: 1, gsoSize: 1448, hdrLen: 66, start: 34, offset: 16 };
const CASES: Case[] = [
  {
    what: 'CSUM',
    spec: { flags: 1, start: 34, offset: 16 },
    type: 0x800,
    length: 100,
    needs: CSUM,
  },
  {
    what: 'TSO4',
    spec: { ...tso, gso: GSO_TCPV4 },
    type: 0x0800,
    length: 30000,
    needs: CSUM | features(F_GUEST_TSO4),
  },
  {
    what: 'TSO6',
    spec: { ...tso, gso: GSO_TCPV6, start: 54 },
    type: 0x86dd,
    length: 30000,
    needs: CSUM | features(F_GUEST_TSO6),
  },
  {
    what: 'TSO4 with ECN',
    spec: { ...tso, gso: GSO_TCPV4 | GSO_ECN },
    type: 0x0800,
    length: 9000,
    needs: CSUM | features(F_GUEST_TSO4, F_GUEST_ECN),
  },
  {
    what: 'TSO6 with ECN',
    spec: { ...tso, gso: GSO_TCPV6 | GSO_ECN, start: 54 },
    type: 0x86dd,
    length: 9000,
    needs: CSUM | features(F_GUEST_TSO6, F_GUEST_ECN),
  },
  {
    what: 'VLAN tagged TSO4',
    spec: { ...tso, gso: GSO_TCPV4, start: 38 },
    type: 0x8100,
    length: 9000,
    needs: CSUM | features(F_GUEST_TSO4),
  },
  {
    what: 'doubly tagged TSO6',
    spec: { ...tso, gso: GSO_TCPV6, start: 62 },
    type: 0x88a8,
    length: 9000,
    needs: CSUM | features(F_GUEST_TSO6),
  },
];

function world(receiver: bigint, sender = SENDER, maxFrame = 0) {
  rig.clear();
  const [a, b] = [rig.port({ features: sender }), rig.port({ features: receiver, maxFrame })];
  rig.wire(a, b);
  return { tx: a.queue(1), sink: new Receiver(b.queue(0)).fill(64) };
}

const RECEIVER_BITS = [F_GUEST_CSUM, F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN];

describe('offloads', () => {
  for (const { what, spec, type, length, needs } of CASES) {
    it(`${what}: unchanged to who takes it, refused under its own reason to all others`, () => {
      const bytes = frame({ length, type });
      for (let mask = 0; mask < 16; mask++) {
        const acked = features(...RECEIVER_BITS.filter((_, i) => mask & (1 << i)));
        for (const cuts of [[], [3, 17, 40]]) {
          const { tx, sink } = world(BASE | acked);
          send(tx, bytes, { header: header(spec), cuts });
          tx.publish();
          rig.settle();
          const got = sink.take();
          assert.deepEqual(tx.drops, {});
          if ((acked & needs) === needs) {
            const buffers = Math.ceil((length + 12) / 2048);
            assert.deepEqual(got[0]?.frame, bytes);
            assert.deepEqual(got[0]?.header, header({ ...spec, buffers }));
          } else {
            assert.deepEqual(got, []);
            const reason = acked & CSUM ? 'rx_no_tso' : 'rx_no_csum';
            assert.deepEqual(sink.rx.drops, { [reason]: 1 });
          }
        }
      }
    });
  }

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

  it('a broadcast goes to who takes it, and is refused elsewhere', () => {
    rig.clear();
    const from = rig.port({ features: SENDER });
    const takes = rig.port({ features: BASE | CSUM });
    const not = rig.port({ features: BASE });
    const tx = from.queue(1);
    const sinks = [takes, not].map((port) => new Receiver(port.queue(0)).fill(8));
    send(tx, frame({ to: new Uint8Array(6).fill(255) }), {
      header: header({ flags: 1, start: 34, offset: 16 }),
    });
    tx.publish();
    rig.settle();
    assert.deepEqual(
      sinks.map((sink) => sink.take().length),
      [1, 0],
    );
    assert.deepEqual(sinks[1]!.rx.drops, { rx_no_csum: 1 });
    assert.deepEqual(tx.drops, {});
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

  it('a frame to be segmented may be longer: its segments are not', () => {
    const { tx, sink } = world(BASE | CSUM | features(F_GUEST_TSO4), SENDER, 1518);
    const spec = { ...tso, gso: GSO_TCPV4 };
    send(tx, frame({ length: 9000, type: 0x0800 }), { header: header(spec) });
    tx.publish();
    rig.settle();
    assert.equal(sink.take().length, 1);
    assert.deepEqual(sink.rx.drops, {});
  });
});
