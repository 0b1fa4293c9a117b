// A racing writer on every field that the sending side reads (CVE-2020-14375, DPDK 285e6b8b18,
// cloud-hypervisor#7530): whatever the datapath does, it does with one of the two values.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { it } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  DESC_F_AVAIL,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_USED,
  F_CSUM,
  F_GUEST_CSUM,
  F_HOST_TSO4,
  WRAP,
} from '../../src/abi/virtio.ts';
import { type Format, overRings } from '../datapath/formats.ts';
import { BROADCAST, concat, frame, header, place, Receiver } from '../datapath/frames.ts';
import type { Descriptor } from '../datapath/queue.ts';
import { later, PackedQueue } from '../datapath/queue-packed.ts';
import type { SplitQueue } from '../datapath/queue-split.ts';
import { features, PLAIN } from '../datapath/rig.ts';
import type { Flips } from './flipper.ts';
import { kick, rig } from './guard.ts';
import { MODERN, type World, world } from './sender.ts';

/** Bursts at least, and at most while one of the two values was not seen. */
const BURSTS = process.env['VHOP_LONG'] === '1' ? 100_000 : 10;
const MOST = 100_000;
const SIZE = 64;
/** Receive buffers a burst may take, and their length. */
const ROOM = [70, 300] as const;
const ADDR = 0;
const LEN = 8;
const ID = 12;
const SENDER = MODERN | features(F_CSUM, F_HOST_TSO4);

/** Two frames of the sender's, header in front, that differ in every byte that may. */
interface Buffers {
  a: number;
  b: number;
}

interface Case {
  what: string;
  /** Only on rings of this format. */
  only?: 'split' | 'packed';
  width: Flips['width'];
  values: (w: World, at: Buffers) => [bigint, bigint];
  /** The chain posted, and where the field is: in each posted descriptor, a table, a buffer. */
  chain: (w: World, at: Buffers) => Descriptor[];
  field: (w: World, at: Buffers, slot: number) => number;
  /** What may arrive, header in front; `dropped`: or nothing. */
  allowed: (at: Buffers) => Uint8Array[];
  dropped?: boolean;
}

const A = frame({ length: 200, seed: 1 });
const B = frame({ length: 200, seed: 2 });
const PLAIN_HEADER = header();

/** Bytes `from` on of the buffer that holds frame `which`. */
const part = (which: Uint8Array, from: number, len: number) =>
  concat(PLAIN_HEADER, which).subarray(from, from + len);

/** The indirect table of a case: laid out once a world. */
function table(w: World, entries: Descriptor[]): Descriptor {
  tableAt = w.tx.table(entries);
  return { addr: w.tx.port.gpa(tableAt), len: entries.length * 16, flags: DESC_F_INDIRECT };
}
let tableAt = 0;

