// What became of each virtio-net feature bit of a port: on, not offered, or offered and not accepted;
// why, and what it means for the traffic. Pure: a port in, rows out.
//
// A back end is told only what is left: what the guest's driver did not take and what its front end
// hid from it (QEMU's card with mrg_rxbuf=off) look alike here, so no row claims to know which.

import type { PortInfo } from '../types.ts';
import { featureBit } from '../vhost-user/names.ts';

export interface FeatureRow {
  name: string;
  bit: number;
  /** `undecided`: offered, and no driver has been set up that could accept it. */
  state: 'on' | 'not-accepted' | 'not-offered' | 'undecided';
  /** Who did not offer or accept it; absent where it is on or undecided. */
  why?: string;
  /** What that means here; absent while undecided, and for bits this program knows nothing of. */
  meaning?: string;
}

type Text = string | ((port: PortInfo) => string);

/** What a feature means when on, and when off: at most 44 characters, for a line of 80. */
type Meaning = readonly [name: string, on: Text, off: Text];

const FROM_GUEST: readonly Meaning[] = [
  ['CSUM', 'it may leave checksums to its receivers', 'it computes the checksums of what it sends'],
  [
    'HOST_TSO4',
    'it may send IPv4 TCP in pieces up to 64 KiB',
    'it cuts its IPv4 TCP to size itself',
  ],
  [
    'HOST_TSO6',
    'it may send IPv6 TCP in pieces up to 64 KiB',
    'it cuts its IPv6 TCP to size itself',
  ],
  ['HOST_ECN', 'also TCP that answers congestion (CWR)', 'it cuts TCP with CWR to size itself'],
  ['HOST_USO', 'it may send UDP in pieces up to 64 KiB', 'it cuts its UDP to size itself'],
];

const TO_GUEST: readonly Meaning[] = [
  ['GUEST_CSUM', 'checksums left open stay open for it', 'checksums are completed for it'],
  [
    'GUEST_TSO4',
    'IPv4 TCP reaches it in pieces up to 64 KiB',
    'IPv4 TCP segments are cut to size for it',
  ],
  [
    'GUEST_TSO6',
    'IPv6 TCP reaches it in pieces up to 64 KiB',
    'IPv6 TCP segments are cut to size for it',
  ],
  ['GUEST_ECN', 'also TCP that answers congestion (CWR)', 'TCP with CWR is cut to size for it'],
  [
    'GUEST_USO4',
    'IPv4 UDP reaches it in pieces up to 64 KiB',
    'IPv4 UDP datagrams are cut to size for it',
  ],
  [
    'GUEST_USO6',
    'IPv6 UDP reaches it in pieces up to 64 KiB',
    'IPv6 UDP datagrams are cut to size for it',
  ],
  ['MRG_RXBUF', 'a frame may fill several of its buffers', 'needs buffers as long as a frame'],
  [
    'MTU',
    ({ mtu }) => `it was told its MTU: ${mtu} bytes`,
    ({ mtu }) =>
      mtu === undefined ? 'it picks its own MTU' : `it was not told: packets over ${mtu} B drop`,
  ],
];

const RINGS: readonly Meaning[] = [
  ['VERSION_1', 'virtio 1: headers of 12 bytes', legacyHeader],
  ['ANY_LAYOUT', 'header and frame may share a buffer', anyLayout],
  ['INDIRECT_DESC', 'a frame in many parts fills one ring entry', 'each part fills a ring entry'],
  ['EVENT_IDX', 'kicks and calls are asked for by index', 'kicks and calls are on or off'],
  ['RING_PACKED', 'packed rings', 'split rings'],
  ['IN_ORDER', 'buffers return in order', 'buffers return in any order'],
];

