// Pairs of guests with every kind of ring and every set of offloads on either side: the same traffic
// passes all of them. CI runs a selection in which every two choices meet; VHOP_LONG=1 all rings
// with all mixes of offloads, and 256 MiB instead of 8.

import assert from 'node:assert/strict';
import type { Guest } from '../peers/guest.ts';
import { iperfBoth } from '../peers/iperf.ts';
import type { Nic } from '../peers/nic.ts';
import { type CardPair, eachPair } from './cards.ts';
import { type Lab, scenario } from './lab.ts';
import { A, agree, B, copy, pingAll } from './pair.ts';
import { covering, product } from './selection.ts';

/** Cards of one guest. */
const CARDS = 4;

const GUEST_TSO = ['guest_tso4', 'guest_tso6', 'guest_ecn', 'guest_ufo'];
const HOST_TSO = ['host_tso4', 'host_tso6', 'host_ecn', 'host_ufo'];

/** What a guest is without, by the name of the set. */
const OFFLOADS: Record<string, string[]> = {
  'all offloads': [],
  'no GUEST_TSO': GUEST_TSO,
  'no GUEST_CSUM': ['guest_csum', ...GUEST_TSO],
  'no offloads': ['csum', 'guest_csum', ...GUEST_TSO, ...HOST_TSO],
};

interface Side {
  packed: boolean;
  mrg: boolean;
  indirect: boolean;
  event: boolean;
  offloads: string;
}

const FACTORS = {
  packed: [false, true],
  mrg: [true, false],
  indirect: [true, false],
  event: [true, false],
  offloads: Object.keys(OFFLOADS),
};

function device({ packed, mrg, indirect, event, offloads }: Side): Nic['device'] {
  const every = ['csum', 'guest_csum', ...GUEST_TSO, ...HOST_TSO];
  return {
    packed,
    mrg_rxbuf: mrg,
    indirect_desc: indirect,
    event_idx: event,
    // All of them named, so that one side's say nothing of the other's.
    ...Object.fromEntries(every.map((name) => [name, !OFFLOADS[offloads]!.includes(name)])),
    'disable-legacy': true,
    'disable-modern': false,
  };
}

function label({ packed, mrg, indirect, event, offloads }: Side): string {
  const without = [!mrg && 'mrg', !indirect && 'indirect', !event && 'event_idx'].filter(Boolean);
  const ring = packed ? 'packed' : 'split';
  return `${ring}${without.length > 0 ? ` without ${without.join(' ')}` : ''}, ${offloads}`;
}

/** Features a side must have negotiated, and those it must not. */
function checkFeatures(features: readonly string[], side: Side): void {
  const expected: Record<string, boolean> = {
    RING_PACKED: side.packed,
    MRG_RXBUF: side.mrg,
    INDIRECT_DESC: side.indirect,
    EVENT_IDX: side.event,
    CSUM: side.offloads !== 'no offloads',
    HOST_TSO4: side.offloads !== 'no offloads',
    GUEST_CSUM: side.offloads === 'all offloads' || side.offloads === 'no GUEST_TSO',
    GUEST_TSO4: side.offloads === 'all offloads',
    GUEST_TSO6: side.offloads === 'all offloads',
  };
  for (const [name, is] of Object.entries(expected)) {
    assert.equal(features.includes(name), is, `${name} of ${label(side)}`);
  }
}

function pairs(): { a: Side; b: Side }[] {
  if (process.env.VHOP_LONG) {
    // All rings alike on both sides, each with every mix of offloads; and every mix of rings.
    const { offloads, ...rings } = FACTORS;
    const alike = product({ ...rings, ofA: offloads, ofB: offloads }).map(
      ({ ofA, ofB, ...ring }) => ({
        a: { ...ring, offloads: ofA },
        b: { ...ring, offloads: ofB },
      }),
    );
    return [...alike, ...selected()];
  }
  return selected();
}

