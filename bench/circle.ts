// Frames that circle for ever: one testpmd is the guest on both sides (virtio-user), the contender
// stands between. The rate is what both together can pass round; the cost is the contender's alone.
// Run: npm run bench -- --cases circle

import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { removeFolder, temporaryFolder, waitFor } from '../test/peers/process.ts';
import { Testpmd } from '../test/peers/testpmd.ts';
import { type TestpmdOptions, testpmdArguments } from '../test/peers/testpmd-options.ts';
import {
  type Case,
  type Chart,
  compare,
  inTurn,
  median,
  type Options,
  placement,
  type Table,
} from './case.ts';
import { type Contender, ovsDpdk, type Pages, type Running, vhop, vhostPmd } from './contenders.ts';
import { lineLatency } from './line-latency.ts';
import { cpuPressure, HUGE_PAGES, pagesHere } from './machine.ts';
import { lacksOvs } from './peers/ovs.ts';

/** Of the generator's rings; the last is packed with VIRTIO_F_IN_ORDER. */
export const FORMATS = ['split', 'packed', 'in-order'] as const;
export type RingFormat = (typeof FORMATS)[number];

type Size = Options['sizes'][number];

export interface CircleCase {
  size: Size;
  mergeable: boolean;
  format: RingFormat;
  /** Entries in the generator's rings. */
  ring: number;
  /** Seconds measured. */
  seconds: number;
  pages: Pages;
}

export interface CircleResult {
  contender: string;
  /** Millions of frames a second, both directions summed. */
  mpps: number;
  /** Of frames as they lie in the buffers: no preamble, no check sum, no gap. */
  gbps: number;
  /** Nanoseconds a frame, on the contender's core. */
  cost: number | undefined;
  /** Line latency before and after, nanoseconds. */
  line: [number, number];
  /** See OnLine. */
  waited: number | undefined;
  commands: string[];
}

/** CPU of the contender's datapath; the generator has the other. */
const DUT_CPU = 0;
/** Milliseconds before the count begins: compilers, caches, the first seconds of a new process. */
const WARM = 1500;
/** Frames of each length in a dozen of the Internet mix. */
const IMIX = [
  [64, 7],
  [594, 4],
  [1518, 1],
] as const;
/** Dozens of the mix that are sent at once, length by length: few, for what passes is to be mixed. */
const DOZENS = 9;

export async function circle(contender: Contender, what: CircleCase): Promise<CircleResult> {
  const folder = temporaryFolder();
  const sockets = [join(folder, 'a'), join(folder, 'b')] as const;
  try {
    const before = await lineLatency();
    const found = await between(contender, sockets, what);
    // Not while they run: both poll, and the probe would have to share with them.
    const after = await lineLatency();
    return { contender: contender.name, ...found, line: [before.ns, after.ns] };
  } finally {
    removeFolder(folder);
  }
}

async function between(
  contender: Contender,
  sockets: readonly [string, string],
  what: CircleCase,
): Promise<Omit<CircleResult, 'contender' | 'line'>> {
  const options = generatorOptions(sockets, what);
  const running = await contender.start(sockets, DUT_CPU);
  try {
    const generator = await Testpmd.start(options);
    try {
      const commands = [...running.commands, `dpdk-testpmd ${testpmdArguments(options).join(' ')}`];
      return { ...(await measure(generator, running, what)), commands };
    } finally {
      await generator.quit();
    }
  } finally {
    await running.stop();
  }
}

function generatorOptions(sockets: readonly string[], what: CircleCase): TestpmdOptions {
  return {
    name: `gen${process.pid}`,
    ports: sockets.map((virtioUser) => ({
      virtioUser,
      mrgRxbuf: what.mergeable,
      packed: what.format !== 'split',
      inOrder: what.format === 'in-order',
      queueSize: what.ring,
    })),
    pages: what.pages,
    memory: 512,
    mbufs: 32768,
    mainCpu: 1 - DUT_CPU,
    cpu: 1 - DUT_CPU,
    // The last --txd and --rxd count; the default is 1024. A second start keeps the first's frames.
    extraArgs: [`--txd=${what.ring}`, `--rxd=${what.ring}`, '--no-flush-rx'],
  };
}

