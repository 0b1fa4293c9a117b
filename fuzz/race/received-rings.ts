// Races for an RX ring's chains and its other fields: those of a split ring, and of a packed one.

import { BROKEN_AVAIL_JUMP } from '../../src/abi/layout.ts';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, EVENT_F_DESC } from '../../src/abi/virtio.ts';
import { HEADER, MixedRead, SIZE } from './arena.ts';
import { count, type Flip, type Race } from './race.ts';
import { AREA, fillOf, LENGTH, PART, places, race, single, UNTOUCHED, WHOLE } from './receiving.ts';

export const RECEIVED_SPLIT: readonly Race[] = [
  ...[false, true].map((table) =>
    race(`${table ? 'table ' : ''}flags, NEXT`, false, ['b', 'rx_too_small'], (arena) => {
      const { rx } = arena;
      const [a, b] = [arena.put(UNTOUCHED, AREA), arena.put(UNTOUCHED, AREA)];
      const at = table ? arena.put(0, 64) : arena.at(rx, 0);
      arena.descriptor(at, a, PART, DESC_F_WRITE, 1);
      arena.descriptor(at + 16, b, PART, DESC_F_WRITE, 0);
      if (table) arena.descriptor(arena.at(rx, 0), at, 32, DESC_F_INDIRECT, 0);
      const flip: Flip = {
        places: [at + 12],
        width: 2,
        a: DESC_F_WRITE,
        b: DESC_F_WRITE | DESC_F_NEXT,
      };
      return {
        flip,
        areas: [a, b],
        drops: ['rx_too_small'],
        judge: (_, seen) => {
          const first = fillOf(arena, a, HEADER, PART - HEADER);
          const rest = fillOf(arena, b, 0, WHOLE - PART);
          if (first !== rest) throw new MixedRead(`halves of frames ${first} and ${rest}`);
          if (rest !== 0) count(seen, 'b');
        },
      };
    }),
  ),
  race('avail entry', false, ['a', 'b'], (arena) => {
    const { rx } = arena;
    const areas = [arena.put(UNTOUCHED, AREA), arena.put(UNTOUCHED, AREA)];
    for (const [i, at] of areas.entries()) {
      arena.descriptor(arena.at(rx, i), at, WHOLE, DESC_F_WRITE, 0);
    }
    const entries = Array.from({ length: SIZE }, (_, i) => rx.avail + 4 + i * 2);
    return {
      flip: { places: entries, width: 2, a: 0, b: 1 },
      areas,
      judge: (chains, seen) => {
        // What lies in a buffer is the last frame whose used entry names it.
        const last = [0, 0];
        for (let i = 0; i < chains; i++) last[arena.used(rx, i).id] = 0x30 + i;
        for (const [i, at] of areas.entries()) {
          const fill = fillOf(arena, at, HEADER, LENGTH);
          if (fill !== last[i])
            throw new MixedRead(`buffer ${i} has ${fill}, named for ${last[i]}`);
          if (fill !== 0) count(seen, i === 0 ? 'a' : 'b');
        }
      },
    };
  }),
  race('avail idx, one a jump', false, ['4 buffers', 'latched'], (arena) => {
    const a = arena.put(UNTOUCHED, AREA);
    single(arena, a, WHOLE, DESC_F_WRITE);
    return {
      flip: { places: [arena.rx.avail + 2], width: 2, a: 4, b: 0x4000 },
      areas: [a],
      heads: -1,
      drops: ['rx_full', 'rx_down'],
      latches: [BROKEN_AVAIL_JUMP],
      judge: (chains, seen) => {
        if (chains !== 4) throw new MixedRead(`${chains} buffers taken`);
        count(seen, '4 buffers');
      },
    };
  }),
  race('avail idx', false, ['4 buffers', '9 buffers'], (arena) => {
    const a = arena.put(UNTOUCHED, AREA);
    single(arena, a, WHOLE, DESC_F_WRITE);
    return {
      flip: { places: [arena.rx.avail + 2], width: 2, a: 4, b: 9 },
      areas: [a],
      heads: -1,
      drops: ['rx_full', 'rx_down'],
      latches: [BROKEN_AVAIL_JUMP],
      judge: (chains, seen) => {
        if (chains !== 4 && chains !== 9) throw new MixedRead(`${chains} buffers taken`);
        count(seen, `${chains} buffers`);
      },
    };
  }),
];

export function receivedEvents(packed: boolean): Race[] {
  const names = packed
    ? ['driver', 'device'].flatMap((whose) => [`${whose} event, off_wrap`, `${whose} event, flags`])
    : ['used_event', 'used idx', 'avail_event'];
  return names.map((name, i) =>
    race(name, packed, ['a'], (arena) => {
      const { rx } = arena;
      const a = arena.put(UNTOUCHED, AREA);
      const { refill } = single(arena, a, WHOLE, DESC_F_WRITE);
      const split = [rx.avail + 4 + SIZE * 2, rx.usedRing + 2, rx.usedRing + 4 + SIZE * 8];
      const areas = [rx.avail, rx.avail + 2, rx.usedRing, rx.usedRing + 2];
      if (packed) arena.memory.u16[(rx.avail + 2) >>> 1] = EVENT_F_DESC;
      const at = (packed ? areas : split)[i]!;
      const flip: Flip = { places: [at], width: 2, a: packed ? 2 : 3, b: packed ? 1 : 0xfff0 };
      return { flip, refill, areas: [a], judge: places(arena, { a }) };
    }),
  );
}

export const RECEIVED_ID = race('id', true, ['a'], (arena) => {
  const { rx } = arena;
  const a = arena.put(UNTOUCHED, AREA);
  const { places: at, refill } = single(arena, a, WHOLE, DESC_F_WRITE);
  return {
    flip: { places: at(12), width: 2, a: 7, b: 9 },
    refill,
    areas: [a],
    judge: (chains, seen) => {
      for (let i = 0; i < chains; i++) {
        const { id } = arena.used(rx, i);
        if (id !== 7 && id !== 9 && id !== i) throw new MixedRead(`used slot ${i} names ${id}`);
      }
      places(arena, { a })(chains, seen, chains);
    },
  };
});

/** Slots in twos: one buffer of both, or two. */
export const RECEIVED_NEXT = race('flags, NEXT', true, ['single', 'both'], (arena) => {
  const { rx } = arena;
  const first = arena.put(UNTOUCHED, SIZE * AREA);
  const { refill } = single(arena, first, WHOLE, DESC_F_WRITE, true);
  const { lap } = arena;
  const heads = Array.from({ length: SIZE / 2 }, (_, i) => arena.at(rx, 2 * i) + 14);
  return {
    flip: { places: heads, width: 2, a: lap | DESC_F_WRITE, b: lap | DESC_F_WRITE | DESC_F_NEXT },
    refill,
    areas: Array.from({ length: SIZE }, (_, i) => first + i * AREA),
    // Seen with two values: a named drop, never a mix.
    drops: ['rx_full', 'rx_bad_chain'],
    judge: (chains, seen) => {
      let fills = 0;
      for (let i = 0; i < chains; i++) {
        if (fillOf(arena, first + i * AREA, HEADER, LENGTH) !== 0) fills++;
      }
      // A chain of two fits a frame in its first: the second stays untouched.
      count(seen, 'single', fills === chains ? 1 : 0);
      count(seen, 'both', fills < chains ? 1 : 0);
    },
  };
});