function selected(): { a: Side; b: Side }[] {
  const both = Object.entries(FACTORS).flatMap(([name, values]) => [
    [`a ${name}`, values],
    [`b ${name}`, values],
  ]);
  return covering(Object.fromEntries(both)).map((row) => {
    const side = (who: string) =>
      Object.fromEntries(Object.keys(FACTORS).map((name) => [name, row[`${who} ${name}`]]));
    return { a: side('a') as unknown as Side, b: side('b') as unknown as Side };
  });
}

async function traffic(lab: Lab, a: Guest, b: Guest): Promise<void> {
  await pingAll(a, B, 20);
  await pingAll(b, A, 20, '-s 1472');
  for (const rate of await iperfBoth(b, a, B, 1)) assert.ok(rate > 0);
  await copy(b, a, A, process.env.VHOP_LONG ? 256 : 8);
  await agree(lab, a, b);
  // Each gets what it can take: a full ring is the only reason not to deliver.
  for (const guest of [a, b]) {
    const { rx_full, ...drops } = lab.stats(guest.name).drops;
    assert.deepEqual(drops, {}, `${rx_full ?? 0} times the ring was full`);
    // Linux counts what it threw away for a wrong checksum.
    const { stdout } = await guest.run("grep -hE '^(Tcp|Udp|Ip):' /proc/net/snmp");
    assert.deepEqual(checksumErrors(stdout), { Tcp: 0, Udp: 0 });
  }
}

/** InCsumErrors by protocol: each has a line of names and one of numbers. */
function checksumErrors(snmp: string): Record<string, number> {
  const lines = snmp
    .trim()
    .split('\n')
    .map((line) => line.split(' '));
  return Object.fromEntries(
    ['Tcp', 'Udp'].map((name) => {
      const [names, numbers] = lines.filter(([first]) => first === `${name}:`);
      return [name, Number(numbers![names!.indexOf('InCsumErrors')])];
    }),
  );
}

const NOTHING: Side = {
  packed: false,
  mrg: false,
  indirect: false,
  event: false,
  offloads: 'no offloads',
};
const EVERYTHING: Side = {
  packed: true,
  mrg: true,
  indirect: true,
  event: true,
  offloads: 'all offloads',
};
/** A driver before virtio 1.0: a header of 10 bytes. */
const LEGACY = { ...device(NOTHING), 'disable-legacy': false, 'disable-modern': true };
const LONG = { ...device(EVERYTHING), rx_queue_size: 1024, tx_queue_size: 1024 };

interface Row extends CardPair {
  check(lab: Lab): void;
}

const SPECIAL = [
  { name: 'rings of 1024 entries', a: LONG, b: LONG, size: 1024 },
  { name: 'legacy on both sides', a: LEGACY, b: LEGACY },
  { name: 'legacy | packed, all offloads', a: LEGACY, b: device(EVERYTHING) },
];

const ROWS: Row[] = [
  ...pairs().map(({ a, b }) => ({
    name: `${label(a)} | ${label(b)}`,
    a: device(a),
    b: device(b),
    check(lab: Lab) {
      checkFeatures(lab.portInfo('a').features, a);
      checkFeatures(lab.portInfo('b').features, b);
    },
  })),
  ...SPECIAL.map(({ name, a, b, size = 256 }) => ({
    name,
    a,
    b,
    check(lab: Lab) {
      assert.equal(lab.portInfo('a').features.includes('VERSION_1'), a !== LEGACY);
      const rings = lab.sw.rings().filter(({ started, port }) => started && port === 'a');
      assert.deepEqual([...new Set(rings.map((ring) => ring.size))], [size]);
    },
  })),
];

const BOOTS = Array.from({ length: Math.ceil(ROWS.length / CARDS) }, (_, i) =>
  ROWS.slice(i * CARDS, (i + 1) * CARDS),
);

for (const [boot, rows] of BOOTS.entries()) {
  scenario(`pairs of cards, ${boot + 1} of ${BOOTS.length}`, ['qemu'], {}, (first, t) =>
    eachPair(first, t, rows, async (lab, [a, b], { check }) => {
      check(lab);
      await traffic(lab, a, b);
    }),
  );
}
