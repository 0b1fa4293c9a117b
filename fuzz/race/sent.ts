// Races for a TX ring: what leaves is what was checked.

import { BROKEN_AVAIL_JUMP, RING_FRAMES } from '../../src/abi/layout.ts';
import {
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  EVENT_F_DESC,
  F_GUEST_CSUM,
  F_GUEST_TSO4,
  F_MRG_RXBUF,
  F_VERSION_1,
  GSO_TCPV4,
  HDR_CSUM_OFFSET,
  HDR_CSUM_START,
  HDR_GSO_SIZE,
  HDR_GSO_TYPE,
  HDR_HDR_LEN,
} from '../../src/abi/virtio.ts';
import { header } from '../../test/datapath/frames.ts';
import { complete, segment } from '../../test/datapath/oracle.ts';
import { packet } from '../../test/datapath/packets.ts';
import { features } from '../../test/datapath/rig.ts';
import { type Arena, HEADER, MixedRead, SIZE } from './arena.ts';
import { arrival, count, Drops, type Flip, match, type Race, type Running } from './race.ts';

const NOTHING = features(F_VERSION_1, F_MRG_RXBUF);
const OFFLOADS = NOTHING | features(F_GUEST_CSUM, F_GUEST_TSO4);
/** No region of the hostile guest's. */
const NOWHERE = 0x7000_0000;
const SHORT = 100;
const LONG = 1000;

interface Setting {
  flip: Flip;
  /** Frames by outcome. */
  outcomes: Record<string, readonly Buffer[]>;
  drops?: string[];
  latches?: number[];
  /** Fills a packed ring, in which the device writes, again. */
  refill?(): void;
  /** Heads shown on a split ring; -1: the race is about them. */
  heads?: number;
  /** Frames that one round takes, where it is not told by `heads`. */
  frames?: number[];
  /** Judges used entry `i`, which is the frame's of outcome `name`. */
  used?(i: number, name: string): boolean;
}

function filled(byte: number, length: number): Buffer {
  return Buffer.alloc(length, byte);
}

/** A frame to send of one byte's fill behind an empty header. */
function frameOf(arena: Arena, byte: number, length: number): number {
  return arena.put(Buffer.concat([Buffer.alloc(HEADER), filled(byte, length)]));
}

function race(
  name: string,
  packed: boolean,
  wanted: string[],
  set: (arena: Arena) => Setting,
  peer = NOTHING,
): Race {
  const format = packed ? 'packed' : 'split';
  return {
    name: `${format} TX ${name}`,
    spec: { packed, peer },
    wanted,
    start: (arena) => running(arena, set(arena)),
  };
}

function running(arena: Arena, setting: Setting): Running {
  const { flip, outcomes, drops = [], latches = [], heads = SIZE } = setting;
  const { tx } = arena;
  const seen = new Map<string, number>();
  const ledger = new Drops(tx, drops);
  let taken = tx.get(RING_FRAMES);
  return {
    flip,
    queue: tx,
    drops,
    seen,
    round(set) {
      setting.refill?.();
      set?.();
      arena.restart(tx, heads);
      arena.settle(tx);
      const names: string[] = [];
      match(arena.received(), outcomes, (outcome) => names.push(outcome));
      for (const outcome of names) count(seen, outcome);
      const dropped = ledger.look(seen);
      const now = tx.get(RING_FRAMES);
      const frames = now - taken;
      taken = now;
      if (names.length + dropped !== frames) {
        throw new MixedRead(`${frames} taken, ${names.length} arrived, ${dropped} dropped`);
      }
      if (arena.latched !== 0) {
        if (!latches.includes(arena.latched)) throw new MixedRead(`latched: ${arena.latched}`);
        count(seen, 'latched');
        return;
      }
      if (setting.frames !== undefined) {
        if (!setting.frames.includes(frames)) throw new MixedRead(`${frames} frames taken`);
        count(seen, `${frames} frames`);
      } else if (!arena.packed && frames !== heads) {
        throw new MixedRead(`${frames} taken of ${heads} heads`);
      }
      if (setting.used === undefined) return;
      for (const [i, outcome] of names.entries()) {
        if (!setting.used(i, outcome)) {
          throw new MixedRead(`used entry ${i} names ${arena.used(tx, i).id}, sent was ${outcome}`);
        }
      }
    },
  };
}

/** Every chain is one descriptor, {buffer, length, flags}: head 0 of a split ring, every slot else. */
function single(arena: Arena, buffer: number, length: number, flags: number) {
  const { tx } = arena;
  const slots = arena.packed ? SIZE : 1;
  const fill = () => {
    for (let i = 0; i < slots; i++) {
      arena.descriptor(arena.at(tx, i), buffer, length, flags | arena.lap, 7);
    }
  };
  fill();
  const places = (offset: number) =>
    Array.from({ length: slots }, (_, i) => arena.at(tx, i) + offset);
  // Also where nothing else is a race: the device writes used entries over a packed ring's.
  return { places, refill: arena.packed ? fill : undefined };
}

function one(byte: number, length = SHORT): readonly Buffer[] {
  return [arrival(filled(byte, length))];
}