async function measure(
  generator: Testpmd,
  running: Running,
  { size, seconds, ring }: CircleCase,
): Promise<Omit<CircleResult, 'contender' | 'line' | 'commands'>> {
  await generator.waitLinkUp();
  await prime(generator);
  if (size === 'imix') await fillMix(generator, ring);
  else await fill(generator, size, ring);
  await sleep(WARM);
  await running.cost();
  const start = performance.now();
  const pressure = cpuPressure();
  const first = await totals(generator);
  await sleep(seconds * 1000);
  const last = await totals(generator);
  const elapsed = performance.now() - start;
  const waited = pressure === undefined ? undefined : (cpuPressure()! - pressure) / elapsed;
  const cost = await running.cost();
  const frames = last.frames - first.frames;
  const bytes = last.bytes - first.bytes;
  checkLength(size, bytes / frames);
  return { mpps: frames / elapsed / 1e3, gbps: (bytes * 8) / elapsed / 1e6, cost, waited };
}

/**
 * Sends bursts that are thrown away until they arrive: OVS loses what comes while it sets up a port, and
 * any switch may while it looks up a flow's first frames.
 */
async function prime(generator: Testpmd): Promise<void> {
  await generator.cmd('set fwd rxonly');
  const through = async (): Promise<boolean> => {
    await generator.start('tx_first');
    await sleep(100);
    const ports = await generator.stats();
    await generator.stop();
    return ports.every(({ rxPackets }) => rxPackets > 0);
  };
  await waitFor(through, 10_000, 'frames through the switch');
  await generator.cmd('set fwd io');
}

/** As many frames as rings of 1024 hold, as far as these do. */
async function fill(generator: Testpmd, size: number, ring: number): Promise<void> {
  await generator.cmd(`set txpkts ${size}`);
  await generator.start(`tx_first ${Math.min(32, ring / 32)}`);
}

/**
 * testpmd sends one length at a time, so the mix is sent in pieces, each while those before it circle. As
 * many as stay under three quarters of a ring: what circles waits in one ring between two pieces,
 * and a frame without a buffer would be lost and the mix with it.
 */
async function fillMix(generator: Testpmd, ring: number): Promise<void> {
  const dozens = Math.floor((ring * 3) / 4 / 12);
  for (let sent = 0; sent < dozens; sent += DOZENS) {
    for (const [size, share] of IMIX) {
      await generator.cmd(`set burst ${share}`);
      await generator.cmd(`set txpkts ${size}`);
      await generator.start(`tx_first ${Math.min(DOZENS, dozens - sent)}`);
      await generator.stop();
    }
  }
  await generator.cmd('set burst 32');
  await generator.start();
}

/** Throws unless what circles is as long as it should be, on the average: nothing of a mix was lost. */
export function checkLength(size: Size, mean: number): void {
  const dozen = IMIX.reduce((sum, [length, share]) => sum + length * share, 0);
  const expected = size === 'imix' ? dozen / 12 : size;
  if (!(Math.abs(mean / expected - 1) < 0.01)) {
    throw new Error(`frames have ${mean.toFixed(1)} B on the average, not ${expected.toFixed(1)}`);
  }
}

async function totals(generator: Testpmd): Promise<{ frames: number; bytes: number }> {
  const ports = await generator.stats();
  return {
    frames: ports.reduce((sum, port) => sum + port.rxPackets, 0),
    bytes: ports.reduce((sum, port) => sum + port.rxBytes, 0),
  };
}

/** What others are compared with: the head of its columns, and which contender it is for one of ours. */
interface Reference {
  head: string;
  of(contender: string): string | undefined;
}

type Runs = (CircleResult | undefined)[];

interface Cell {
  what: CircleCase;
  runs: Map<string, Runs>;
}

