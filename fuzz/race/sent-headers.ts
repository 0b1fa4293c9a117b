// Races for the virtio header of a frame to send.

import {
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
import { HEADER } from './arena.ts';
import { arrival, type Flip, type Race } from './race.ts';
import { NOTHING, OFFLOADS, race, single } from './sending.ts';

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
export function sentHeaders(packed: boolean, whole: boolean): Race[] {
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