const CASES: Case[] = [
  {
    what: 'address',
    width: 8,
    values: (w, { a, b }) => [w.tx.port.gpa(a), w.tx.port.gpa(b)],
    chain: (w, { a }) => [{ addr: w.tx.port.gpa(a), len: 212 }],
    field: (_w, _at, slot) => slot + ADDR,
    allowed: () => [A, B],
  },
  {
    what: 'address, of memory and of none',
    width: 8,
    values: (w, { a }) => [w.tx.port.gpa(a), 0x1000n],
    chain: (w, { a }) => [{ addr: w.tx.port.gpa(a), len: 212 }],
    field: (_w, _at, slot) => slot + ADDR,
    allowed: () => [A],
    dropped: true,
  },
  {
    what: 'length',
    width: 4,
    values: () => [76n, 212n],
    chain: (w, { a }) => [{ addr: w.tx.port.gpa(a), len: 212 }],
    field: (_w, _at, slot) => slot + LEN,
    allowed: () => [A.subarray(0, 64), A],
  },
  {
    what: 'length, where it is walked',
    width: 4,
    values: () => [20n, 100n],
    chain: (w, { a, b }) => [
      { addr: w.tx.port.gpa(a), len: 100, flags: DESC_F_NEXT, next: 1 },
      { addr: w.tx.port.gpa(b), len: 50 },
    ],
    field: (_w, _at, slot) => slot + LEN,
    allowed: () => [
      concat(part(A, 12, 8), part(B, 0, 50)),
      concat(part(A, 12, 88), part(B, 0, 50)),
    ],
  },
  {
    what: 'next',
    only: 'split',
    width: 2,
    values: () => [1n, 2n],
    chain: (w, { a, b }) => [
      { addr: w.tx.port.gpa(a), len: 40, flags: DESC_F_NEXT, next: 1 },
      { addr: w.tx.port.gpa(a), len: 30 },
      { addr: w.tx.port.gpa(b), len: 170 },
    ],
    field: (w) => w.tx.desc + 14,
    allowed: () => [
      concat(part(A, 12, 28), part(A, 0, 30)),
      concat(part(A, 12, 28), part(B, 0, 170)),
    ],
  },
  {
    what: 'next, in the table and past it',
    only: 'split',
    width: 2,
    values: () => [1n, 0xffffn],
    chain: (w, { a }) => [
      { addr: w.tx.port.gpa(a), len: 40, flags: DESC_F_NEXT, next: 1 },
      { addr: w.tx.port.gpa(a), len: 30 },
    ],
    field: (w) => w.tx.desc + 14,
    allowed: () => [concat(part(A, 12, 28), part(A, 0, 30))],
    dropped: true,
  },
  {
    what: 'head',
    only: 'split',
    width: 2,
    values: () => [0n, 1n],
    chain: (w, { a, b }) => [
      { addr: w.tx.port.gpa(a), len: 212 },
      { addr: w.tx.port.gpa(b), len: 112 },
    ],
    field: (w, _at, slot) => w.tx.avail + 4 + ((slot - w.tx.desc) / 16) * 2,
    allowed: () => [A, B.subarray(0, 100)],
  },
  {
    what: 'buffer id',
    only: 'packed',
    width: 2,
    values: () => [3n, 9n],
    chain: (w, { a }) => [{ addr: w.tx.port.gpa(a), len: 212, id: 3 }],
    field: (_w, _at, slot) => slot + ID,
    allowed: () => [A],
  },
  {
    what: 'address in an indirect table',
    width: 8,
    values: (w, { a, b }) => [w.tx.port.gpa(a), w.tx.port.gpa(b)],
    chain: (w, { a }) => [table(w, [{ addr: w.tx.port.gpa(a), len: 212 }])],
    field: () => tableAt + ADDR,
    allowed: () => [A, B],
  },
  {
    what: 'length in an indirect table',
    width: 4,
    values: () => [20n, 100n],
    chain: (w, { a, b }) => [
      table(w, [
        { addr: w.tx.port.gpa(a), len: 100, flags: DESC_F_NEXT, next: 1 },
        { addr: w.tx.port.gpa(b), len: 50 },
      ]),
    ],
    field: () => tableAt + LEN,
    allowed: () => [
      concat(part(A, 12, 8), part(B, 0, 50)),
      concat(part(A, 12, 88), part(B, 0, 50)),
    ],
  },
  {
    what: 'length of an indirect table',
    width: 4,
    values: () => [16n, 32n],
    chain: (w, { a, b }) => {
      const entries = [{ addr: w.tx.port.gpa(a), len: 100 }];
      // Of a split one the first entry ends the chain, whatever the table's length is.
      return [table(w, [...entries, { addr: w.tx.port.gpa(b), len: 50 }])];
    },
    field: (_w, _at, slot) => slot + LEN,
    allowed: () => [part(A, 12, 88), concat(part(A, 12, 88), part(B, 0, 50))],
  },
  {
    what: 'csum_start in the header',
    width: 2,
    values: () => [34n, 9000n],
    chain: (w, { a }) => {
      rig.bytes.set(header({ flags: 1, start: 34, offset: 16 }), a);
      return [{ addr: w.tx.port.gpa(a), len: 212 }];
    },
    field: (_w, { a }) => a + 6,
    allowed: () => [A],
    dropped: true,
  },
  {
    what: 'gso_size in the header',
    width: 2,
    values: () => [50n, 0n],
    chain: (w, { a }) => {
      rig.bytes.set(header({ flags: 1, gso: 1, gsoSize: 50, start: 34, offset: 16 }), a);
      rig.view.setUint16(a + 12 + 12, 0x0008, true);
      return [{ addr: w.tx.port.gpa(a), len: 212 }];
    },
    field: (_w, { a }) => a + 4,
    allowed: () => [ipv4(A)],
    dropped: true,
  },
];

/** The frame with an IPv4 EtherType. */
function ipv4(bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy.set([8, 0], 12);
  return copy;
}

/** Makes a ring full of the chain visible, whatever came back of the last one. */
function fill(w: World, chain: Descriptor[], lap: number): void {
  if (w.tx instanceof PackedQueue) {
    const { tx } = w;
    const chains = Math.floor(SIZE / chain.length);
    for (let i = 0; i < chains; i++) {
      for (const [k, each] of chain.entries()) {
        const position = later(WRAP, (lap * chains + i) * chain.length + k, SIZE);
        const flag = position & WRAP ? DESC_F_AVAIL : DESC_F_USED;
        const flags = (each.flags ?? 0) | flag;
        tx.descriptor(tx.at(position), { id: i, ...each, flags });
      }
    }
    return;
  }
  const tx = w.tx as SplitQueue;
  for (const [i, each] of chain.entries()) tx.descriptor(tx.desc + i * 16, each);
  for (let i = 0; i < SIZE; i++) tx.post(0);
  tx.publish();
}

/** Descriptors that hold the chain's first. */
function firsts(w: World, chain: Descriptor[]): number[] {
  if (!(w.tx instanceof PackedQueue)) return [w.tx.desc];
  const chains = Math.floor(SIZE / chain.length);
  return Array.from({ length: chains }, (_, i) => w.tx.desc + i * chain.length * 16);
}

