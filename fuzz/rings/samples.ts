// The frames the guests of a world send: plain, odd, and such as are to be summed or segmented.

import * as V from '../../src/abi/virtio.ts';
import { BROADCAST, frame, header, mac } from '../../test/datapath/frames.ts';
import { packet } from '../../test/datapath/packets.ts';
import type { Sample } from './honest.ts';

/** Port `n` of a world has the address mac(n + 1). */
const TO = { hostile: mac(1), peer: mac(2), other: mac(3) };

function plain(to: Uint8Array, from: Uint8Array, length: number): Sample {
  const bytes = frame({ to, from, length });
  // Below 0x80 all of it: SECRET must not come up by chance.
  for (let i = 14; i < length; i++) bytes[i]! &= 0x7f;
  return { header: header(), frame: bytes };
}

/** TCP or UDP over IP, the checksum left to do; `size` 0: not to be segmented. */
function offloaded(
  to: Uint8Array,
  from: Uint8Array,
  how: { version: 4 | 6; protocol: 6 | 17; payload: number; size: number; tags?: number[] },
): Sample {
  const { version, protocol, payload, size } = how;
  const made = packet({
    tags: how.tags ?? [],
    version,
    options: 0,
    extensions: [],
    protocol,
    tcpOptions: 0,
    flags: 0x18,
    payload,
    seed: payload,
    to,
  });
  made.bytes.set(from, 6);
  for (let i = made.headers; i < made.bytes.length; i++) made.bytes[i]! &= 0x7f;
  const { start, offset, gso } = made.header;
  return {
    header: header({
      flags: V.HDR_F_NEEDS_CSUM,
      start,
      offset,
      gso: size > 0 ? gso : V.GSO_NONE,
      gsoSize: size,
      hdrLen: made.headers,
    }),
    frame: made.bytes,
  };
}

/** What the hostile guest sends where it was not mutated; the last four are long. */
export const HOSTILE: readonly Sample[] = [
  ...[14, 15, 30, 60, 64, 200, 590, 1514].map((length) => plain(TO.peer, TO.hostile, length)),
  plain(BROADCAST, TO.hostile, 60),
  plain(TO.other, TO.hostile, 60),
  plain(mac(77), TO.hostile, 60),
  plain(TO.hostile, TO.hostile, 60),
  plain(TO.peer, BROADCAST, 60),
  offloaded(TO.peer, TO.hostile, { version: 4, protocol: 6, payload: 300, size: 0 }),
  offloaded(TO.peer, TO.hostile, { version: 6, protocol: 17, payload: 301, size: 0 }),
  offloaded(TO.peer, TO.hostile, { version: 4, protocol: 6, payload: 1200, size: 400 }),
  offloaded(TO.peer, TO.hostile, { version: 6, protocol: 6, payload: 1201, size: 536 }),
  offloaded(TO.peer, TO.hostile, { version: 4, protocol: 17, payload: 1000, size: 333 }),
  offloaded(TO.peer, TO.hostile, {
    version: 4,
    protocol: 6,
    payload: 1100,
    size: 500,
    tags: [0x8100],
  }),
  plain(TO.peer, TO.hostile, 9014),
  plain(TO.peer, TO.hostile, 65557),
  offloaded(TO.peer, TO.hostile, { version: 4, protocol: 6, payload: 60000, size: 1448 }),
  offloaded(TO.peer, TO.hostile, { version: 6, protocol: 17, payload: 30000, size: 1448 }),
];
export const LONG = 4;

/** What its peer sends to it; the first PLAIN of them need nothing negotiated. */
export const PEER: readonly Sample[] = [
  ...[14, 60, 64, 590, 1514].map((length) => plain(TO.hostile, TO.peer, length)),
  plain(BROADCAST, TO.peer, 60),
  offloaded(TO.hostile, TO.peer, { version: 4, protocol: 6, payload: 300, size: 0 }),
  offloaded(TO.hostile, TO.peer, { version: 4, protocol: 6, payload: 1200, size: 300 }),
  offloaded(TO.hostile, TO.peer, { version: 6, protocol: 17, payload: 900, size: 400 }),
  offloaded(TO.hostile, TO.peer, { version: 6, protocol: 6, payload: 9000, size: 1000 }),
];
export const PLAIN = 6;

/** Between two that must notice nothing. */
export const BYSTANDER: readonly Sample[] = [60, 128, 700, 1514].map((length) =>
  plain(BROADCAST, mac(3), length),
);
