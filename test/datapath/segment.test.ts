// Segmentation and checksums done for the receiver, against an oracle that knows only the RFCs.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DRV_LEN, SEG_WRITE } from '../../src/abi/driver.ts';
import {
  RING_SEGMENTED,
  RING_SEGMENTS,
  RING_SUMMED,
  RINGF_MRG,
  RINGF_PACKED,
} from '../../src/abi/layout.ts';
import {
  F_GUEST_CSUM,
  F_INDIRECT_DESC,
  F_MRG_RXBUF,
  F_VERSION_1,
  GSO_ECN,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
} from '../../src/abi/virtio.ts';
import { ringAddress } from '../../src/memory/control.ts';
import { concat, fill, frame, header, Receiver, send } from './frames.ts';
import { checksum, complete, dissect, segment, verify, verifyPartial } from './oracle.ts';
import {
  anyPacket,
  anyReceiver,
  anyShapes,
  type Packet,
  type PacketSpec,
  packet,
  postShapes,
  SENDER,
  takesWhole,
} from './packets.ts';
import { driverOn } from './queue.ts';
import { features, Rig } from './rig.ts';

const rig = new Rig();
const BARE = features(F_VERSION_1, F_INDIRECT_DESC, F_MRG_RXBUF);
const PLAIN_TCP: PacketSpec = {
  tags: [],
  version: 4,
  options: 0,
  extensions: [],
  protocol: 6,
  tcpOptions: 3,
  flags: 0x18,
  payload: 5000,
  seed: 1,
};

function world(receiver: bigint, mtu = 0, size = 1024) {
  rig.clear();
  const [a, b] = [rig.port({ features: SENDER }), rig.port({ features: receiver, mtu })];
  rig.wire(a, b);
  return { tx: a.queue(1, { size }), sink: new Receiver(b.queue(0, { size })) };
}

type World = ReturnType<typeof world>;

function sent({ tx }: World, bytes: Uint8Array, head: Uint8Array, cuts: number[] = []): void {
  send(tx, bytes, { header: head, cuts });
  tx.publish();
  assert.equal(rig.settle(), 1);
  assert.equal(tx.used().length, 1);
}

const counted = (sink: Receiver, field: number): number =>
  rig.control.counter(ringAddress(sink.rx.index) + field);

const isPartial = (acked: bigint): boolean => (acked & features(F_GUEST_CSUM)) !== 0n;

/** What the receiver must be told of a segment. */
function segmentHeader(acked: bigint, { header: spec }: Packet, length: number): Uint8Array {
  const { start, offset } = spec;
  return header(isPartial(acked) ? { flags: 1, start, offset } : {}, length);
}

/** Without num_buffers, which Receiver has checked. */
const told = (bytes: Uint8Array): Uint8Array => bytes.slice(0, 10);

const cutPlaces = fc.array(fc.oneof(fc.nat({ max: 120 }), fc.nat({ max: 65000 })), {
  maxLength: 12,
});