async function race(w: World, each: Case, format: Format): Promise<void> {
  const at = { a: w.tx.port.alloc(512, 16), b: w.tx.port.alloc(512, 16) };
  rig.bytes.set(concat(PLAIN_HEADER, A), at.a);
  rig.bytes.set(concat(PLAIN_HEADER, B), at.b);
  const chain = each.chain(w, at);
  const slots = each.what === 'head' ? ringSlots(w) : firsts(w, chain);
  const fields = [...new Set(slots.map((slot) => each.field(w, at, slot)))];
  const sink = new Receiver(w.sink.rx.port.queue(0)).fill(...ROOM);
  const state = new SharedArrayBuffer(8);
  const flips: Flips = {
    memory: rig.control.memory.buffer as SharedArrayBuffer,
    fields,
    width: each.width,
    values: each.values(w, at),
    state,
  };
  const thread = new Worker(new URL('flipper.ts', import.meta.url), { workerData: flips });
  const seen = new Array<number>(each.allowed(at).length + 1).fill(0);
  const perBurst = format === 'packed' ? Math.floor(SIZE / chain.length) : SIZE;
  try {
    await once(thread, 'message');
    const enough = () => {
      const wanted = each.dropped ? seen : seen.slice(0, -1);
      // A split table ends with its first entry, and an id does not show in a frame.
      const shown = each.what === 'length of an indirect table' && format === 'split';
      return (shown ? wanted.slice(0, 1) : wanted).every((n) => n > 20);
    };
    for (let burst = 0; burst < BURSTS || (burst < MOST && !enough()); burst++) {
      fill(w, chain, burst);
      const before = w.tx.completed;
      const moved = rig.settle();
      assert.equal(moved, perBurst, `burst ${burst}`);
      const got = sink.take();
      for (const one of got) {
        const which = each.allowed(at).findIndex((bytes) => Buffer.compare(bytes, one.frame) === 0);
        assert.ok(which >= 0, `burst ${burst}: ${one.frame.length} bytes that are neither`);
        seen[which]!++;
        const start = new DataView(one.header.buffer, one.header.byteOffset).getUint16(6, true);
        assert.ok(start === 0 || start === 34, `csum_start ${start} went through`);
      }
      seen[seen.length - 1]! += perBurst - got.length;
      sink.fill(got.length, ROOM[1]);
      if (!(w.tx instanceof PackedQueue)) assert.equal(w.tx.completed - before, perBurst);
    }
    assert.ok(enough(), `${each.what}: ${seen}, ${new Int32Array(state)[1]} thousand flips`);
  } finally {
    Atomics.store(new Int32Array(state), 0, 1);
    await once(thread, 'exit');
  }
  if (!each.dropped) assert.deepEqual(w.tx.drops, {});
}

function ringSlots(w: World): number[] {
  return Array.from({ length: SIZE }, (_, i) => w.tx.desc + i * 16);
}

overRings(rig, ['split', 'packed'], 'a racing writer', (format) => {
  for (const each of CASES) {
    if (each.only !== undefined && each.only !== format) continue;
    it(`class 19: ${each.what}: one whole value or the other`, async () => {
      const w = world(SENDER, SIZE, PLAIN | features(F_GUEST_CSUM, 7));
      await race(w, each, format);
      assert.deepEqual(rig.latched, []);
    });
  }

  it('class 19: header and addresses rewritten between two receivers: both get what was checked', () => {
    for (const cuts of [[], [12], [5, 30]]) {
      const w = world(SENDER, SIZE, PLAIN | features(F_GUEST_CSUM));
      const spec = header({ flags: 1, start: 34, offset: 16 });
      const bytes = frame({ to: BROADCAST, length: 200, seed: 3 });
      const parts = place(w.tx, concat(spec, bytes), cuts);
      w.tx.add(parts);
      const second = new Receiver(rig.ports[2]!.queue(0)).fill(10);
      kick(w.tx);
      // Both receivers in one burst: the first is called before the second gets its copy.
      let calls = 0;
      rig.onCall = (ring) => {
        if (ring !== w.sink.rx.index) return;
        calls++;
        for (const { addr, len } of parts) {
          const at = w.tx.port.base + Number(addr - w.tx.port.gpa(w.tx.port.base));
          rig.bytes.fill(0xff, at, at + len);
        }
      };
      assert.equal(rig.settle(), 1);
      rig.onCall = () => {};
      assert.equal(calls, 1);
      for (const sink of [w.sink, second]) {
        const [got] = sink.take();
        assert.deepEqual(got?.header.subarray(0, 10), spec.subarray(0, 10));
        assert.deepEqual(got?.frame.subarray(0, 16), bytes.subarray(0, 16));
      }
      assert.equal(w.tx.used().length, 1);
    }
  });
});
