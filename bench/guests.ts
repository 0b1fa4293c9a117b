// Two TCG guests, over vhop and over what one would use instead: iperf3 TCP, small UDP datagrams, ping. A
// pair of guests is booted for each contender and round, and all of it is measured with that pair.

import { join } from 'node:path';
import { Guest, type GuestOptions } from '../test/peers/guest.ts';
import { configure, iperf, iperfUdp, pingTimes } from '../test/peers/iperf.ts';
import type { Nic } from '../test/peers/nic.ts';
import { removeFolder, requirePeers, temporaryFolder } from '../test/peers/process.ts';
import {
  type Case,
  type Chart,
  compare,
  inTurn,
  lineText,
  median,
  type OnLine,
  type Options,
  ratioText,
  type Section,
  type Table,
} from './case.ts';
import { type Contender, vhop, vhostPmd } from './contenders.ts';
import { lineLatency } from './line-latency.ts';
import { pagesHere } from './machine.ts';
import { onBridge, openBridge } from './peers/bridge.ts';
import { percentiles } from './percentiles.ts';

/** Pings of a run; and seconds between two of them where they do not follow at once. */
const PINGS = 2000;
const INTERVAL = 0.002;
/** Bytes of payload of a UDP datagram. */
const DATAGRAM = 64;

/** What is compared, and whether more is better. */
const FIGURES = {
  tcp1: { name: 'TCP, 1 stream', unit: 'Mbit/s', more: true, digits: 0 },
  tcp4: { name: 'TCP, 4 streams', unit: 'Mbit/s', more: true, digits: 0 },
  udp: { name: `UDP, ${DATAGRAM} B received`, unit: 'thousands a second', more: true, digits: 1 },
  udpLost: { name: `UDP, ${DATAGRAM} B lost`, unit: '%', more: false, digits: 0 },
  busy50: { name: 'ping at once, p50', unit: 'us', more: false, digits: 0 },
  busy99: { name: 'ping at once, p99', unit: 'us', more: false, digits: 0 },
  calm50: { name: 'ping every 2 ms, p50', unit: 'us', more: false, digits: 0 },
  calm99: { name: 'ping every 2 ms, p99', unit: 'us', more: false, digits: 0 },
} as const;
type Figure = keyof typeof FIGURES;

type Run = Record<Figure, number> & OnLine;

interface Way {
  name: string;
  /** Puts a pair of guests on it for as long as `use` takes. */
  with<T>(use: (guests: readonly GuestOptions[]) => Promise<T>): Promise<T>;
}

async function measure(options: readonly GuestOptions[], seconds: number): Promise<Run> {
  const before = await lineLatency();
  // One virtual CPU each: two guests on two host CPUs, of which a switch that polls takes one.
  const each = { smp: 1, timeoutMs: 180_000 };
  const guests = await Promise.all(options.map((o) => Guest.boot({ ...o, ...each })));
  try {
    const [server, client] = guests as [Guest, Guest];
    const address = '10.0.0.1';
    await configure(server, `${address}/24`);
    await configure(client, '10.0.0.2/24');
    // Warms up the guests' translated code as well.
    await iperf(server, client, address, { seconds: 1 });
    const tcp1 = await iperf(server, client, address, { seconds });
    const tcp4 = await iperf(server, client, address, { seconds, flags: '-P 4' });
    const udp = await iperfUdp(server, client, address, { seconds, bytes: DATAGRAM });
    const busy = percentiles(await pingTimes(client, address, { count: PINGS }));
    const calm = percentiles(
      await pingTimes(client, address, { count: PINGS, interval: INTERVAL }),
    );
    return {
      ...{ tcp1, tcp4, udp: udp.perSecond / 1000, udpLost: udp.lost * 100 },
      ...{ busy50: busy.p50, busy99: busy.p99, calm50: calm.p50, calm99: calm.p99 },
      line: [before.ns, (await lineLatency()).ns],
    };
  } finally {
    await Promise.all(guests.map((guest) => guest.stop()));
  }
}

function over(contender: Contender): Way {
  return {
    name: contender.name,
    async with(use) {
      const folder = temporaryFolder();
      const sockets = [join(folder, 'a'), join(folder, 'b')] as const;
      const nic = (vhostUser: string) => [{ backend: { vhostUser } }];
      try {
        const running = await contender.start(sockets, 0);
        try {
          return await use([
            { name: 'a', nics: nic(sockets[0]) },
            { name: 'b', nics: nic(sockets[1]) },
          ]);
        } finally {
          await running.stop();
        }
      } finally {
        removeFolder(folder);
      }
    },
  };
}

const STREAM: Way = {
  name: 'QEMU netdev stream',
  async with(use) {
    const folder = temporaryFolder();
    const stream = join(folder, 's');
    try {
      return await use([
        { name: 'a', nics: [{ backend: { stream, server: true } }] },
        { name: 'b', nics: [{ backend: { stream } }] },
      ]);
    } finally {
      removeFolder(folder);
    }
  },
};

