// Races for the fields of descriptors to send, in a ring and in a table.

import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../src/abi/virtio.ts';
import { type Arena, HEADER } from './arena.ts';
import { arrival, type Flip, type Race } from './race.ts';
import {
  filled,
  frameOf,
  LONG,
  NOWHERE,
  one,
  race,
  type Setting,
  SHORT,
  single,
} from './sending.ts';

export function sentDescriptors(packed: boolean): Race[] {
  const flags = packed ? 14 : 12;
  return [
    race('addr', packed, ['a', 'b'], (arena) => {
      const [a, b] = [frameOf(arena, 0xaa, SHORT), frameOf(arena, 0xbb, SHORT)];
      const { places, refill } = single(arena, a, HEADER + SHORT, 0);
      const flip: Flip = { places: places(0), width: 4, a: arena.low(a), b: arena.low(b) };
      return { flip, refill, outcomes: { a: one(0xaa), b: one(0xbb) } };
    }),
    race('addr, one unmapped', packed, ['a', 'tx_bad_address'], (arena) => {
      const a = frameOf(arena, 0xaa, SHORT);
      const { places, refill } = single(arena, a, HEADER + SHORT, 0);
      const flip: Flip = { places: places(0), width: 4, a: arena.low(a), b: NOWHERE };
      return { flip, refill, outcomes: { a: one(0xaa) }, drops: ['tx_bad_address'] };
    }),
    race('len', packed, ['short', 'long'], (arena) => {
      const a = frameOf(arena, 0xaa, LONG);
      const { places, refill } = single(arena, a, HEADER + SHORT, 0);
      const flip: Flip = { places: places(8), width: 4, a: HEADER + SHORT, b: HEADER + LONG };
      return { flip, refill, outcomes: { short: one(0xaa), long: one(0xaa, LONG) } };
    }),
    race('len, one unmapped', packed, ['short', 'tx_bad_address'], (arena) => {
      const a = frameOf(arena, 0xaa, LONG);
      const { places, refill } = single(arena, a, HEADER + SHORT, 0);
      const flip: Flip = { places: places(8), width: 4, a: HEADER + SHORT, b: -16 };
      return { flip, refill, outcomes: { short: one(0xaa) }, drops: ['tx_bad_address'] };
    }),
    race('flags, WRITE', packed, ['a', 'tx_writable'], (arena) => {
      const a = frameOf(arena, 0xaa, SHORT);
      const { places, refill } = single(arena, a, HEADER + SHORT, 0);
      const { lap } = arena;
      const flip: Flip = { places: places(flags), width: 2, a: lap, b: lap | DESC_F_WRITE };
      return { flip, refill, outcomes: { a: one(0xaa) }, drops: ['tx_writable'] };
    }),
    race('flags, INDIRECT', packed, ['direct', 'table'], (arena) => {
      // Bytes that are a frame and a table: the header's flags and gso_type are 0, as is the low half of
      // the address that they hold.
      const b = frameOf(arena, 0xbb, SHORT);
      const table = arena.put(0, 128);
      arena.descriptor(table, b, HEADER + SHORT, 0, 0);
      const bytes = Buffer.from(arena.memory.u8.slice(table, table + 128));
      const { places, refill } = single(arena, table, 128, 0);
      const { lap } = arena;
      const flip: Flip = { places: places(flags), width: 2, a: lap, b: lap | DESC_F_INDIRECT };
      const direct = [arrival(bytes.subarray(HEADER), bytes)];
      // A packed table has as many descriptors as it is long: empty ones behind the first.
      return { flip, refill, outcomes: { direct, table: one(0xbb) } };
    }),
  ];
}

/** Fields of a table: it is copied once. */
export function sentTables(packed: boolean): Race[] {
  const flags = packed ? 14 : 12;
  const made = (
    name: string,
    wanted: string[],
    set: (arena: Arena, table: number) => Omit<Setting, 'refill'>,
    entries = 1,
  ): Race =>
    race(`table ${name}`, packed, wanted, (arena) => {
      const table = arena.put(0, 64);
      const { refill } = single(arena, table, entries * 16, DESC_F_INDIRECT);
      return { ...set(arena, table), refill };
    });
  const races = [
    made('addr', ['a', 'b'], (arena, table) => {
      const [a, b] = [frameOf(arena, 0xaa, SHORT), frameOf(arena, 0xbb, SHORT)];
      arena.descriptor(table, a, HEADER + SHORT, 0, 0);
      const flip: Flip = { places: [table], width: 4, a: arena.low(a), b: arena.low(b) };
      return { flip, outcomes: { a: one(0xaa), b: one(0xbb) } };
    }),
    made('len', ['short', 'long'], (arena, table) => {
      arena.descriptor(table, frameOf(arena, 0xaa, LONG), HEADER + SHORT, 0, 0);
      const flip: Flip = { places: [table + 8], width: 4, a: HEADER + SHORT, b: HEADER + LONG };
      return { flip, outcomes: { short: one(0xaa), long: one(0xaa, LONG) } };
    }),
    made('flags, WRITE', ['a', 'tx_writable'], (arena, table) => {
      arena.descriptor(table, frameOf(arena, 0xaa, SHORT), HEADER + SHORT, 0, 0);
      const flip: Flip = { places: [table + flags], width: 2, a: 0, b: DESC_F_WRITE };
      return { flip, outcomes: { a: one(0xaa) }, drops: ['tx_writable'] };
    }),
    made('flags, INDIRECT', ['a', 'tx_bad_indirect'], (arena, table) => {
      arena.descriptor(table, frameOf(arena, 0xaa, SHORT), HEADER + SHORT, 0, 0);
      const flip: Flip = { places: [table + flags], width: 2, a: 0, b: DESC_F_INDIRECT };
      return { flip, outcomes: { a: one(0xaa) }, drops: ['tx_bad_indirect'] };
    }),
  ];
  if (packed) return races;
  const chain = (arena: Arena, table: number, link: number) => {
    const a = frameOf(arena, 0xaa, SHORT);
    arena.descriptor(table, a, HEADER + SHORT, DESC_F_NEXT, link);
    for (const [i, byte] of [0xbb, 0xcc].entries()) {
      arena.descriptor(table + 16 + i * 16, arena.put(byte, SHORT), SHORT, 0, 0);
    }
  };
  const both = (byte: number) => [
    arrival(Buffer.concat([filled(0xaa, SHORT), filled(byte, SHORT)])),
  ];
  return [
    ...races,
    made(
      'flags, NEXT',
      ['one', 'two'],
      (arena, table) => {
        chain(arena, table, 1);
        const flip: Flip = { places: [table + 12], width: 2, a: 0, b: DESC_F_NEXT };
        return { flip, outcomes: { one: one(0xaa), two: both(0xbb) } };
      },
      3,
    ),
    made(
      'next',
      ['b', 'c'],
      (arena, table) => {
        chain(arena, table, 1);
        const flip: Flip = { places: [table + 14], width: 2, a: 1, b: 2 };
        return { flip, outcomes: { b: both(0xbb), c: both(0xcc) } };
      },
      3,
    ),
  ];
}