function descriptors(packed: boolean): Race[] {
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

const SPLIT: Race[] = [
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

const PACKED: Race[] = [
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
  race('id', true, ['a'], (arena) => {
    const { tx } = arena;
    const { places, refill } = single(arena, frameOf(arena, 0xaa, SHORT), HEADER + SHORT, 0);
    return {
      flip: { places: places(12), width: 2, a: 7, b: 0xfff8 },
      refill,
      outcomes: { a: one(0xaa) },
      used: (i) => [7, 0xfff8].includes(arena.used(tx, i).id),
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

/** Fields of a table: it is copied once. */
function tables(packed: boolean): Race[] {
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

const TCP = packet({
  tags: [],
  version: 4,
  options: 0,
  extensions: [],
  protocol: 6,
  tcpOptions: 0,
  flags: 0x18,
  payload: 900,
  seed: 5,
});

/** A field of the virtio header; `whole`: the receiver takes what the sender leaves. */
function headers(packed: boolean, whole: boolean): Race[] {
  const { start, offset } = TCP.header;
  const asked = { flags: 1, start, offset, gso: GSO_TCPV4, gsoSize: 400, hdrLen: TCP.headers };
  const made = (
    field: string,
    wanted: string[],
    how: { at: number; width: 1 | 2; a: number; b: number; base?: Partial<typeof asked> },
    drops: string[] = [],
  ): Race =>
    race(
      `header ${field}${whole ? ', passed on' : ''}`,
      packed,
      wanted,
      (arena) => {
        const first = header({ ...asked, ...how.base });
        const at = arena.put(Buffer.concat([first, TCP.bytes]));
        const { refill } = single(arena, at, HEADER + TCP.bytes.length, 0);
        const outcomes: Record<string, Buffer[]> = {};
        for (const value of [how.a, how.b]) {
          const name = `${field} ${value}`;
          if (!wanted.includes(name)) continue;
          const bytes = Buffer.from(first);
          if (how.width === 1) bytes[how.at] = value;
          else bytes.writeUInt16LE(value, how.at);
          outcomes[name] = whole ? [arrival(TCP.bytes, bytes)] : alone(bytes);
        }
        const flip: Flip = { places: [at + how.at], width: how.width, a: how.a, b: how.b };
        return { flip, refill, outcomes, drops };
      },
      whole ? OFFLOADS : NOTHING,
    );
  const both = (field: string, a: number, b: number) => [`${field} ${a}`, `${field} ${b}`];
  const summed = { gso: 0, gsoSize: 0 };
  const races = [
    made('flags', both('flags', 0, 1), { at: 0, width: 1, a: 0, b: 1, base: summed }),
    made('gso_type', both('gso_type', 0, GSO_TCPV4), {
      at: HDR_GSO_TYPE,
      width: 1,
      a: 0,
      b: GSO_TCPV4,
    }),
    made('gso_size', both('gso_size', 400, 300), { at: HDR_GSO_SIZE, width: 2, a: 400, b: 300 }),
    made('csum_start', both('csum_start', start, 20), {
      at: HDR_CSUM_START,
      width: 2,
      a: start,
      b: 20,
      base: summed,
    }),
    made('csum_offset', both('csum_offset', offset, 40), {
      at: HDR_CSUM_OFFSET,
      width: 2,
      a: offset,
      b: 40,
      base: summed,
    }),
  ];
  const past = ['tx_bad_header'];
  return [
    ...races,
    made(
      'csum_start past the end',
      [`csum_start past the end ${start}`, ...past],
      { at: HDR_CSUM_START, width: 2, a: start, b: 0xfff0, base: summed },
      past,
    ),
    made(
      'csum_offset past the end',
      [`csum_offset past the end ${offset}`, ...past],
      { at: HDR_CSUM_OFFSET, width: 2, a: offset, b: 0xfff0, base: summed },
      past,
    ),
    made(
      'gso_size of 0',
      ['gso_size of 0 400', ...past],
      { at: HDR_GSO_SIZE, width: 2, a: 400, b: 0 },
      past,
    ),
    made(
      'gso_type unknown',
      [`gso_type unknown ${GSO_TCPV4}`, ...past],
      { at: HDR_GSO_TYPE, width: 1, a: GSO_TCPV4, b: 0x7f },
      past,
    ),
    // Not used, and passed on as it was.
    ...(whole
      ? [
          made('hdr_len', both('hdr_len', 54, 0xffff), {
            at: HDR_HDR_LEN,
            width: 2,
            a: 54,
            b: 0xffff,
          }),
        ]
      : []),
  ];
}

/** What a receiver without offloads gets of TCP under this header. */
function alone(bytes: Buffer): Buffer[] {
  if (bytes[HDR_GSO_TYPE] !== 0) {
    return segment(TCP.bytes, bytes.readUInt16LE(HDR_GSO_SIZE)).map((frame) => arrival(frame));
  }
  // Without flags and gso_type the rest means nothing, and is passed on.
  if (bytes[0] === 0) return [arrival(TCP.bytes, bytes)];
  const start = bytes.readUInt16LE(HDR_CSUM_START);
  return [arrival(complete(TCP.bytes, start, bytes.readUInt16LE(HDR_CSUM_OFFSET)))];
}

export const SENT: readonly Race[] = [
  ...[false, true].flatMap((packed) => [
    ...descriptors(packed),
    ...(packed ? PACKED : SPLIT),
    ...tables(packed),
    ...headers(packed, false),
    ...headers(packed, true),
  ]),
];
