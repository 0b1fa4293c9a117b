// Frames up to the longest there is, and the receiver's MTU.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MAX_FRAME } from '../../src/abi/layout.ts';
import { F_INDIRECT_DESC, F_MRG_RXBUF, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { frame, mac, Receiver, send } from './frames.ts';
import { features, Rig } from './rig.ts';

const rig = new Rig();
const WHOLE = features(F_VERSION_1, F_INDIRECT_DESC);
const MERGEABLE = WHOLE | features(F_MRG_RXBUF);
/** Ethernet header; with one VLAN tag. */
const ETHERNET = 14;
const TAGGED = 18;

/** What guests post, header included: how a driver without MRG_RXBUF and one with it go about it. */
const SHAPES: { what: string; accepts: bigint; buffer: number[]; count: number }[] = [
  { what: 'one buffer', accepts: WHOLE, buffer: [12 + MAX_FRAME], count: 4 },
  { what: 'a chain of pages', accepts: WHOLE, buffer: [12, ...Array(17).fill(4096)], count: 4 },
  { what: 'merged buffers of 1526', accepts: MERGEABLE, buffer: [1526], count: 200 },
  { what: 'merged pages', accepts: MERGEABLE, buffer: [4096], count: 80 },
  { what: 'a mergeable buffer that takes all', accepts: MERGEABLE, buffer: [0x11000], count: 4 },
];

function world(accepts: bigint, mtu?: number) {
  rig.clear();
  const a = rig.port({ features: MERGEABLE });
  // As NetDevice publishes it (test/virtio/setup.test.ts).
  const b = rig.port({ features: accepts, maxFrame: mtu === undefined ? 0 : mtu + TAGGED });
  rig.wire(a, b);
  const [tx, back] = [a.queue(1), new Receiver(a.queue(0))];
  return { tx, back, rx: new Receiver(b.queue(0)), reply: b.queue(1) };
}

function tagged(length: number): Uint8Array {
  return frame({ length, type: 0x8100 });
}

describe('jumbo frames', () => {
  for (const { what, accepts, buffer, count } of SHAPES) {
    for (const mtu of [undefined, 65535]) {
      it(`arrive in ${what}, MTU ${mtu ?? 'not limited'}`, () => {
        const { tx, rx } = world(accepts, mtu);
        const longest = 65535 + ETHERNET;
        const sent = [
          frame({ length: 9000 + ETHERNET }),
          tagged(9000 + TAGGED),
          frame({ length: longest - 1 }),
          frame({ length: longest }),
          tagged(65535 + TAGGED),
        ];
        for (const bytes of sent) {
          for (let i = 0; i < count && rx.post(buffer) >= 0; i++);
          rx.rx.publish();
          // In one piece, and as Linux sends a large frame: header, then pages.
          for (const cuts of [[], Array.from({ length: 16 }, (_, i) => 12 + i * 4096)]) {
            send(tx, bytes, { cuts, inner: 0 });
            tx.publish();
            rig.settle();
            assert.deepEqual([tx.drops, rx.rx.drops], [{}, {}]);
            assert.deepEqual(
              rx.take().map((got) => got.frame),
              [bytes],
            );
            tx.used();
          }
        }
        rx.checkPosted();
      });
    }
  }

  it('of 64 KiB and two VLAN tags are the longest there is', () => {
    const { tx, rx } = world(WHOLE);
    for (let i = 0; i < 2; i++) rx.post([12 + MAX_FRAME + 1]);
    rx.rx.publish();
    for (const length of [MAX_FRAME, MAX_FRAME + 1]) send(tx, frame({ length }));
    tx.publish();
    rig.settle();
    assert.equal(rx.take()[0]?.frame.length, MAX_FRAME);
    assert.deepEqual(tx.drops, { tx_too_long: 1 });
  });

  it('pass both ways between ports of unequal MTU as far as each takes them', () => {
    const { tx, rx, back, reply } = world(MERGEABLE, 9000);
    for (const end of [rx, back]) end.fill(200);
    const [fits, exceeds] = [9000 + ETHERNET, 20_000];
    for (const length of [fits, exceeds]) {
      send(tx, frame({ length }));
      send(reply, frame({ length, from: mac(2), to: mac(1) }));
    }
    tx.publish();
    reply.publish();
    rig.settle();
    const lengths = (end: Receiver) => end.take().map((got) => got.frame.length);
    assert.deepEqual([lengths(rx), lengths(back)], [[fits], [fits, exceeds]]);
    assert.deepEqual([rx.rx.drops, back.rx.drops], [{ rx_mtu: 1 }, {}]);
  });
});

describe("the receiver's MTU", () => {
  for (const mtu of [68, 1500, 9000, 65534]) {
    for (const { what, accepts, buffer, count } of SHAPES.filter(({ accepts, count }) =>
      accepts === MERGEABLE ? count === 80 : count === 4,
    )) {
      // One limit for both: an untagged frame has the tag's 4 bytes to spare.
      it(`${mtu} is a limit to the byte with a VLAN tag, in ${what}`, () => {
        const { tx, rx } = world(accepts, mtu);
        for (let i = 0; i < count && rx.post(buffer) >= 0; i++);
        rx.rx.publish();
        const taken = [frame({ length: mtu + ETHERNET }), tagged(mtu + TAGGED)];
        for (const bytes of taken) send(tx, bytes);
        send(tx, tagged(mtu + TAGGED + 1));
        send(tx, frame({ length: mtu + TAGGED + 1 }));
        tx.publish();
        rig.settle();
        assert.deepEqual(
          rx.take().map((got) => got.frame),
          taken,
        );
        assert.deepEqual([tx.drops, rx.rx.drops], [{}, { rx_mtu: 2 }]);
        // A drop takes none of the receiver's buffers.
        rx.checkPosted();
      });
    }
  }
});
