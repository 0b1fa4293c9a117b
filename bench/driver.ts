// The driver's side: how many frames our pkt-gen sends into a vhost-user back end, or takes from one,
// against DPDK's virtio-user driver under testpmd txonly and rxonly. The back end has one core, the driver
// the other, and it is the back end that counts.

import { join } from 'node:path';
import { connectTo } from '../src/control/client.ts';
import { Child, removeFolder, root, temporaryFolder, waitFor } from '../test/peers/process.ts';
import { Testpmd } from '../test/peers/testpmd.ts';
import { type TestpmdOptions, testpmdArguments } from '../test/peers/testpmd-options.ts';
import {
  type Case,
  type Chart,
  compare,
  inTurn,
  lengths,
  lineText,
  median,
  type OnLine,
  ratioText,
  type Section,
  type Table,
} from './case.ts';
import { lineLatency } from './line-latency.ts';
import { pagesHere } from './machine.ts';

const BACK_END_CPU = 0;
const DRIVER_CPU = 1;
/** Milliseconds for engines and rings to warm up. */
const WARM = 1000;

type Direction = 'tx' | 'rx';

interface Setting {
  direction: Direction;
  size: number;
  packed: boolean;
  entries: number;
}

interface Run extends OnLine {
  mpps: number;
}

/** What stands at the other end of the socket; `count` is of the frames that passed so far. */
interface BackEnd {
  name: string;
  directions: Direction[];
  start(
    socket: string,
    setting: Setting,
  ): Promise<{ count(): Promise<number>; stop(): Promise<void> }>;
}

interface Driver {
  name: string;
  start(socket: string, setting: Setting): Promise<{ stop(): Promise<void> }>;
}

const commands = new Set<string>();

function vhostPmd(): BackEnd {
  return {
    name: 'testpmd vhost PMD',
    directions: ['tx', 'rx'],
    async start(socket, { direction, size }) {
      const testpmd = await startTestpmd({
        name: `back${process.pid}`,
        ports: [{ vhost: socket }],
        mainCpu: DRIVER_CPU,
        cpu: BACK_END_CPU,
        forward: direction === 'tx' ? 'rxonly' : 'txonly',
      });
      await testpmd.cmd(`set txpkts ${size}`);
      await testpmd.start();
      return {
        async count() {
          const [port] = await testpmd.stats();
          return direction === 'tx' ? port!.rxPackets : port!.txPackets;
        },
        stop: () => testpmd.quit(),
      };
    },
  };
}

/** Frames for nobody: what a switch does first with every one, and then drops. */
function vhopSwitch(): BackEnd {
  return {
    name: 'vhop switch',
    directions: ['tx'],
    async start(socket) {
      const control = `${socket}.control`;
      const args = ['switch', socket, '--control', control];
      commands.add(`taskset -c ${BACK_END_CPU} bin/vhop ${args.join(' ')}`);
      const child = new Child(join(root, 'bin/vhop'), args, { cpus: `${BACK_END_CPU}` });
      await waitFor(
        () => child.stdout.includes('runs (pid'),
        20_000,
        'vhop',
        () => child.tail(),
      );
      const client = connectTo(control);
      return {
        count: async () => (await client.get('/stats')).ports[0]!.txFrames,
        async stop() {
          child.kill('SIGTERM');
          await child.finish(10_000);
        },
      };
    },
  };
}

function pktGen(): Driver {
  return {
    name: 'vhop pkt-gen',
    async start(socket, { direction, size, packed, entries }) {
      const args = [
        'pkt-gen',
        '-i',
        `vhop:${socket}`,
        '-f',
        direction,
        '-l',
        `${size}`,
        '-C',
        `${entries}`,
      ];
      args.push(packed ? '--packed' : '--split');
      commands.add(`taskset -c ${DRIVER_CPU} bin/vhop ${args.join(' ')}`);
      const child = new Child(join(root, 'bin/vhop'), args, { cpus: `${DRIVER_CPU}` });
      return {
        async stop() {
          child.kill('SIGINT');
          await child.finish(10_000);
        },
      };
    },
  };
}

function virtioUser(): Driver {
  return {
    name: 'testpmd virtio-user',
    async start(socket, { direction, size, packed, entries }) {
      const testpmd = await startTestpmd({
        name: `drv${process.pid}`,
        ports: [{ virtioUser: socket, packed, queueSize: entries }],
        mainCpu: BACK_END_CPU,
        cpu: DRIVER_CPU,
        forward: direction === 'tx' ? 'txonly' : 'rxonly',
      });
      await testpmd.cmd(`set txpkts ${size}`);
      await testpmd.start();
      return { stop: () => testpmd.quit() };
    },
  };
}

