// What a hostile guest may send. Each case names the counter it ends in; every head comes back, or
// the ring is latched; an innocent port's traffic is what it would have been (checked each time).

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  BROKEN_AVAIL_JUMP,
  BROKEN_HEAD,
  RING_BROKEN,
  RING_REASON,
  RING_STATE,
} from '../../src/abi/layout.ts';
import {
  F_CSUM,
  F_EVENT_IDX,
  F_GUEST_CSUM,
  F_GUEST_TSO4,
  F_HOST_TSO4,
  F_INDIRECT_DESC,
  F_VERSION_1,
  GSO_ECN,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  GSO_UDP_L4,
} from '../../src/abi/virtio.ts';
import { frame, type HeaderSpec, header, mac, Receiver, send } from './frames.ts';
import type { Descriptor, TestQueue } from './queue.ts';
import { ARENA, features, gpaOf, PLAIN, Rig } from './rig.ts';

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const rig = new Rig();

interface World {
  tx: TestQueue;
  sink: Receiver;
  /** A good buffer of 76 bytes: header and frame. */
  good: bigint;
}

const MODERN = features(F_VERSION_1, F_INDIRECT_DESC, F_EVENT_IDX);

function world(acked = MODERN, size = 16, others = PLAIN): World {
  rig.clear();
  const bad = rig.port({ features: acked });
  const [victim, other] = [rig.port({ features: others }), rig.port({ features: others })];
  const tx = bad.queue(1, { size });
  bad.queue(0, { size });
  const sink = new Receiver(victim.queue(0)).fill(100);
  victim.queue(1);
  other.queue(1);
  new Receiver(other.queue(0)).fill(100);
  const at = bad.alloc(4096);
  rig.bytes.set(header(), at);
  rig.bytes.set(frame({ length: 4000 }), at + bad.headerLength);
  return { tx, sink, good: bad.gpa(at) };
}

/** Innocent frames still pass, from another port and, unless it is latched, from this one. */
function innocent({ tx, sink }: World, latched: boolean): void {
  const other = rig.ports[2]!.queues[1]!;
  const bytes = frame({ from: mac(3), to: mac(9) });
  const before = sink.take().length;
  assert.equal(before, 0, 'nothing of the bad guest arrived');
  send(other, bytes);
  other.publish();
  if (!latched && tx.free > 0) {
    send(tx, bytes);
    tx.publish();
  }
  rig.settle();
  const expected = latched || tx.free === 0 ? [bytes] : [bytes, bytes];
  assert.deepEqual(
    sink.take().map((got) => got.frame),
    expected,
  );
  assert.equal(other.used().length, 1);
}

/** One chain of these descriptors costs one frame, under `reason`. */
function refuses(reason: string, made: World, descriptors: Descriptor[], times = 3): void {
  for (let i = 1; i <= times; i++) {
    made.tx.addRaw(descriptors, 0);
    made.tx.publish();
    assert.equal(rig.settle(), 1);
    assert.deepEqual(made.tx.drops, { [reason]: i });
    assert.deepEqual(
      made.tx.used().map(({ len }) => len),
      [0],
    );
    // The next round takes the same descriptors again.
    made.tx.sortFree();
  }
  assert.deepEqual(rig.latched, []);
  innocent(made, false);
}