const CONTROL: readonly Meaning[] = [
  // Served by the front end in either case; QEMU does not pass the bit on though its card has one.
  [
    'CTRL_VQ',
    'its front end serves its control queue',
    "a control queue, if any, is the front end's",
  ],
  [
    'MQ',
    ({ queues, queuesEnabled }) => `up to ${pairs(queues)}, ${queuesEnabled} enabled`,
    ({ queuesEnabled }) => `${pairs(queuesEnabled)} enabled`,
  ],
  ['GUEST_ANNOUNCE', 'it announces itself when it has moved', 'its front end does, by SEND_RARP'],
];

const GROUPS = [FROM_GUEST, TO_GUEST, RINGS, CONTROL];

/** Reasons why a port does not offer what others do. */
const NOT_OFFERED: Record<string, string> = {
  MQ: 'the port has queues: 1',
  MTU: 'no mtu: is set',
};
const NOT_SUPPORTED = 'vhop lacks it';
const NOT_ACCEPTED = 'offered, not accepted by the guest or its front end';

function pairs(count: number): string {
  return count === 1 ? '1 queue pair' : `${count} queue pairs`;
}

function legacyHeader({ features }: PortInfo): string {
  return `a legacy driver: headers of ${features.includes('MRG_RXBUF') ? 12 : 10} bytes`;
}

function anyLayout({ features }: PortInfo): string {
  return features.includes('VERSION_1') ? 'VERSION_1 implies it' : 'the header has its own buffer';
}

/** Whether a driver was set up on the port, so that what is not on was turned down. */
export function isDecided({ features, state }: PortInfo): boolean {
  return features.length > 0 || state === 'up' || state === 'quarantined';
}

/**
 * The bits of `port` in groups: what it sends, what it gets, rings, control; then those that were
 * offered or accepted and that nothing is known of, if any.
 */
export function featureGroups(port: PortInfo): FeatureRow[][] {
  // Not the driver's: its front end has it while it migrates the guest (PortInfo.logging).
  const known = ['LOG_ALL', ...GROUPS.flat().map(([name]) => name)];
  const others = new Set([...port.offered, ...port.features]);
  for (const name of known) others.delete(name);
  const groups = GROUPS.map((group) => group.map((meaning) => row(port, meaning)));
  if (others.size > 0) groups.push([...others].map((name) => row(port, [name, '', ''])));
  return groups;
}

function row(port: PortInfo, [name, on, off]: Meaning): FeatureRow {
  const bit = featureBit(name);
  const means = (text: Text) => {
    const meaning = typeof text === 'string' ? text : text(port);
    return meaning === '' ? {} : { meaning };
  };
  if (port.features.includes(name)) return { name, bit, state: 'on', ...means(on) };
  const decided = isDecided(port);
  if (!port.offered.includes(name)) {
    const why = NOT_OFFERED[name] ?? NOT_SUPPORTED;
    return { name, bit, state: 'not-offered', why, ...(decided ? means(off) : {}) };
  }
  if (!decided) return { name, bit, state: 'undecided' };
  return { name, bit, state: 'not-accepted', why: NOT_ACCEPTED, ...means(off) };
}

/** The port in a phrase: what the table under it is about. */
export function featureTitle(port: PortInfo): string {
  const { name, state, type, offered, features } = port;
  if (!isDecided(port)) {
    const end = type === 'virtio-user' ? 'back end' : 'front end';
    const why = {
      listening: `no ${end} has connected`,
      connecting: `no ${end} answers`,
    }[state as string];
    return `${name} ${state}: ${why ?? 'no driver is set up'}; nothing is decided yet`;
  }
  const count = `${features.length} of ${offered.length} offered features`;
  const who = type !== 'vhost-user' ? 'its driver, in this process,' : 'its driver and front end';
  return state === 'up' || state === 'quarantined'
    ? `${name} ${state}: ${who} accepted ${count}`
    : `${name} ${state}: no driver runs; the last one accepted ${count}`;
}

/** Legend of the states, in lines of at most 80. */
export const LEGEND = [
  "not accepted  vhop offers it; the guest's driver did not take it, or its front",
  "              end hid it from the driver (QEMU's card with mrg_rxbuf=off, say)",
  'not offered   vhop does not offer it to this guest',
];
