// Races for a TX ring's chains and its other fields: those of a split ring, and of a packed one.

import { BROKEN_AVAIL_JUMP, BROKEN_ID } from '../../src/abi/layout.ts';
import { DESC_F_NEXT, DESC_F_WRITE, EVENT_F_DESC } from '../../src/abi/virtio.ts';
import { HEADER, SIZE } from './arena.ts';
import { arrival, type Flip, type Race } from './race.ts';
import { filled, frameOf, one, race, type Setting, SHORT, single } from './sending.ts';

export const SENT_SPLIT: readonly Race[] = [
  ...[0, DESC_F_WRITE].map((more) => {
    // With WRITE besides: what is wrong with the one value must not go on with the other's chain.
    const name = more === 0 ? 'flags, NEXT' : 'flags, NEXT and WRITE';
    return race(name, false, ['one', more === 0 ? 'two' : 'tx_writable'], (arena) => {
      const { tx, memory } = arena;
      const [a, c] = [frameOf(arena, 0xaa, SHORT), arena.put(0xcc, SHORT)];
      arena.descriptor(arena.at(tx, 0), a, HEADER + SHORT, 0, 1);
      arena.descriptor(arena.at(tx, 1), c, SHORT, 0, 0);
      memory.u16.fill(0, (tx.avail + 4) >>> 1, (tx.avail + 4) / 2 + SIZE);
      const b = DESC_F_NEXT | more;
      const flip: Flip = { places: [arena.at(tx, 0) + 12], width: 2, a: 0, b };
      const two = [arrival(Buffer.concat([filled(0xaa, SHORT), filled(0xcc, SHORT)]))];
      const outcomes: Setting['outcomes'] =
        more === 0 ? { one: one(0xaa), two } : { one: one(0xaa) };
      return { flip, outcomes, drops: more === 0 ? [] : ['tx_writable'] };
    });
  }),
  ...[2, SIZE].map((other) =>
    race(
      other < SIZE ? 'next' : 'next, one outside',
      false,
      ['b', other < SIZE ? 'c' : 'tx_bad_chain'],
      (arena) => {
        const { tx } = arena;
        const a = frameOf(arena, 0xaa, SHORT);
        arena.descriptor(arena.at(tx, 0), a, HEADER + SHORT, DESC_F_NEXT, 1);
        for (const [i, byte] of [0xbb, 0xcc].entries()) {
          arena.descriptor(arena.at(tx, 1 + i), arena.put(byte, SHORT), SHORT, 0, 0);
        }
        const flip: Flip = { places: [arena.at(tx, 0) + 14], width: 2, a: 1, b: other };
        const both = (byte: number) => [
          arrival(Buffer.concat([filled(0xaa, SHORT), filled(byte, SHORT)])),
        ];
        const outcomes: Setting['outcomes'] =
          other < SIZE ? { b: both(0xbb), c: both(0xcc) } : { b: both(0xbb) };
        return { flip, outcomes, drops: other < SIZE ? [] : ['tx_bad_chain'] };
      },
    ),
  ),
  race('avail entry', false, ['a', 'b'], (arena) => {
    const { tx } = arena;
    for (const [i, byte] of [0xaa, 0xbb].entries()) {
      arena.descriptor(arena.at(tx, i), frameOf(arena, byte, SHORT), HEADER + SHORT, 0, 0);
    }
    const places = Array.from({ length: SIZE }, (_, i) => tx.avail + 4 + i * 2);
    return {
      flip: { places, width: 2, a: 0, b: 1 },
      outcomes: { a: one(0xaa), b: one(0xbb) },
      used: (i, name) => arena.used(tx, i).id === (name === 'a' ? 0 : 1),
    };
  }),
  race('avail idx', false, ['2 frames', '5 frames'], (arena) => {
    const { tx } = arena;
    arena.descriptor(arena.at(tx, 0), frameOf(arena, 0xaa, SHORT), HEADER + SHORT, 0, 0);
    return {
      flip: { places: [tx.avail + 2], width: 2, a: 2, b: 5 },
      outcomes: { a: one(0xaa) },
      heads: -1,
      frames: [2, 5],
      // Back from 5 to 2 is a jump.
      latches: [BROKEN_AVAIL_JUMP],
    };
  }),
  race('avail idx, one a jump', false, ['5 frames', 'latched'], (arena) => {
    const { tx } = arena;
    arena.descriptor(arena.at(tx, 0), frameOf(arena, 0xaa, SHORT), HEADER + SHORT, 0, 0);
    return {
      flip: { places: [tx.avail + 2], width: 2, a: 5, b: 0x4000 },
      outcomes: { a: one(0xaa) },
      heads: -1,
      frames: [5],
      latches: [BROKEN_AVAIL_JUMP],
    };
  }),
  ...['used_event', 'used idx', 'avail_event'].map((field) =>
    race(field, false, ['a'], (arena) => {
      const { tx } = arena;
      arena.descriptor(arena.at(tx, 0), frameOf(arena, 0xaa, SHORT), HEADER + SHORT, 0, 0);
      const at = {
        used_event: tx.avail + 4 + SIZE * 2,
        'used idx': tx.usedRing + 2,
        avail_event: tx.usedRing + 4 + SIZE * 8,
      }[field]!;
      return { flip: { places: [at], width: 2, a: 3, b: 0xfff0 }, outcomes: { a: one(0xaa) } };
    }),
  ),
];