describe('hostile TX chains', () => {
  it('a chain that loops on itself', () => {
    const w = world();
    refuses('tx_bad_chain', w, [{ addr: w.good, len: 1, flags: NEXT, next: 0 }]);
  });

  it('a chain that loops after some descriptors', () => {
    const w = world();
    refuses('tx_bad_chain', w, [
      { addr: w.good, len: 76, flags: NEXT, next: 1 },
      { addr: w.good, len: 1, flags: NEXT, next: 2 },
      { addr: w.good, len: 0, flags: NEXT, next: 1 },
    ]);
  });

  it('a loop in a ring of 32768', () => {
    const w = world(MODERN, 32768);
    // Without empty descriptors scratch would run out first, and hide the loop.
    refuses('tx_bad_chain', w, [{ addr: w.good, len: 0, flags: NEXT, next: 0 }]);
  });

  it('a chain of 1025 descriptors, and not of 1024: walks are short on the longest ring', () => {
    const w = world(MODERN, 32768);
    const entries = (n: number) =>
      Array.from({ length: n }, (_, i) => ({
        addr: w.good + BigInt(i),
        len: 1,
        flags: i + 1 < n ? NEXT : 0,
        next: i + 1,
      }));
    w.tx.addRaw(entries(1024));
    w.tx.publish();
    rig.settle();
    assert.equal(w.sink.take()[0]?.frame.length, 1012);
    w.tx.used();
    refuses('tx_bad_chain', w, entries(1025), 1);
  });

  for (const next of [16, 17, 0x7fff, 0xffff]) {
    it(`next ${next} on a ring of 16`, () => {
      const w = world();
      refuses('tx_bad_chain', w, [{ addr: w.good, len: 76, flags: NEXT, next }]);
    });
  }

  it('next outside of an indirect table', () => {
    const w = world();
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76, flags: NEXT, next: 1 }]));
    refuses('tx_bad_chain', w, [{ addr: table, len: 16, flags: INDIRECT }]);
  });

  it('a loop in an indirect table', () => {
    const w = world();
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 0, flags: NEXT, next: 0 }]));
    refuses('tx_bad_chain', w, [{ addr: table, len: 16, flags: INDIRECT }]);
  });

  for (const len of [0, 1, 8, 15, 17, 1024 * 16 + 16, 0xffff_fff0, 0xffff_ffff]) {
    it(`an indirect table of ${len} bytes`, () => {
      const w = world();
      refuses('tx_bad_indirect', w, [{ addr: w.good, len, flags: INDIRECT }]);
    });
  }

  it('a table in a table', () => {
    const w = world();
    const inner = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76 }]));
    const outer = w.tx.port.gpa(w.tx.table([{ addr: inner, len: 16, flags: INDIRECT }]));
    refuses('tx_bad_indirect', w, [{ addr: outer, len: 16, flags: INDIRECT }]);
  });

  it('a table in the same table', () => {
    const w = world();
    const at = w.tx.table([{}]);
    w.tx.descriptor(at, { addr: w.tx.port.gpa(at), len: 16, flags: INDIRECT });
    refuses('tx_bad_indirect', w, [{ addr: w.tx.port.gpa(at), len: 16, flags: INDIRECT }]);
  });

  it('INDIRECT and NEXT', () => {
    const w = world();
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76 }]));
    refuses('tx_bad_indirect', w, [
      { addr: table, len: 16, flags: INDIRECT | NEXT, next: 1 },
      { addr: w.good, len: 76 },
    ]);
  });

  it('INDIRECT without the feature', () => {
    const w = world(features(F_VERSION_1));
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76 }]));
    refuses('tx_bad_indirect', w, [{ addr: table, len: 16, flags: INDIRECT }]);
  });

  it('WRITE on the indirect descriptor itself means nothing', () => {
    const w = world();
    const table = w.tx.port.gpa(w.tx.table([{ addr: w.good, len: 76 }]));
    w.tx.addRaw([{ addr: table, len: 16, flags: INDIRECT | WRITE }]);
    w.tx.publish();
    rig.settle();
    assert.equal(w.sink.take().length, 1);
  });

  it('an indirect table outside of memory', () => {
    const w = world();
    refuses('tx_bad_address', w, [{ addr: 4096n, len: 16, flags: INDIRECT }]);
  });

  it('an indirect table whose end is outside of memory', () => {
    const w = world();
    const addr = gpaOf(0) + BigInt(ARENA - 16);
    w.tx.descriptor(rig.ports[0]!.base + ARENA - 16, { addr: w.good, len: 76 });
    refuses('tx_bad_address', w, [{ addr, len: 32, flags: INDIRECT }]);
  });

  it('WRITE on a buffer to send', () => {
    const w = world();
    refuses('tx_writable', w, [{ addr: w.good, len: 76, flags: WRITE }]);
  });

  it('WRITE on the second buffer', () => {
    const w = world();
    refuses('tx_writable', w, [
      { addr: w.good, len: 76, flags: NEXT, next: 1 },
      { addr: w.good, len: 76, flags: WRITE },
    ]);
  });

  for (const [what, addr, len] of [
    ['0', 0n, 76],
    ["another guest's memory", gpaOf(1), 76],
    ['the byte before memory', gpaOf(0) - 1n, 76],
    ['the end of memory', gpaOf(0) + BigInt(ARENA), 76],
    ['75 bytes before the end of memory', gpaOf(0) + BigInt(ARENA - 75), 76],
    ['2^64 - 1', (1n << 64n) - 1n, 76],
    ['2^64 - 76', (1n << 64n) - 76n, 76],
    ['linear addresses', 0x400_0000n, 76],
  ] as const) {
    it(`a buffer at ${what}`, () => {
      const w = world();
      refuses('tx_bad_address', w, [{ addr, len, flags: 0 }]);
    });
    it(`a second buffer at ${what}`, () => {
      const w = world();
      refuses('tx_bad_address', w, [
        { addr: w.good, len: 76, flags: NEXT, next: 1 },
        { addr, len },
      ]);
    });
  }

  it('a length that wraps in 32 bits', () => {
    const w = world();
    refuses('tx_bad_address', w, [{ addr: w.good, len: 0xffff_ffff }]);
  });

  it('lengths that sum up to more than 2^32', () => {
    const w = world();
    const part = (next: number) => ({ addr: gpaOf(0), len: ARENA, flags: NEXT, next });
    const entries = Array.from({ length: 200 }, (_, i) => part(i + 1));
    entries.push({ addr: w.good, len: 76, flags: 0, next: 0 });
    const table = w.tx.port.gpa(w.tx.table(entries));
    refuses('tx_too_long', w, [{ addr: table, len: entries.length * 16, flags: INDIRECT }]);
  });

  for (const len of [1, 11, 12, 13, 25]) {
    it(`${len} bytes, header included`, () => {
      const w = world();
      refuses('tx_too_short', w, [{ addr: w.good, len }]);
    });
  }

  it('no byte at all', () => {
    const w = world();
    refuses('tx_too_short', w, [{ addr: w.good, len: 0 }]);
  });

  it('a zero length at an address outside of memory is skipped, not followed', () => {
    const w = world();
    refuses('tx_too_short', w, [{ addr: 0n, len: 0 }]);
  });

  it('one byte too many', () => {
    const w = world();
    refuses('tx_too_long', w, [{ addr: gpaOf(0), len: 65557 + 12 + 1 }]);
  });

  it('a bad chain keeps its reason after a burst of frames with offloads', () => {
    const w = world(features(F_VERSION_1, F_CSUM), 16, PLAIN | features(F_GUEST_CSUM));
    send(w.tx, frame({ length: 100 }), { header: header({ flags: 1, start: 34, offset: 60 }) });
    w.tx.publish();
    rig.settle();
    assert.equal(w.sink.take().length, 1);
    w.tx.used();
    w.tx.sortFree();
    refuses('tx_bad_chain', w, [{ addr: w.good, len: 76, flags: NEXT, next: 99 }]);
  });
});