export const circleCase: Case = {
  name: 'circle',
  about: 'frames that circle between a testpmd and vhop, the vhost PMD, OVS-DPDK: Mpps, ns a frame',
  needs: ['testpmd'],
  estimate(options) {
    // A run needs 3 s beside what is measured, and 3 more to put a mix together.
    const round = combinations(options).reduce(
      (sum, { size, seconds }) => sum + seconds + (size === 'imix' ? 6 : 3),
      0,
    );
    return round * cast(options).contenders.length * options.rounds;
  },
  async run(options, say) {
    const { contenders, references, notes } = cast(options);
    const cells: Cell[] = [];
    for (const what of combinations(options)) {
      say(`${sizeName(what.size)}, ${describe(what)}:`);
      const all = await inTurn(contenders, options.rounds, async (contender) => {
        try {
          return await circle(contender, what);
        } catch (error) {
          // One run of hundreds: the others are worth having.
          const why = `${contender.name}, ${sizeName(what.size)}, ${describe(what)}: ${error}`;
          notes.push(`Not measured: ${why.split('\n')[0]}`);
          say(why);
          return undefined;
        }
      });
      const cell = { what, runs: new Map(contenders.map(({ name }, i) => [name, all[i]!])) };
      for (const [, name, mpps, , ns] of rows(cell, references)) {
        say(`  ${name!.padEnd(20)} ${mpps!.padStart(6)} Mpps ${ns!.padStart(6)} ns a frame`);
      }
      cells.push(cell);
    }
    const groups = Map.groupBy(cells, ({ what }) => describe(what));
    return {
      title: 'Frames that circle',
      notes: [...circleNotes(), ...notes],
      commands: commandsOf(cells),
      tables: [...groups].map(([caption, group]) => table(caption, group, references)),
      charts: [...groups].flatMap(([caption, group]) => charts(caption, group)),
      raw: cells.map(({ what, runs }) => ({ ...what, runs: Object.fromEntries(runs) })),
    };
  },
};

/** Who is measured, what they are compared with, and what has to be said about that. */
function cast({ against }: Options): {
  contenders: Contender[];
  references: Reference[];
  notes: string[];
} {
  const pages = pagesHere();
  const notes: string[] = [];
  if (pages === 'none') {
    notes.push(
      `Fewer than ${HUGE_PAGES} free huge pages: DPDK's packets lie in pages of 4 KiB, which costs both ` +
        'sides. The cure: sysctl vm.nr_hugepages=1024',
    );
  }
  const pmd = vhostPmd({ pages });
  const contenders = [vhop('wire'), vhop('switch')];
  const references: Reference[] = [{ head: 'PMD', of: () => pmd.name }];
  if (against !== undefined) {
    const folder = resolve(against);
    const pairs = (['wire', 'switch'] as const).map(
      (how) => [vhop(how), vhop(how, folder)] as const,
    );
    contenders.push(...pairs.map(([, other]) => other));
    references.push({
      head: 'other',
      of: (name) => pairs.find(([ours]) => ours.name === name)?.[1].name,
    });
    notes.push(`"Other" is the checkout in ${folder}.`);
  }
  contenders.push(pmd);
  const lack = lacksOvs();
  if (lack === undefined) {
    const ovs = ovsDpdk(pages);
    contenders.push(ovs);
    references.push({ head: 'OVS', of: () => ovs.name });
  } else {
    notes.push(`OVS-DPDK was not measured: ${lack}.`);
  }
  return { contenders, references, notes };
}

function combinations(options: Options): CircleCase[] {
  const { seconds } = options;
  const pages = pagesHere();
  return options.rings.flatMap((ring) =>
    (options.formats as RingFormat[]).flatMap((format) =>
      options.mergeable.flatMap((mergeable) =>
        options.sizes.map((size) => ({ size, ring, format, mergeable, seconds, pages })),
      ),
    ),
  );
}

const sizeName = (size: Size): string => (size === 'imix' ? 'IMIX' : `${size} B`);

function describe({ format, mergeable, ring }: CircleCase): string {
  return `${format} rings of ${ring}, buffers ${mergeable ? 'mergeable' : 'not mergeable'}`;
}

