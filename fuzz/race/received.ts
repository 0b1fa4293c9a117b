// Races for an RX ring: a frame is written whole into one value's buffers, and nowhere else.

import { BROKEN_AVAIL_JUMP } from '../../src/abi/layout.ts';
import {
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  EVENT_F_DESC,
  F_MRG_RXBUF,
  F_VERSION_1,
  WRAP,
} from '../../src/abi/virtio.ts';
import { header } from '../../test/datapath/frames.ts';
import { ARENA, features } from '../../test/datapath/rig.ts';
import { type Arena, HEADER, MixedRead, SIZE } from './arena.ts';
import { count, Drops, describe, type Flip, type Race, type Running } from './race.ts';

/** Frames of a round, each of one byte's fill. */
const FRAMES = 16;
const LENGTH = 200;
const WHOLE = HEADER + LENGTH;
const PART = 112;
const UNTOUCHED = 0xc7;
const NOWHERE = 0x7000_0000;
const AREA = 512;

const SAMPLES = Array.from({ length: FRAMES }, (_, i) => ({
  header: header(),
  frame: Buffer.alloc(LENGTH, 0x30 + i),
}));

interface Setting {
  flip: Flip;
  drops?: string[];
  latches?: number[];
  /** Writes the ring again, of a packed one all of it; then what is peculiar to this race. */
  refill?(): void;
  move?(): void;
  heads?: number;
  /** Areas that buffers begin at, AREA bytes each; UNTOUCHED before a round. */
  areas: number[];
  /** Judges the areas after `chains` were used and so many frames delivered; throws MixedRead. */
  judge(chains: number, seen: Map<string, number>, delivered: number): void;
}

function race(
  name: string,
  packed: boolean,
  wanted: string[],
  set: (arena: Arena) => Setting,
  mergeable = false,
): Race {
  return {
    name: `${packed ? 'packed' : 'split'} RX ${name}`,
    spec: {
      packed,
      mergeable,
      peer: features(F_VERSION_1, F_MRG_RXBUF),
      samples: SAMPLES,
    },
    wanted,
    start: (arena) => running(arena, set(arena)),
  };
}

function running(arena: Arena, setting: Setting): Running {
  const { flip, drops = [], latches = [], heads = SIZE, areas } = setting;
  const { rx, peer, memory } = arena;
  const seen = new Map<string, number>();
  const ledger = new Drops(rx, drops);
  let { frames } = rx;
  return {
    flip,
    queue: rx,
    drops,
    seen,
    round(set) {
      for (const at of areas) memory.u8.fill(UNTOUCHED, at, at + AREA);
      setting.refill?.();
      setting.move?.();
      set?.();
      arena.restart(rx, heads);
      for (let i = 0; i < FRAMES; i++) peer.send(i);
      peer.publish();
      arena.settle(rx);
      if (peer.returned() !== FRAMES) throw new MixedRead('a frame did not come back');
      const delivered = rx.frames - frames;
      ({ frames } = rx);
      const dropped = ledger.look(seen);
      if (delivered + dropped !== FRAMES) {
        throw new MixedRead(`${delivered} delivered and ${dropped} dropped of ${FRAMES}`);
      }
      if (arena.latched !== 0) {
        if (!latches.includes(arena.latched)) throw new MixedRead(`latched: ${arena.latched}`);
        count(seen, 'latched');
        return;
      }
      // A packed ring begins with the wrap counter set: without it, all were used.
      const lapped = arena.packed && (arena.reached & WRAP) === 0;
      setting.judge(lapped ? SIZE : arena.reached & (WRAP - 1), seen, delivered);
    },
  };
}

/** Every buffer is one descriptor: the same for all heads, or, `apart`, each its own. */
function single(arena: Arena, buffer: number, length: number, flags: number, apart = false) {
  const { rx, memory } = arena;
  const slots = arena.packed || apart ? SIZE : 1;
  const fill = () => {
    for (let i = 0; i < slots; i++) {
      const at = apart ? buffer + i * AREA : buffer;
      arena.descriptor(arena.at(rx, i), at, length, flags | arena.lap, i);
      if (apart && !arena.packed) memory.u16[(rx.avail + 4 + i * 2) >>> 1] = i;
    }
  };
  fill();
  const places = (offset: number) =>
    Array.from({ length: slots }, (_, i) => arena.at(rx, i) + offset);
  return { places, refill: arena.packed ? fill : undefined };
}

/** The fill of what was written at `at`: 0 for nothing; throws unless it is one frame's, whole. */
function fillOf(arena: Arena, at: number, skip: number, length: number): number {
  const bytes = arena.memory.u8.subarray(at, at + AREA);
  const first = bytes[skip]!;
  const fine = bytes.every((byte, i) => {
    if (first === UNTOUCHED || i >= skip + length) return byte === UNTOUCHED;
    if (i < skip) return byte === (i === 10 ? 1 : 0);
    return byte === first;
  });
  if (!fine) throw new MixedRead(`written: ${describe(bytes)}`);
  return first === UNTOUCHED ? 0 : first;
}

/** Frames lie one over the other in two places: each is whole, or untouched. */
function places(arena: Arena, areas: Record<string, number>): Setting['judge'] {
  return (_, seen, delivered) => {
    const names = Object.keys(areas).filter(
      (name) => fillOf(arena, areas[name]!, HEADER, LENGTH) !== 0,
    );
    for (const name of names) count(seen, name);
    if (delivered > 0 && names.length === 0) throw new MixedRead('delivered to another place');
  };
}

/** Both kinds: directly in the ring, or in a table that all chains share. */
function fields(packed: boolean, table: boolean): Race[] {
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
function merged(packed: boolean): Race {
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
function chained(table: boolean): Race {
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

const SPLIT: Race[] = [
  chained(false),
  chained(true),
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

function events(packed: boolean): Race[] {
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

const PACKED_ID = race('id', true, ['a'], (arena) => {
  const { rx } = arena;
  const a = arena.put(UNTOUCHED, AREA);
  const { places: at, refill } = single(arena, a, WHOLE, DESC_F_WRITE);
  return {
    flip: { places: at(12), width: 2, a: 7, b: 0xfff8 },
    refill,
    areas: [a],
    judge: (chains, seen) => {
      for (let i = 0; i < chains; i++) {
        const { id } = arena.used(rx, i);
        if (id !== 7 && id !== 0xfff8 && id !== i)
          throw new MixedRead(`used slot ${i} names ${id}`);
      }
      places(arena, { a })(chains, seen, chains);
    },
  };
});

/** Slots in twos: one buffer of both, or two. */
const PACKED_NEXT = race('flags, NEXT', true, ['single', 'both'], (arena) => {
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

export const RECEIVED: readonly Race[] = [
  ...[false, true].flatMap((packed) => [
    ...fields(packed, false),
    ...fields(packed, true),
    merged(packed),
    ...(packed ? [PACKED_NEXT, PACKED_ID] : SPLIT),
    ...events(packed),
  ]),
];
