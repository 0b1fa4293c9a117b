// virtio-net headers that ask for what was not negotiated, or cannot be: tx_bad_header.
//
// class 25  CVE-2024-11614, DPDK 7023f3e532, CVE-2026-100236

import assert from 'node:assert/strict';
import { it } from 'node:test';
import {
  F_CSUM,
  F_GUEST_CSUM,
  F_GUEST_TSO4,
  F_HOST_ECN,
  F_HOST_TSO4,
  F_HOST_USO,
  F_VERSION_1,
  GSO_ECN,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  GSO_UDP_L4,
} from '../../src/abi/virtio.ts';
import { BOTH, overRings } from '../datapath/formats.ts';
import { frame, type HeaderSpec, header, send } from '../datapath/frames.ts';
import { features, PLAIN } from '../datapath/rig.ts';
import { rig } from './guard.ts';
import { innocent, MODERN, world } from './sender.ts';

overRings(rig, BOTH, 'hostile virtio headers', () => {
  const TSO = features(F_VERSION_1, F_CSUM, F_HOST_TSO4);
  const tso: HeaderSpec = { flags: 1, gso: GSO_TCPV4, gsoSize: 1448, start: 34, offset: 16 };
  const USO = TSO | features(F_HOST_USO, F_HOST_ECN);
  const uso: HeaderSpec = { ...tso, gso: GSO_UDP_L4, offset: 6 };
  const cases: [string, bigint, HeaderSpec][] = [
    ['NEEDS_CSUM without CSUM', MODERN, { flags: 1, start: 34, offset: 16 }],
    ['csum_start past the end', TSO, { flags: 1, start: 200, offset: 0 }],
    ['csum_start at the last byte', TSO, { flags: 1, start: 199, offset: 0 }],
    ['csum_offset past the end', TSO, { flags: 1, start: 34, offset: 165 }],
    ['csum_start + csum_offset beyond 16 bits', TSO, { flags: 1, start: 0xffff, offset: 0xffff }],
    ['csum_start in the Ethernet header', TSO, { flags: 1, start: 13, offset: 16 }],
    ['GSO without NEEDS_CSUM', TSO, { ...tso, flags: 0 }],
    ['gso_size 0', TSO, { ...tso, gsoSize: 0 }],
    ['TSO4 not negotiated', features(F_VERSION_1, F_CSUM), tso],
    ['TSO6 not negotiated', TSO, { ...tso, gso: GSO_TCPV6 }],
    ['ECN not negotiated', TSO, { ...tso, gso: GSO_TCPV4 | GSO_ECN }],
    ['ECN alone', TSO, { ...tso, gso: GSO_ECN }],
    ['UFO, never offered', TSO, { ...tso, gso: GSO_UDP, offset: 6 }],
    ['USO not negotiated', TSO, { ...tso, gso: GSO_UDP_L4, offset: 6 }],
    ['USO with ECN', USO, { ...uso, gso: GSO_UDP_L4 | GSO_ECN }],
    ['USO with the checksum elsewhere', USO, { ...uso, offset: 16 }],
    ["UDP's header past the end", USO, { ...uso, start: 193 }],
    ['USO without NEEDS_CSUM', USO, { ...uso, flags: 0 }],
    ['gso_type 2, which is none', TSO, { ...tso, gso: 2 }],
    ['gso_type 0x7f, which is none', TSO, { ...tso, gso: 0x7f }],
    ['TSO with the checksum elsewhere', TSO, { ...tso, offset: 6 }],
    ["TCP's header past the end", TSO, { ...tso, start: 181 }],
  ];
  for (const [what, acked, spec] of cases) {
    it(`class 25: ${what}`, () => {
      const w = world(acked);
      const bytes = frame({ length: 200, type: 0x0800 });
      send(w.tx, bytes, { header: header(spec) });
      send(w.tx, bytes, { header: header(spec), cuts: [7, 20] });
      w.tx.publish();
      rig.settle();
      assert.deepEqual(w.tx.drops, { tx_bad_header: 2 });
      assert.equal(w.tx.used().length, 2);
      innocent(w, false);
    });
  }

  it('class 25: TSO4 on what is not IPv4', () => {
    const w = world(TSO);
    send(w.tx, frame({ length: 200, type: 0x86dd }), { header: header(tso) });
    w.tx.publish();
    rig.settle();
    assert.deepEqual(w.tx.drops, { tx_bad_header: 1 });
  });

  it('class 25: what the cases above start from passes', () => {
    const w = world(TSO, 16, PLAIN | features(F_GUEST_CSUM, F_GUEST_TSO4));
    send(w.tx, frame({ length: 200, type: 0x0800 }), { header: header(tso) });
    send(w.tx, frame({ length: 200 }), { header: header({ flags: 1, start: 34, offset: 164 }) });
    send(w.tx, frame({ length: 200 }), { header: header({ flags: 1, start: 14, offset: 184 }) });
    w.tx.publish();
    rig.settle();
    assert.deepEqual(w.tx.drops, {});
    assert.equal(w.sink.take().length, 3);
  });

  /** A TSO frame whose headers end at its last byte but for `payload`; then what is wrong with it. */
  const headers: [string, number, (bytes: Uint8Array) => void][] = [
    ["TCP's header longer than the frame", 0, (bytes) => bytes.set([0xf0], 46)],
    ["TCP's header a byte longer than the frame", 19, (bytes) => bytes.set([0xa0], 46)],
    ["TCP's header shorter than it can be", 100, (bytes) => bytes.set([0x40], 46)],
    ["TCP's header of nothing", 100, (bytes) => bytes.set([0x00], 46)],
    ["IPv4's header longer than the frame", 0, (bytes) => bytes.set([0x4f], 14)],
    ["IPv4's header shorter than it can be", 100, (bytes) => bytes.set([0x44], 14)],
    ['a fragment', 100, (bytes) => bytes.set([0x20], 20)],
  ];
  for (const [what, payload, spoil] of headers) {
    it(`class 25: to be segmented here, ${what}: dropped, nothing written`, () => {
      const w = world(TSO);
      const bytes = frame({ length: 54 + payload, type: 0x0800 });
      bytes.fill(0, 14);
      bytes.set([0x45], 14);
      bytes.set([6], 23);
      bytes.set([0x50], 46);
      spoil(bytes);
      for (const gsoSize of [1, 10, 1448, 0xffff]) {
        for (const cuts of [[], [12], [20, 60]]) {
          send(w.tx, bytes, { header: header({ ...tso, gsoSize }), cuts });
          w.tx.publish();
          assert.equal(rig.settle(), 1);
          assert.equal(w.tx.used().length, 1);
        }
      }
      assert.deepEqual(w.sink.rx.drops, { rx_bad_gso: 12 });
      assert.deepEqual(w.sink.take(), []);
      w.sink.checkPosted();
      innocent(w, false);
    });
  }
});