async function startTestpmd(options: TestpmdOptions): Promise<Testpmd> {
  const pages = pagesHere();
  const whole: TestpmdOptions = { ...options, pages, memory: pages === 'huge' ? 512 : 256 };
  commands.add(`dpdk-testpmd ${testpmdArguments(whole).join(' ')}`);
  return Testpmd.start(whole);
}

async function measure(
  backEnd: BackEnd,
  driver: Driver,
  setting: Setting,
  seconds: number,
): Promise<Run> {
  const folder = temporaryFolder();
  const socket = join(folder, 'a');
  const before = (await lineLatency()).ns;
  const back = await backEnd.start(socket, setting);
  try {
    const running = await driver.start(socket, setting);
    try {
      await waitFor(async () => (await back.count()) > 10_000, 20_000, 'frames');
      await new Promise((done) => setTimeout(done, WARM));
      const [count, start] = [await back.count(), performance.now()];
      await new Promise((done) => setTimeout(done, seconds * 1000));
      const frames = (await back.count()) - count;
      const mpps = frames / (performance.now() - start) / 1000;
      return { mpps, line: [before, (await lineLatencyLater(running.stop)).ns] };
    } finally {
      await running.stop();
    }
  } finally {
    await back.stop();
    removeFolder(folder);
  }
}

/** Once the driver is gone: a probe beside it would measure the two of them. */
async function lineLatencyLater(stop: () => Promise<void>) {
  await stop();
  return lineLatency();
}

export const driverCase: Case = {
  name: 'driver',
  about:
    "our driver (pkt-gen) and DPDK's virtio-user at a vhost-user back end: Mpps sent, received",
  needs: ['testpmd'],
  estimate: (options) => {
    const { rounds, seconds, formats } = options;
    const kinds = formats.filter((format) => format !== 'in-order').length;
    return lengths(options).length * kinds * rounds * 6 * (seconds + 4);
  },
  async run(options, say): Promise<Section> {
    const tables: Table[] = [];
    const charts: Chart[] = [];
    const raw: unknown[] = [];
    const drivers = [pktGen(), virtioUser()];
    for (const packed of options.formats
      .filter((f) => f !== 'in-order')
      .map((f) => f === 'packed')) {
      const rings = `${packed ? 'packed' : 'split'} rings of ${options.rings[0]}`;
      const table: Table = {
        caption: `${rings}: Mpps`,
        head: ['back end', 'frames', ...drivers.map(({ name }) => name), 'ratio (rounds)', 'line'],
        rows: [],
      };
      const chart: Chart = { title: `Driver and back end, ${rings}`, unit: 'Mpps', bars: [] };
      for (const backEnd of [vhostPmd(), vhopSwitch()]) {
        for (const direction of backEnd.directions) {
          for (const size of lengths(options)) {
            const setting = { direction, size, packed, entries: options.rings[0]! };
            const group = `${direction} ${size} B, ${backEnd.name}`;
            say(`${group}, ${rings}`);
            const runs = await inTurn(drivers, options.rounds, (driver) =>
              measure(backEnd, driver, setting, options.seconds),
            );
            raw.push({
              ...setting,
              backEnd: backEnd.name,
              drivers: drivers.map(({ name }) => name),
              runs,
            });
            const ratio = compare(runs[0]!, runs[1]!, ({ mpps }) => mpps);
            const medians = runs.map((turns) => median(turns.map(({ mpps }) => mpps)));
            table.rows.push([
              backEnd.name,
              `${direction} ${size} B`,
              ...medians.map((mpps) => mpps.toFixed(2)),
              ratioText(ratio),
              lineText(runs[0]![0]!),
            ]);
            for (const [i, { name }] of drivers.entries()) {
              chart.bars.push({ group, name, value: medians[i]! });
            }
            say(
              `  ${medians.map((mpps, i) => `${drivers[i]!.name} ${mpps.toFixed(2)}`).join(', ')} Mpps`,
            );
          }
        }
      }
      tables.push(table);
      charts.push(chart);
    }
    return {
      title: 'The driver: pkt-gen against DPDK',
      notes: [
        'One core for the back end, one for the driver, which sends (tx) or takes (rx) all it can; the ' +
          'back end counts. testpmd is rxonly or txonly as back end; the switch drops what it gets, as ' +
          'nobody else is there. DPDK: the virtio-user driver under txonly and rxonly.',
      ],
      commands: [...commands],
      tables,
      charts,
      raw,
    };
  },
};