export const SENT_PACKED: readonly Race[] = [
  race('flags, NEXT', true, ['a', 'both'], (arena) => {
    const { tx } = arena;
    const { lap } = arena;
    const [a, c] = [frameOf(arena, 0xaa, SHORT), frameOf(arena, 0xcc, SHORT)];
    const refill = () => {
      for (let i = 0; i < SIZE; i++) {
        arena.descriptor(arena.at(tx, i), i & 1 ? c : a, HEADER + SHORT, lap, i);
      }
    };
    refill();
    const places = Array.from({ length: SIZE / 2 }, (_, i) => arena.at(tx, 2 * i) + 14);
    const joined = Buffer.concat([filled(0xaa, SHORT), Buffer.alloc(HEADER), filled(0xcc, SHORT)]);
    return {
      flip: { places, width: 2, a: lap, b: lap | DESC_F_NEXT },
      refill,
      outcomes: { a: one(0xaa), c: one(0xcc), both: [arrival(joined)] },
      // Seen with two values: a named drop, never a mix.
      drops: ['tx_bad_chain'],
    };
  }),
  race('id, one outside', true, ['a', 'latched'], (arena) => {
    const { places, refill } = single(arena, frameOf(arena, 0xaa, SHORT), HEADER + SHORT, 0);
    return {
      flip: { places: places(12), width: 2, a: 7, b: SIZE },
      refill,
      outcomes: { a: one(0xaa) },
      latches: [BROKEN_ID],
      // Flipped there as well: looked at once.
      used: (i) => [7, SIZE].includes(arena.used(arena.tx, i).id),
    };
  }),
  race('id', true, ['a'], (arena) => {
    const { tx } = arena;
    const { places, refill } = single(arena, frameOf(arena, 0xaa, SHORT), HEADER + SHORT, 0);
    return {
      flip: { places: places(12), width: 2, a: 7, b: 9 },
      refill,
      outcomes: { a: one(0xaa) },
      used: (i) => [7, 9].includes(arena.used(tx, i).id),
    };
  }),
  ...[0, 2].flatMap((offset) =>
    (['driver', 'device'] as const).map((whose) =>
      race(`${whose} event, ${offset === 0 ? 'off_wrap' : 'flags'}`, true, ['a'], (arena) => {
        const { tx } = arena;
        const { refill } = single(arena, frameOf(arena, 0xaa, SHORT), HEADER + SHORT, 0);
        const at = (whose === 'driver' ? tx.avail : tx.usedRing) + offset;
        arena.memory.u16[(tx.avail + 2) >>> 1] = EVENT_F_DESC;
        return { flip: { places: [at], width: 2, a: 2, b: 1 }, refill, outcomes: { a: one(0xaa) } };
      }),
    ),
  ),
];
