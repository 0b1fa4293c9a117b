// Chains a hostile guest may send. Each case names the counter it ends in; every head comes back, and
// an innocent port's traffic is what it would have been (checked each time).
//
// class 11  CVE-2018-1059
// class 12  CVE-2016-7422, OpenVMM#4047
// class 13  CVE-2016-6490, CVE-2020-10725, CVE-2019-14835
// class 14  CVE-2022-2132, CVE-2026-86566, CVE-2026-46320/46321
// class 15  DPDK 450539b47e, 6ec1778134, CVE-2020-14378, virtio-queue#236
// class 18  CVE-2011-2212, CVE-2026-93683, CVE-2026-86848, QEMU#3984
// class 21  CVE-2026-16457, OpenVMM#4045, cloud-hypervisor#7605, #8142

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { F_CSUM, F_GUEST_CSUM, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { BOTH, overRings } from '../datapath/formats.ts';
import { frame, header, send } from '../datapath/frames.ts';
import { features, gpaOf, PLAIN } from '../datapath/rig.ts';
import { rig } from './guard.ts';
import { ARENA, refuses, world } from './sender.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

overRings(rig, BOTH, 'hostile TX chains', () => {
  for (const len of [0, 1, 8, 15, 17, 1024 * 16 + 16, 0xffff_fff0, 0xffff_ffff]) {
    it(`class 18: an indirect table of ${len} bytes`, () => {
      const w = world();
      refuses('tx_bad_indirect', w, [{ addr: w.good, len, flags: INDIRECT }]);
    });
  }

  it('class 18: a table in a table', () => {
    const w = world();
    const inner = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76 }]));
    const outer = w.tx.port.gpa(w.tx.table([{ addr: inner, len: 16, flags: INDIRECT }]));
    refuses('tx_bad_indirect', w, [{ addr: outer, len: 16, flags: INDIRECT }]);
  });

  it('class 18: a table in the same table', () => {
    const w = world();
    const at = w.tx.table([{}]);
    w.tx.descriptor(at, { addr: w.tx.port.gpa(at), len: 16, flags: INDIRECT });
    refuses('tx_bad_indirect', w, [{ addr: w.tx.port.gpa(at), len: 16, flags: INDIRECT }]);
  });

  it('class 18: INDIRECT and NEXT', () => {
    const w = world();
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76 }]));
    refuses('tx_bad_indirect', w, [
      { addr: table, len: 16, flags: INDIRECT | NEXT, next: 1 },
      { addr: w.good, len: 76 },
    ]);
  });

  it('class 18: INDIRECT without the feature', () => {
    const w = world(features(F_VERSION_1));
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76 }]));
    refuses('tx_bad_indirect', w, [{ addr: table, len: 16, flags: INDIRECT }]);
  });

  it('class 18: WRITE on the indirect descriptor itself means nothing', () => {
    const w = world();
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76 }]));
    w.tx.addRaw([{ addr: table, len: 16, flags: INDIRECT | WRITE }]);
    w.tx.publish();
    rig.settle();
    assert.equal(w.sink.take().length, 1);
  });

  it('class 11: an indirect table outside of memory', () => {
    const w = world();
    refuses('tx_bad_address', w, [{ addr: 4096n, len: 16, flags: INDIRECT }]);
  });

  it('class 11: an indirect table whose end is outside of memory', () => {
    const w = world();
    const addr = gpaOf(0) + BigInt(ARENA - 16);
    w.tx.descriptor(rig.ports[0]!.base + ARENA - 16, { addr: w.good, len: 76 });
    refuses('tx_bad_address', w, [{ addr, len: 32, flags: INDIRECT }]);
  });

  it('class 21: WRITE on a buffer to send', () => {
    const w = world();
    refuses('tx_writable', w, [{ addr: w.good, len: 76, flags: WRITE }]);
  });

  it('class 21: WRITE on the second buffer', () => {
    const w = world();
    refuses('tx_writable', w, [
      { addr: w.good, len: 76, flags: NEXT, next: 1 },
      { addr: w.good, len: 76, flags: WRITE },
    ]);
  });

  for (const [n, what, addr, len] of [
    [11, '0', 0n, 76],
    [11, "another guest's memory", gpaOf(1), 76],
    [11, 'the byte before memory', gpaOf(0) - 1n, 76],
    [11, 'the end of memory', gpaOf(0) + BigInt(ARENA), 76],
    [11, '75 bytes before the end of memory', gpaOf(0) + BigInt(ARENA - 75), 76],
    [12, '2^64 - 1', (1n << 64n) - 1n, 76],
    [12, '2^64 - 76', (1n << 64n) - 76n, 76],
    [12, '2^64 less its length and a byte', (1n << 64n) - 77n, 76],
    [12, 'an address that is its own above 2^32', gpaOf(0) + (1n << 32n) * 7n, 76],
    [11, 'linear addresses', 0x400_0000n, 76],
    [11, 'the gap between two regions', gpaOf(0) + BigInt(ARENA), 76],
    [11, 'the last page, and past it', gpaOf(0) + BigInt(ARENA + 2 * 4096 - 75), 76],
  ] as const) {
    it(`class ${n}: a buffer at ${what}`, () => {
      const w = world();
      refuses('tx_bad_address', w, [{ addr, len, flags: 0 }]);
    });
    it(`class ${n}: a second buffer at ${what}`, () => {
      const w = world();
      refuses('tx_bad_address', w, [
        { addr: w.good, len: 76, flags: NEXT, next: 1 },
        { addr, len },
      ]);
    });
  }

  it('class 12: a length that wraps in 32 bits', () => {
    const w = world();
    refuses('tx_bad_address', w, [{ addr: w.good, len: 0xffff_ffff }]);
  });

  it('class 15: lengths that sum up to more than 2^32', () => {
    const w = world();
    const part = (next: number) => ({ addr: gpaOf(0), len: ARENA, flags: NEXT, next });
    const entries = Array.from({ length: 512 }, (_, i) => part(i + 1));
    entries.push({ addr: w.good, len: 76, flags: 0, next: 0 });
    const table = w.tx.port.gpa(w.tx.table(entries));
    // But for the last, 2^32 exactly.
    refuses('tx_too_long', w, [{ addr: table, len: entries.length * 16, flags: INDIRECT }]);
  });

  for (const len of [1, 11, 12, 13, 25]) {
    it(`class 14: ${len} bytes, header included`, () => {
      const w = world();
      refuses('tx_too_short', w, [{ addr: w.good, len }]);
    });
  }

  it('class 13: no byte at all', () => {
    const w = world();
    refuses('tx_too_short', w, [{ addr: w.good, len: 0 }]);
  });

  it('class 13: a zero length at an address outside of memory is skipped, not followed', () => {
    const w = world();
    refuses('tx_too_short', w, [{ addr: 0n, len: 0 }]);
  });

  it('class 14: one byte too many', () => {
    const w = world();
    refuses('tx_too_long', w, [{ addr: gpaOf(0), len: 65557 + 12 + 1 }]);
  });

  it('class 21: a bad chain keeps its reason after a burst of frames with offloads', () => {
    const w = world(features(F_VERSION_1, F_CSUM), 16, PLAIN | features(F_GUEST_CSUM));
    send(w.tx, frame({ length: 100 }), { header: header({ flags: 1, start: 34, offset: 60 }) });
    w.tx.publish();
    rig.settle();
    assert.equal(w.sink.take().length, 1);
    w.tx.used();
    w.tx.sortFree();
    refuses('tx_writable', w, [{ addr: w.good, len: 76, flags: WRITE }]);
  });
});