describe('hostile TX rings', () => {
  function latches(w: World, reason: number): void {
    rig.settle();
    assert.equal(w.tx.get(RING_STATE), RING_BROKEN);
    assert.equal(w.tx.get(RING_REASON), reason);
    assert.deepEqual(rig.latched, [w.tx.index]);
    // Latched is latched: nothing more is read or written, whatever the guest does.
    const used = w.tx.usedIdx;
    const frames = w.tx.frames;
    send(w.tx, frame());
    w.tx.publish();
    rig.publish();
    rig.settle();
    assert.equal(w.tx.usedIdx, used);
    assert.equal(w.tx.frames, frames);
    assert.equal(rig.latched.length, 1);
    innocent(w, true);
  }

  for (const head of [16, 17, 0x8000, 0xffff]) {
    it(`head ${head} on a ring of 16 latches it`, () => {
      const w = world();
      w.tx.post(head);
      w.tx.publish();
      latches(w, BROKEN_HEAD);
    });
  }

  it('a bad head behind good ones latches the ring before any of them is used', () => {
    const w = world();
    for (let i = 0; i < 5; i++) send(w.tx, frame());
    w.tx.post(99);
    w.tx.publish();
    latches(w, BROKEN_HEAD);
    assert.equal(w.tx.usedIdx, 0);
  });

  for (const jump of [17, 18, 31, 32, 64, 0x7fff, 0x8000, 0xffff]) {
    it(`avail.idx ${jump} ahead on a ring of 16 latches it`, () => {
      const w = world();
      w.tx.publish(jump);
      latches(w, BROKEN_AVAIL_JUMP);
    });
  }

  it('avail.idx moved back latches the ring', () => {
    const w = world();
    send(w.tx, frame());
    w.tx.publish();
    rig.settle();
    w.sink.take();
    w.tx.publish(0);
    latches(w, BROKEN_AVAIL_JUMP);
  });

  it('one head posted many times at once comes back as often', () => {
    const w = world();
    w.tx.addRaw([{ addr: w.good, len: 76 }]);
    for (let i = 0; i < 15; i++) w.tx.post(0);
    w.tx.publish();
    assert.equal(rig.settle(), 16);
    assert.equal(w.tx.usedIdx, 16);
    assert.equal(w.sink.take().length, 16);
  });
});

describe('hostile virtio headers', () => {
  const TSO = features(F_VERSION_1, F_CSUM, F_HOST_TSO4);
  const tso: HeaderSpec = { flags: 1, gso: GSO_TCPV4, gsoSize: 1448, start: 34, offset: 16 };
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
    ['USO, never offered', TSO, { ...tso, gso: GSO_UDP_L4, offset: 6 }],
    ['gso_type 2, which is none', TSO, { ...tso, gso: 2 }],
    ['gso_type 0x7f, which is none', TSO, { ...tso, gso: 0x7f }],
    ['TSO with the checksum elsewhere', TSO, { ...tso, offset: 6 }],
    ["TCP's header past the end", TSO, { ...tso, start: 181 }],
  ];
  for (const [what, acked, spec] of cases) {
    it(what, () => {
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

  it('TSO4 on what is not IPv4', () => {
    const w = world(TSO);
    send(w.tx, frame({ length: 200, type: 0x86dd }), { header: header(tso) });
    w.tx.publish();
    rig.settle();
    assert.deepEqual(w.tx.drops, { tx_bad_header: 1 });
  });

  it('what the cases above start from passes', () => {
    const w = world(TSO, 16, PLAIN | features(F_GUEST_CSUM, F_GUEST_TSO4));
    send(w.tx, frame({ length: 200, type: 0x0800 }), { header: header(tso) });
    send(w.tx, frame({ length: 200 }), { header: header({ flags: 1, start: 34, offset: 164 }) });
    send(w.tx, frame({ length: 200 }), { header: header({ flags: 1, start: 14, offset: 184 }) });
    w.tx.publish();
    rig.settle();
    assert.deepEqual(w.tx.drops, {});
    assert.equal(w.sink.take().length, 3);
  });
});