function circleNotes(): string[] {
  return [
    `One testpmd on CPU ${1 - DUT_CPU} is the guest on both sides and passes every frame round for ever ` +
      `(io forwarding); the contender's datapath has CPU ${DUT_CPU}. Mpps and Gb/s are both directions ` +
      "summed: what generator and contender can do together. ns is what a frame costs the contender's " +
      'core: time of polls that found frames, over frames (vhop: sampled by its workers; testpmd: ' +
      '--record-core-cycles; OVS: processing cycles of pmd-stats-show).',
    'Each contender had its turn in every round. A ratio is the median of ratios within a round, of rounds ' +
      'in which both had the two CPUs at the same distance; how many these were stands behind it. A rate ' +
      'above 1 and a cost below 1 are better than the reference. Line: what a cache line takes from one ' +
      'CPU to the other, before and after each run (near: under 60 ns; far: over 110 ns; mixed: it changed; crowded: ' +
      'something else wanted the CPUs for over a twentieth of the time; such a run counts nowhere if there is ' +
      'another).',
    'IMIX is 7 frames of 64 B, 4 of 594 B and 1 of 1518 B; that the mix is right is checked by the bytes.',
  ];
}

/** The runs that had the CPUs to themselves; if there is none, all. */
function calm(runs: Runs): CircleResult[] {
  const all = runs.filter((run) => run !== undefined);
  const some = all.filter((run) => placement(run) !== 'crowded');
  return some.length > 0 ? some : all;
}

/** Rows of one cell: a contender each. */
export function rows({ what, runs }: Cell, references: readonly Reference[]): string[][] {
  return [...runs].map(([name, mine]) => {
    const found = calm(mine);
    const middle = (value: (run: CircleResult) => number | undefined, digits: number): string =>
      figure(median(found.map((run) => value(run) ?? Number.NaN)), digits);
    const against = references.flatMap(({ of }) => {
      const other = of(name);
      if (other === undefined || other === name) return ['', ''];
      return [(run: CircleResult) => run.mpps, (run: CircleResult) => run.cost].map((value) => {
        const { ratio, pairs } = compare(mine, runs.get(other) ?? [], value);
        return `${figure(ratio, 2)} (${pairs})`;
      });
    });
    return [
      ...[sizeName(what.size), name, middle((run) => run.mpps, 2), middle((run) => run.gbps, 1)],
      ...[middle((run) => run.cost, 1), ...against, line(found)],
    ];
  });
}

const figure = (value: number, digits: number): string =>
  Number.isFinite(value) ? value.toFixed(digits) : '-';

/** Such as `near 41-55`. */
function line(runs: readonly CircleResult[]): string {
  const all = runs.flatMap((run) => run.line);
  if (all.length === 0) return '-';
  const labels = [...new Set(runs.map(placement))].join(', ');
  return `${labels} ${Math.min(...all).toFixed(0)}-${Math.max(...all).toFixed(0)}`;
}

function table(caption: string, cells: readonly Cell[], references: readonly Reference[]): Table {
  const ratios = references.flatMap(({ head }) => [`rate : ${head}`, `cost : ${head}`]);
  return {
    caption,
    head: ['frames', 'contender', 'Mpps', 'Gb/s', 'ns', ...ratios, 'line, ns'],
    rows: cells.flatMap((cell) => rows(cell, references)),
  };
}

function charts(caption: string, cells: readonly Cell[]): Chart[] {
  const chart = (
    title: string,
    unit: string,
    value: (run: CircleResult) => number | undefined,
  ): Chart => ({
    title: `${title}: ${caption}`,
    unit,
    bars: cells.flatMap(({ what, runs }) =>
      [...runs].map(([name, mine]) => ({
        group: sizeName(what.size),
        name,
        value: median(calm(mine).flatMap((run) => value(run) ?? [])),
      })),
    ),
  });
  return [
    chart('Rate', 'Mpps, both directions', (run) => run.mpps),
    chart('Cost of a frame', 'ns on the switch core', (run) => run.cost),
  ];
}

/** Of each contender's first run, the generator's among them once. */
function commandsOf(cells: readonly Cell[]): string[] {
  const first = [...(cells[0]?.runs.values() ?? [])].map((runs) => runs.find((run) => run));
  const own = first.flatMap((run) => run?.commands.slice(0, -1) ?? []);
  const generator = first.find((run) => run)?.commands.at(-1);
  return generator === undefined
    ? own
    : [...own, generator, 'testpmd> set txpkts 64', 'testpmd> start tx_first 32'];
}