function overBridge(name: string, device?: Nic['device']): Way {
  return {
    name,
    async with(use) {
      const bridge = await openBridge(2);
      try {
        return await use([onBridge(bridge, 0, 'a', device), onBridge(bridge, 1, 'b', device)]);
      } finally {
        await bridge.close();
      }
    },
  };
}

const BRIDGE = overBridge('TAP + bridge');
/** With the interrupts that a vhost-user card has to do with here (test/peers/nic.ts). */
const BRIDGE_INTX = overBridge('TAP + bridge, INTx', { vectors: 0 });

/** The ones that the others are compared with. */
const REFERENCES = [BRIDGE.name, BRIDGE_INTX.name, vhostPmd({ tso: true }).name];

async function run({ rounds, seconds }: Options, say: (line: string) => void): Promise<Section> {
  const notes = [
    'Debian guests under TCG, one virtual CPU each, so that two of them and the switch share what CPUs ' +
      'there are. A pair is booted for each contender and round.',
    'Ratios are medians of those of the rounds in which both had the two CPUs at the same distance (how ' +
      'many stands behind them), and above 1 where the contender is the better one: more received, or ' +
      'less time. For loss there is none.',
    `UDP: ${DATAGRAM} B of payload, offered as fast as the sender's CPU goes. Ping: ${PINGS} of them, each at ` +
      `once after the last one's answer, and then ${INTERVAL * 1000} ms apart.`,
    'Cards of the bridge and of the stream interrupt by MSI-X. A vhost-user card has to do with INTx, for ' +
      'QEMU 7.2 under TCG crashes where one starts with MSI-X; "INTx" is the bridge with the same.',
  ];
  const ways = [over(vhop('switch'))];
  const lacking = { skip: (why: string) => void notes.push(`Left out: ${why}`) };
  if (requirePeers(lacking, ['testpmd'])) {
    const pages = pagesHere();
    ways.push(over(vhostPmd({ pages })), over(vhostPmd({ tso: true, pages })));
  }
  ways.push(STREAM);
  if (requirePeers(lacking, ['net'])) ways.push(BRIDGE, BRIDGE_INTX);
  const all = await inTurn(ways, rounds, async (way) => {
    const found = await way.with((guests) => measure(guests, seconds));
    const said = (Object.keys(FIGURES) as Figure[]).map((figure) => show(figure, found[figure]));
    say(`  ${way.name}: ${said.join(', ')}; line ${lineText(found)}`);
    return found;
  });
  const runs = ways.map(({ name }, i) => ({ name, runs: all[i]! }));
  return {
    title: 'Two guests',
    notes,
    tables: (Object.keys(FIGURES) as Figure[]).map((figure) => table(figure, runs)),
    charts: [
      chart('TCP between two guests', ['tcp1', 'tcp4'], runs),
      chart('Ping between two guests', ['busy50', 'calm50', 'calm99'], runs),
    ],
    raw: runs,
  };
}

interface Runs {
  name: string;
  runs: readonly Run[];
}

function show(figure: Figure, value: number): string {
  const { name, unit, digits } = FIGURES[figure];
  return `${name} ${value.toFixed(digits)} ${unit}`;
}

function table(figure: Figure, all: readonly Runs[]): Table {
  const { name, unit, more, digits } = FIGURES[figure];
  const references = all.filter((each) => figure !== 'udpLost' && REFERENCES.includes(each.name));
  return {
    caption: `${name}, ${unit}`,
    head: [
      '',
      'median',
      'round by round',
      ...references.map((each) => `against ${each.name}`),
      'line',
    ],
    rows: all.map(({ name, runs }) => [
      name,
      median(runs.map((run) => run[figure])).toFixed(digits),
      runs.map((run) => run[figure].toFixed(digits)).join(' '),
      ...references.map((reference) => {
        const value = (run: Run) => (more ? run[figure] : 1 / run[figure]);
        return ratioText(compare(runs, reference.runs, value));
      }),
      runs.map(lineText).join('; '),
    ]),
  };
}

function chart(title: string, figures: readonly Figure[], all: readonly Runs[]): Chart {
  return {
    title,
    unit: FIGURES[figures[0]!].unit,
    bars: figures.flatMap((figure) =>
      all.map(({ name, runs }) => ({
        group: FIGURES[figure].name,
        name,
        value: median(runs.map((run) => run[figure])),
      })),
    ),
  };
}

export const guestsCase: Case = {
  name: 'guests',
  about: 'two TCG guests: TCP, UDP, ping; vhop, vhost PMD, QEMU stream, TAP + bridge',
  needs: ['qemu'],
  estimate: ({ rounds }) => rounds * 5 * 33,
  run,
};