describe('segmentation', () => {
  const seen = { cut: 0, whole: 0, full: 0, small: 0 };

  it('is what the oracle makes of it, into any buffers, as far as they reach', () => {
    fc.assert(
      fc.property(
        anyPacket,
        anyReceiver,
        anyShapes,
        fc.record({
          size: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 300, max: 65535 })),
          ecn: fc.boolean(),
          posted: fc.oneof(fc.constant(1000), fc.nat({ max: 60 })),
          whole: fc.oneof(fc.constant(true), fc.boolean()),
          cuts: cutPlaces,
        }),
        (spec, acked, shapes, { size, ecn, posted, whole, cuts }) => {
          const made = packet({ ...spec, payload: Math.min(spec.payload, size * 150) });
          if (ecn && spec.protocol === 6) made.header.gso |= GSO_ECN;
          const longest = made.headers + Math.min(size, made.bytes.length - made.headers);
          const w = world(acked);
          const passes = takesWhole(acked, made);
          const need = (passes ? made.bytes.length : longest) + 12;
          postShapes(w.sink, shapes, posted, need, whole);
          sent(w, made.bytes, header({ ...made.header, gsoSize: size }), cuts);
          const got = w.sink.take();
          w.sink.checkPosted();
          assert.deepEqual(w.tx.drops, {});
          assert.equal(w.sink.rx.frames, got.length);
          assert.equal(
            w.sink.rx.bytes,
            got.reduce((sum, one) => sum + one.frame.length, 0),
          );
          if (passes) {
            seen.whole += got.length;
            assert.equal(got.length + w.sink.rx.dropped, 1);
            assert.equal(counted(w.sink, RING_SEGMENTED), 0);
            for (const one of got) assert.equal(Buffer.compare(one.frame, made.bytes), 0);
            return;
          }
          const expected = segment(made.bytes, size, isPartial(acked));
          assert.equal(counted(w.sink, RING_SEGMENTED), 1);
          assert.equal(counted(w.sink, RING_SEGMENTS), expected.length);
          assert.equal(counted(w.sink, RING_SUMMED), 0);
          assert.equal(got.length + w.sink.rx.dropped, expected.length);
          for (const [i, one] of got.entries()) {
            assert.equal(Buffer.compare(one.frame, expected[i]!), 0, `segment ${i}`);
            (isPartial(acked) ? verifyPartial : verify)(one.frame);
            const wanted = told(segmentHeader(acked, made, 12));
            assert.deepEqual(told(one.header), wanted);
          }
          // Buffers of a byte or two are more than a burst may look at.
          const { rx_full = 0, rx_too_small = 0, rx_scattered = 0, ...others } = w.sink.rx.drops;
          assert.deepEqual(others, {});
          // Enough of buffers long enough: everything arrives.
          if (whole && posted === 1000) assert.equal(rx_full + rx_too_small + rx_scattered, 0);
          seen.cut += got.length;
          seen.full += rx_full;
          seen.small += rx_too_small;
        },
      ),
      { numRuns: 400 },
    );
    for (const [what, times] of Object.entries(seen)) assert.ok(times > 0, what);
  });

  it('a burst of frames to be cut, to be summed and to be let be keeps its order', () => {
    const part = fc.record({
      spec: anyPacket,
      kind: fc.constantFrom('gso', 'csum', 'plain'),
      size: fc.integer({ min: 400, max: 1448 }),
    });
    fc.assert(
      fc.property(
        fc.array(part, { minLength: 2, maxLength: 10 }),
        anyShapes,
        fc.boolean(),
        (parts, shapes, csum) => {
          const acked = BARE | (csum ? features(F_GUEST_CSUM) : 0n);
          const w = world(acked);
          postShapes(w.sink, shapes, 1000, 4000, true);
          const expected: Uint8Array[] = [];
          for (const { spec, kind, size } of parts) {
            const made = packet({ ...spec, payload: spec.payload % 6000 });
            const { gso, ...partial } = made.header;
            if (kind === 'gso') {
              send(w.tx, made.bytes, { header: header({ ...partial, gso, gsoSize: size }) });
              expected.push(...segment(made.bytes, size, csum));
            } else if (kind === 'csum') {
              send(w.tx, made.bytes, { header: header(partial) });
              const done = complete(made.bytes, partial.start, partial.offset);
              expected.push(csum ? made.bytes : done);
            } else {
              send(w.tx, made.bytes);
              expected.push(made.bytes);
            }
          }
          w.tx.publish();
          rig.settle();
          const got = w.sink.take();
          assert.deepEqual(w.sink.rx.drops, {});
          assert.equal(got.length, expected.length);
          for (const [i, one] of got.entries()) {
            assert.equal(Buffer.compare(one.frame, expected[i]!), 0, `frame ${i}`);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('FIN and PSH are on the last segment only, CWR on the first, the rest on all', () => {
    const made = packet({ ...PLAIN_TCP, flags: 0xff });
    const w = world(BARE);
    w.sink.fill(100);
    sent(w, made.bytes, header({ ...made.header, gso: GSO_TCPV4 | GSO_ECN, gsoSize: 2000 }));
    const flags = w.sink.take().map(({ frame }) => verify(frame).transport[13]);
    assert.deepEqual(flags, [0xf6, 0x76, 0x7f]);
  });

  it('sequence number and IPv4 id wrap', () => {
    const made = packet(PLAIN_TCP);
    made.bytes.set([0xff, 0xff], 18);
    made.bytes.set([0xff, 0xff, 0xff, 0x00], 38);
    const w = world(BARE);
    w.sink.fill(100);
    sent(w, made.bytes, header({ ...made.header, gsoSize: 2500 }));
    const [first, second] = w.sink.take().map(({ frame }) => verify(frame));
    assert.deepEqual([...first!.ip.slice(4, 6)], [0xff, 0xff]);
    assert.deepEqual([...second!.ip.slice(4, 6)], [0, 0]);
    assert.deepEqual([...second!.transport.slice(4, 8)], [0, 0, 0x08, 0xc4]);
  });

  it('UDP whose checksum comes to 0 says 0xffff', () => {
    for (const version of [4, 6] as const) {
      const made = packet({ ...PLAIN_TCP, version, protocol: 17, payload: 300 });
      // The first two bytes of each payload make the sum that of nothing.
      for (let i = 0; i < 3; i++) {
        const at = made.headers + i * 100;
        made.bytes.fill(0, at, at + 2);
        const one = segment(made.bytes, 100)[i]!;
        made.bytes.set(dissect(one).transport.slice(6, 8), at);
      }
      const w = world(BARE);
      w.sink.fill(100);
      sent(w, made.bytes, header({ ...made.header, gsoSize: 100 }));
      const sums = w.sink.take().map(({ frame }) => [...verify(frame).transport.slice(6, 8)]);
      assert.deepEqual(sums, [
        [255, 255],
        [255, 255],
        [255, 255],
      ]);
    }
  });

  it('a receiver without a buffer costs nothing but counts', () => {
    const made = packet({ ...PLAIN_TCP, payload: 60000 });
    const w = world(BARE);
    for (let i = 0; i < 64; i++) {
      send(w.tx, made.bytes, { header: header({ ...made.header, gsoSize: 1 }) });
    }
    w.tx.publish();
    assert.equal(rig.settle(), 64);
    assert.deepEqual(w.sink.rx.drops, { rx_full: 64 * 60000 });
    assert.equal(counted(w.sink, RING_SEGMENTED), 64);
    assert.equal(counted(w.sink, RING_SEGMENTS), 64 * 60000);
  });

  it('fills a packed ring, more buffers in a burst than are gathered ahead', () => {
    rig.clear();
    const [a, b] = [rig.port({ features: SENDER }), rig.port({ features: BARE })];
    rig.wire(a, b);
    const tx = a.queue(1);
    const rx = b.queue(0, { size: 1000, flags: RINGF_PACKED | RINGF_MRG });
    const drv = driverOn(rx);
    const size = 300;
    const buffers = Array.from({ length: 1000 }, () => b.alloc(size));
    const list = b.alloc(8, 8);
    const post = (token: number): void => {
      rig.control.set(list, buffers[token]!);
      rig.control.set(list + 4, size | SEG_WRITE);
      assert.ok(rig.datapath.drvAdd(drv, list, 1, token, 0) >= 0);
    };
    for (const token of buffers.keys()) post(token);
    rig.datapath.drvPublish(drv);
    const made = packet({ ...PLAIN_TCP, payload: 60000 });
    const expected = segment(made.bytes, 536);
    // 112 segments in 3 buffers each: round the ring again and again.
    for (let round = 0; round < 8; round++) {
      send(tx, made.bytes, { header: header({ ...made.header, gsoSize: 536 }) });
      tx.publish();
      rig.settle();
      tx.used();
      assert.deepEqual(rx.drops, {});
      for (const one of expected) {
        let left = one.length + 12;
        const chunks: Uint8Array[] = [];
        while (left > 0) {
          const token = rig.datapath.drvPop(drv);
          const length = rig.control.get(drv + DRV_LEN);
          assert.ok(token >= 0 && length === Math.min(left, size));
          chunks.push(rig.bytes.slice(buffers[token]!, buffers[token]! + length));
          left -= length;
          post(token);
        }
        const whole = concat(...chunks);
        assert.equal(whole[10], chunks.length);
        assert.equal(Buffer.compare(whole.subarray(12), one), 0);
      }
      assert.equal(rig.datapath.drvPop(drv), -1);
      rig.datapath.drvPublish(drv);
    }
  });

  it('a malformed receive chain costs one segment, and goes back empty', () => {
    const made = packet(PLAIN_TCP);
    const w = world(BARE);
    w.sink.fill(2);
    const outside = w.sink.rx.add([{ addr: 1n, len: 2048, write: true }]);
    w.sink.rx.publish();
    w.sink.fill(10);
    sent(w, made.bytes, header({ ...made.header, gsoSize: 1000 }));
    const used = w.sink.rx.used();
    assert.equal(used.find(({ head }) => head === outside)?.len, 0);
    assert.equal(used.length, 5);
    assert.deepEqual(w.sink.rx.drops, { rx_bad_chain: 1 });
    assert.equal(w.sink.rx.frames, 4);
  });
});

describe('segmentation of hostile headers', () => {
  it('whatever the bytes are: refused, or cut as the oracle does', () => {
    const outcomes = { cut: 0, refused: 0, dropped: 0 };
    const mutation = fc.array(fc.tuple(fc.nat({ max: 90 }), fc.nat({ max: 255 })), {
      maxLength: 3,
    });
    fc.assert(
      fc.property(
        anyPacket,
        mutation,
        fc.record({
          gso: fc.constantFrom(0, 0, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4),
          size: fc.oneof(fc.integer({ min: 1, max: 2000 }), fc.constantFrom(65534, 65535)),
          shift: fc.constantFrom(0, 0, 0, 0, -20, -4, 4, 8, 40),
          length: fc.oneof(fc.constant(1), fc.double({ min: 0, max: 1, noNaN: true })),
          csum: fc.boolean(),
          cuts: cutPlaces,
        }),
        (spec, bytes, { gso, size, shift, length, csum, cuts }) => {
          const made = packet({ ...spec, payload: Math.min(spec.payload, size * 40) });
          for (const [at, value] of bytes) made.bytes[12 + at] = value;
          const whole = made.bytes.length;
          const cutTo = length === 1 ? whole : Math.max(14, Math.floor(whole * length));
          const input = made.bytes.slice(0, cutTo);
          const kind = gso || made.header.gso;
          const start = Math.max(0, made.header.start + shift);
          const offset = kind === GSO_UDP_L4 ? 6 : 16;
          const w = world(BARE | (csum ? features(F_GUEST_CSUM) : 0n));
          w.sink.fill(100, 1600);
          sent(w, input, header({ flags: 1, gso: kind, gsoSize: size, start, offset }), cuts);
          const got = w.sink.take();
          w.sink.checkPosted();
          const legal = expectation(input, kind, start, size, csum);
          if (legal === undefined) {
            assert.deepEqual(got, []);
            const { tx_bad_header = 0, ...tx } = w.tx.drops;
            const { rx_bad_gso = 0, ...rx } = w.sink.rx.drops;
            assert.deepEqual([tx, rx], [{}, {}]);
            assert.equal(tx_bad_header + rx_bad_gso, 1);
            outcomes.dropped += tx_bad_header;
            outcomes.refused += rx_bad_gso;
          } else {
            assert.equal(got.length, legal.length);
            for (const [i, one] of got.entries()) {
              assert.equal(Buffer.compare(one.frame, legal[i]!), 0, `segment ${i}`);
              (csum ? verifyPartial : verify)(one.frame);
            }
            outcomes.cut++;
          }
        },
      ),
      { numRuns: 1500 },
    );
    for (const [what, times] of Object.entries(outcomes)) assert.ok(times > 10, what);
  });

  /** The segments of a frame that may be cut; undefined of one that may not. */
  function expectation(
    bytes: Uint8Array,
    kind: number,
    start: number,
    size: number,
    csum: boolean,
  ): Uint8Array[] | undefined {
    let taken: ReturnType<typeof dissect>;
    try {
      taken = dissect(bytes);
    } catch {
      return undefined;
    }
    const { link, version, ip, protocol, transport, payload } = taken;
    const tso = version === 4 ? GSO_TCPV4 : GSO_TCPV6;
    if (kind !== (protocol === 6 ? tso : GSO_UDP_L4)) return undefined;
    if (start !== link.length + ip.length || start + transport.length > 512) return undefined;
    if (ip.length + transport.length + Math.min(size, payload.length) > 65535) return undefined;
    return segment(bytes, size, csum);
  }

  const refused: [string, Partial<PacketSpec>, (made: Packet) => void][] = [
    ['an IPv4 fragment', {}, ({ bytes }) => bytes.set([0x20, 0], 20)],
    ['the rest of an IPv4 datagram', {}, ({ bytes }) => bytes.set([0, 1], 20)],
    ['IPv4 that says version 6', {}, ({ bytes }) => bytes.set([0x65], 14)],
    ['an IPv4 header of 16 bytes', {}, ({ bytes }) => bytes.set([0x44], 14)],
    ['UDP for TSO', {}, ({ bytes }) => bytes.set([17], 23)],
    ['a TCP header of 16 bytes', {}, ({ bytes }) => bytes.set([0x40], 46)],
    ['three tags', { tags: [0x8100, 0x8100] }, ({ bytes }) => bytes.set([0x81, 0], 20)],
    ['an unknown EtherType behind a tag', { tags: [0x8100] }, ({ bytes }) => bytes.set([9], 16)],
    [
      'a routing header on its way',
      { version: 6, extensions: [43] },
      ({ bytes }) => bytes.set([1], 57),
    ],
    ['an IPv6 fragment', { version: 6, extensions: [60] }, ({ bytes }) => bytes.set([44], 20)],
    [
      'extension headers past all measure',
      { version: 6, extensions: [60] },
      ({ bytes }) => bytes.set([60, 255], 54),
    ],
    ['csum_start elsewhere', {}, ({ header }) => Object.assign(header, { start: 38 })],
  ];
  for (const [what, change, spoil] of refused) {
    it(`${what} is rx_bad_gso`, () => {
      const made = packet({ ...PLAIN_TCP, ...change });
      spoil(made);
      const w = world(BARE);
      w.sink.fill(10);
      sent(w, made.bytes, header({ ...made.header, gsoSize: 1000 }));
      assert.deepEqual(w.sink.rx.drops, { rx_bad_gso: 1 });
      assert.deepEqual(w.tx.drops, {});
      w.sink.checkPosted();
    });
  }
});

describe('checksum completion', () => {
  it('is right over any range, into any buffers', () => {
    fc.assert(
      fc.property(
        fc.record({
          length: fc.oneof(fc.integer({ min: 16, max: 200 }), fc.integer({ min: 16, max: 65557 })),
          start: fc.oneof(fc.constantFrom(14, 15, 16, 34, 54), fc.nat({ max: 65535 })),
          offset: fc.oneof(fc.constantFrom(6, 16), fc.nat({ max: 65535 })),
          seed: fc.nat(),
          cuts: cutPlaces,
          posted: fc.oneof(fc.constant(60), fc.nat({ max: 20 })),
        }),
        anyReceiver.map((acked) => acked & BARE),
        anyShapes,
        ({ length, seed, cuts, posted, ...where }, acked, shapes) => {
          const start = Math.min(Math.max(where.start, 14), length - 2);
          const offset = Math.min(where.offset, length - 2 - start);
          const bytes = frame({ length, seed });
          const w = world(acked);
          postShapes(w.sink, shapes, posted, length + 12, true);
          sent(w, bytes, header({ flags: 1, start, offset }), cuts);
          const got = w.sink.take();
          w.sink.checkPosted();
          assert.deepEqual(w.tx.drops, {});
          assert.equal(got.length + (w.sink.rx.drops['rx_full'] ?? 0), 1);
          assert.equal(w.sink.rx.dropped, 1 - got.length);
          assert.equal(counted(w.sink, RING_SUMMED), got.length);
          for (const one of got) {
            assert.equal(Buffer.compare(one.frame, complete(bytes, start, offset)), 0);
            assert.deepEqual(told(one.header), new Uint8Array(10));
          }
        },
      ),
      { numRuns: 400 },
    );
  });

  it('of real packets is what the protocols ask for', () => {
    fc.assert(
      fc.property(anyPacket, anyShapes, cutPlaces, (spec, shapes, cuts) => {
        const { bytes, header: asked } = packet(spec);
        const w = world(BARE);
        postShapes(w.sink, shapes, 1000, bytes.length + 12, true);
        sent(w, bytes, header({ ...asked, gso: 0 }), cuts);
        verify(w.sink.take()[0]!.frame);
      }),
    );
  });

  it("UDP's 0 is stored as 0xffff, TCP's as 0", () => {
    for (const [offset, expected] of [
      [6, 0xffff],
      [16, 0],
    ] as const) {
      const bytes = new Uint8Array(100);
      fill(bytes, 9);
      bytes.set([0, 0], 60);
      const sum = checksum(bytes.slice(34));
      bytes.set([sum >> 8, sum & 255], 60);
      const w = world(BARE);
      w.sink.fill(1);
      sent(w, bytes, header({ flags: 1, start: 34, offset }));
      const got = w.sink.take()[0]!.frame;
      assert.equal(got[34 + offset]! * 256 + got[35 + offset]!, expected);
    }
  });
});
