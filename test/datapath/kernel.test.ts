// The same frames through a Linux bridge: what the kernel makes of an offload for a TAP that has not
// got it is, to the byte, what the datapath makes of it.

import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  F_CSUM,
  F_GUEST_CSUM,
  F_HOST_TSO4,
  F_HOST_TSO6,
  F_HOST_USO,
  F_INDIRECT_DESC,
  F_MRG_RXBUF,
  F_VERSION_1,
} from '../../src/abi/virtio.ts';
import { requirePeers } from '../peers/process.ts';
import { openTaps, type Tap, TUN_F_CSUM } from '../peers/tap.ts';
import { header, Receiver, send } from './frames.ts';
import { anyPacket, type Packet, packet } from './packets.ts';
import { features, Rig } from './rig.ts';

const rig = new Rig();
const RING = features(F_VERSION_1, F_INDIRECT_DESC);
const SENDER = RING | features(F_CSUM, F_HOST_TSO4, F_HOST_TSO6, F_HOST_USO);
const BARE = RING | features(F_MRG_RXBUF);
/** The kernel may change where it says nothing: hdr_len. */
const told = (bytes: Uint8Array): number[] => [bytes[0]!, bytes[1]!, ...bytes.subarray(4, 10)];

type Result = { header: Uint8Array; frame: Uint8Array }[];

/** What ports without offloads, and with checksums only, get of a frame. */
function datapath({ bytes }: Packet, head: Uint8Array): Result[] {
  rig.clear();
  const tx = rig.port({ features: SENDER }).queue(1);
  const sinks = [BARE, BARE | features(F_GUEST_CSUM)].map((acked) =>
    new Receiver(rig.port({ features: acked }).queue(0, { size: 1024 })).fill(200),
  );
  send(tx, bytes, { header: head });
  tx.publish();
  rig.settle();
  assert.deepEqual(tx.drops, {});
  return sinks.map((sink) => {
    assert.deepEqual(sink.rx.drops, {});
    return sink.take();
  });
}

/** What the bridge gives to a TAP: as many frames as are expected, and no more. */
function received(tap: Tap, count: number): Result {
  const got: Result = [];
  const end = Date.now() + 10_000;
  while (got.length < count && Date.now() < end) {
    const one = tap.read();
    if (one) got.push(one);
  }
  assert.equal(tap.read(), undefined);
  return got;
}

test("segments and checksums are the kernel's, to the byte", async (t) => {
  if (!requirePeers(t, ['net'])) return;
  const { taps, close } = await openTaps(0, 0, TUN_F_CSUM);
  const [from, ...to] = taps;
  const seen = { whole: 0, cut: 0 };
  try {
    fc.assert(
      fc.property(
        anyPacket,
        fc.integer({ min: 60, max: 1400 }),
        fc.boolean(),
        (spec, size, gso) => {
          // No more segments than the kernel takes of UDP, nor longer frames than the bridge does.
          let payload = gso ? Math.min(spec.payload, size * 60) : spec.payload % 1200;
          // To judge whether there is more than one segment the kernel takes TCP's options for
          // payload, and then drops what is one after all.
          const options = spec.protocol === 6 ? spec.tcpOptions * 4 : 0;
          if (gso && payload <= size && payload + options > size) payload = size + 1;
          const made = packet({ ...spec, payload: Math.max(1, payload) });
          const asked = gso ? { ...made.header, gsoSize: size } : { ...made.header, gso: 0 };
          const ours = datapath(made, header(asked));
          from!.write(header({ ...asked, hdrLen: made.headers }), made.bytes);
          for (const [i, tap] of to.entries()) {
            const theirs = received(tap, ours[i]!.length);
            assert.equal(theirs.length, ours[i]!.length);
            for (const [k, one] of theirs.entries()) {
              assert.deepEqual(ours[i]![k]!.frame, one.frame, `frame ${k}`);
              assert.deepEqual(told(ours[i]![k]!.header), told(one.header), `header ${k}`);
            }
          }
          seen[ours[0]!.length > 1 ? 'cut' : 'whole']++;
        },
      ),
      { numRuns: 300 },
    );
    assert.ok(seen.cut > 30 && seen.whole > 30, JSON.stringify(seen));
  } finally {
    await close();
  }
});
