// Fields that a racing writer flips between two values, and what may come of it (ring-flip.test.ts).

import { DESC_F_INDIRECT, DESC_F_NEXT } from '../../src/abi/virtio.ts';
import { concat, frame, header } from '../datapath/frames.ts';
import type { Descriptor } from '../datapath/queue.ts';
import type { Flips } from './flipper.ts';
import { rig } from './guard.ts';
import type { World } from './sender.ts';

// Offsets in a descriptor.
const ADDR = 0;
const LEN = 8;
const ID = 12;

/** Two frames of the sender's, header in front, that differ in every byte that may. */
export interface Buffers {
  a: number;
  b: number;
}

export interface Case {
  what: string;
  /** Only on rings of this format. */
  only?: 'split' | 'packed';
  width: Flips['width'];
  values: (w: World, at: Buffers) => [bigint, bigint];
  /** The chain posted, and where the field is: in each posted descriptor, a table, a buffer. */
  chain: (w: World, at: Buffers) => Descriptor[];
  field: (w: World, at: Buffers, slot: number) => number;
  /** What may arrive, header in front; `dropped`: or nothing. */
  allowed: () => Uint8Array[];
  dropped?: boolean;
}

export const A = frame({ length: 200, seed: 1 });
export const B = frame({ length: 200, seed: 2 });
export const PLAIN_HEADER = header();

/** Bytes `from` on of the buffer that holds frame `which`. */
const part = (which: Uint8Array, from: number, len: number) =>
  concat(PLAIN_HEADER, which).subarray(from, from + len);

/** The indirect table of a case: laid out once a world. */
function table(w: World, entries: Descriptor[]): Descriptor {
  tableAt = w.tx.table(entries);
  return { addr: w.tx.port.gpa(tableAt), len: entries.length * 16, flags: DESC_F_INDIRECT };
}
let tableAt = 0;

export const CASES: Case[] = [
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
