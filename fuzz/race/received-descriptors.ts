// Races for the fields of descriptors to receive into, in a ring and in a table.

import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../src/abi/virtio.ts';
import { ARENA } from '../../test/datapath/rig.ts';
import { type Arena, HEADER, MixedRead, SIZE } from './arena.ts';
import { count, describe, type Flip, type Race } from './race.ts';
import {
  AREA,
  fillOf,
  NOWHERE,
  PART,
  places,
  race,
  type Setting,
  single,
  UNTOUCHED,
  WHOLE,
} from './receiving.ts';

/** Both kinds: directly in the ring, or in a table that all chains share. */
export function receivedDescriptors(packed: boolean, table: boolean): Race[] {
  const flags = packed ? 14 : 12;
  const made = (
    name: string,
    wanted: string[],
    set: (arena: Arena, field: (offset: number) => number[], buffer: number) => Setting,
  ): Race =>
    race(`${table ? 'table ' : ''}${name}`, packed, wanted, (arena) => {
      const buffer = arena.put(UNTOUCHED, AREA);
      if (!table) {
        const ring = single(arena, buffer, WHOLE, DESC_F_WRITE);
        return { refill: ring.refill, ...set(arena, ring.places, buffer) };
      }
      const at = arena.put(0, 64);
      arena.descriptor(at, buffer, WHOLE, DESC_F_WRITE, 0);
      const ring = single(arena, at, 16, DESC_F_INDIRECT);
      return { refill: ring.refill, ...set(arena, (offset) => [at + offset], buffer) };
    });
  const lap = (arena: Arena) => (table ? 0 : arena.lap);
  return [
    made('addr', ['a', 'b'], (arena, field, a) => {
      const b = arena.put(UNTOUCHED, AREA);
      const flip: Flip = { places: field(0), width: 4, a: arena.low(a), b: arena.low(b) };
      return { flip, areas: [a, b], judge: places(arena, { a, b }) };
    }),
    made('addr, one unmapped', ['a', 'rx_bad_chain'], (arena, field, a) => {
      const flip: Flip = { places: field(0), width: 4, a: arena.low(a), b: NOWHERE };
      return { flip, areas: [a], drops: ['rx_bad_chain'], judge: places(arena, { a }) };
    }),
    made('len', ['a', 'rx_too_small'], (arena, field, a) => {
      const flip: Flip = { places: field(8), width: 4, a: WHOLE, b: PART };
      return { flip, areas: [a], drops: ['rx_too_small'], judge: places(arena, { a }) };
    }),
    made('len, one unmapped', ['a', 'rx_bad_chain'], (arena, field, a) => {
      const flip: Flip = { places: field(8), width: 4, a: WHOLE, b: -16 };
      return { flip, areas: [a], drops: ['rx_bad_chain'], judge: places(arena, { a }) };
    }),
    made('len, at the end of a region', ['rx_too_small', 'rx_bad_chain'], (arena, field, a) => {
      // Too small, or not mapped: never taken.
      const end = arena.port.base + ARENA - PART;
      const flip: Flip = { places: field(8), width: 4, a: PART, b: WHOLE };
      const move = () => {
        for (const at of field(0)) arena.memory.u32[at >>> 2] = arena.low(end);
      };
      return {
        flip,
        move,
        areas: [a],
        drops: ['rx_too_small', 'rx_bad_chain'],
        judge: (_, __, delivered) => {
          if (delivered > 0) throw new MixedRead(`${delivered} frames delivered past the end`);
        },
      };
    }),
    made('flags, WRITE', ['a', 'rx_bad_chain'], (arena, field, a) => {
      const [on, off] = [lap(arena) | DESC_F_WRITE, lap(arena)];
      const flip: Flip = { places: field(flags), width: 2, a: on, b: off };
      return { flip, areas: [a], drops: ['rx_bad_chain'], judge: places(arena, { a }) };
    }),
  ];
}

/** Buffers of either length, each its own: frames over as many as they need. */
export function receivedMerged(packed: boolean): Race {
  return race(
    'len, mergeable',
    packed,
    ['1 buffer', '2 buffers'],
    (arena) => {
      const first = arena.put(UNTOUCHED, SIZE * AREA);
      const { places, refill } = single(arena, first, WHOLE, DESC_F_WRITE, true);
      return {
        flip: { places: places(8), width: 4, a: WHOLE, b: PART },
        areas: Array.from({ length: SIZE }, (_, i) => first + i * AREA),
        refill,
        drops: ['rx_full'],
        judge: (chains, seen) => judgeMerged(arena, first, chains, seen),
      };
    },
    true,
  );
}

function judgeMerged(arena: Arena, first: number, chains: number, seen: Map<string, number>): void {
  const { u8 } = arena.memory;
  for (let i = 0; i < chains; ) {
    const buffers = u8[first + i * AREA + 10]! | (u8[first + i * AREA + 11]! << 8);
    let left = WHOLE;
    for (let k = 0; k < buffers; k++, i++) {
      const at = first + i * AREA;
      // The length is flipped in a packed ring's used slots as well.
      const here = arena.packed ? written(u8, at) : arena.used(arena.rx, i).length;
      const full = here === WHOLE || here === PART;
      if (k + 1 < buffers ? !full : here !== left) throw new MixedRead(`${here} of ${left} bytes`);
      const bytes = u8.subarray(at + (k === 0 ? HEADER : 0), at + here);
      if (bytes.some((byte) => byte !== bytes[0]) || written(u8, at) !== here) {
        throw new MixedRead(`written: ${describe(u8.subarray(at, at + AREA))}`);
      }
      left -= here;
    }
    if (left !== 0 || buffers === 0) throw new MixedRead(`${buffers} buffers, ${left} bytes lost`);
    count(seen, `${buffers} buffer${buffers > 1 ? 's' : ''}`);
  }
}

/** Bytes of an area up to the first that was not written. */
function written(u8: Uint8Array, at: number): number {
  const end = u8.subarray(at, at + AREA).indexOf(UNTOUCHED);
  for (let i = end; i < AREA; i++) {
    if (u8[at + i] !== UNTOUCHED) throw new MixedRead(`byte ${i} written behind byte ${end}`);
  }
  return end;
}

/** A chain of two: the rest of the frame in one of two buffers. */
export function receivedNext(table: boolean): Race {
  return race(`${table ? 'table ' : ''}next`, false, ['b', 'c'], (arena) => {
    const { rx } = arena;
    const [a, b, c] = [0, 0, 0].map(() => arena.put(UNTOUCHED, AREA)) as [number, number, number];
    const at = table ? arena.put(0, 64) : arena.at(rx, 0);
    arena.descriptor(at, a, PART, DESC_F_WRITE | DESC_F_NEXT, 1);
    for (const [i, buffer] of [b, c].entries()) {
      arena.descriptor(at + 16 + i * 16, buffer, PART, DESC_F_WRITE, 0);
    }
    if (table) arena.descriptor(arena.at(rx, 0), at, 48, DESC_F_INDIRECT, 0);
    return {
      flip: { places: [at + 14], width: 2, a: 1, b: 2 },
      areas: [a, b, c],
      judge: (_, seen) => {
        fillOf(arena, a, HEADER, PART - HEADER);
        for (const [name, buffer] of [
          ['b', b],
          ['c', c],
        ] as const) {
          if (fillOf(arena, buffer, 0, WHOLE - PART) !== 0) count(seen, name);
        }
      },
    };
  });
}
