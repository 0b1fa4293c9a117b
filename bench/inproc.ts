// The switch without any peer, wherever it runs: what a frame costs the datapath, one thread, all in
// process. Our own drivers fill the rings while the clock stands.
//
// For whoever tunes the datapath, in under 5 seconds:
//   node bench/inproc.ts [SIZE, imix, tso ...] [split, packed, in-order ...] [wire]
// and with rings driven from another CPU, whose lines have to travel (inproc-workers.ts), on two CPUs:
//   node bench/inproc.ts other-cpu [SIZE, imix ...] [split, packed, in-order ...]

import { fileURLToPath } from 'node:url';
import { type Case, median, type Options, type Section, type Table } from './case.ts';
import { enoughCpus, type LAYOUTS, onTwoCpus } from './inproc-workers.ts';
import { type Size, World, type WorldSpec } from './inproc-world.ts';
import { lineLatency } from './line-latency.ts';

/** Milliseconds of laps until the engine has compiled what is timed. */
const WARM = 250;

/** The least that performance.now() tells apart from nothing, nanoseconds. */
function clockCost(): number {
  const costs = Array.from({ length: 10_001 }, () => {
    const start = performance.now();
    return (performance.now() - start) * 1e6;
  });
  return median(costs);
}

/** Repeats `lap` for `ms` milliseconds; what each said. */
function laps(lap: () => number, ms: number): number[] {
  const said: number[] = [];
  for (const end = performance.now() + ms; performance.now() < end; ) said.push(lap());
  return said;
}

/** Medians of laps, round by round, for each of `what`, which are taken in turn. */
function measure(what: readonly (() => number)[], rounds: number, ms: number): number[][] {
  for (const lap of what) laps(lap, WARM);
  const all: number[][] = what.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, lap] of what.entries()) all[i]!.push(median(laps(lap, ms)));
  }
  return all;
}

interface Measured {
  name: string;
  spec: WorldSpec;
  /** Nanoseconds a frame, round by round. */
  ns: number[];
  /** Gbit/s of frames. */
  gbps: number;
}

interface Group {
  caption: string;
  worlds: [name: string, spec: WorldSpec][];
}

/** Worlds of a group in turn, `ms` milliseconds each time. */
function compare(worlds: readonly [string, WorldSpec][], rounds: number, ms: number): Measured[] {
  const made = worlds.map(([, spec]) => new World(spec));
  const all = measure(
    made.map((world) => () => world.lap()),
    rounds,
    ms,
  );
  for (const world of made) world.check();
  return worlds.map(([name, spec], i) => {
    const ns = all[i]!;
    return { name, spec, ns, gbps: (made[i]!.frameBytes * 8) / median(ns) };
  });
}

/** The middle of the ratios round by round: how many times as long `a` takes as `b`. */
function ratio(a: readonly number[], b: readonly number[]): number {
  return median(a.map((ns, round) => ns / b[round]!));
}

const ns = (value: number): string => value.toFixed(value < 1000 ? 1 : 0);

function bySizes({ sizes, formats }: Options): [string, WorldSpec][] {
  const all: Size[] = [...sizes, 'tso'];
  return formats.flatMap((format) =>
    all.flatMap((size) =>
      (['wire', 'switch'] as const).map((forwarding): [string, WorldSpec] => [
        `${sizeName(size)}, ${format}, ${forwarding}`,
        { size, format, forwarding },
      ]),
    ),
  );
}

function sizeName(size: Size): string {
  if (size === 'tso') return '64 KiB TSO';
  return size === 'imix' ? 'IMIX' : `${size} B`;
}

const SMALL = { size: 64, format: 'split' } as const;
const PORTS = { ...SMALL, ring: 128 };

/** Port `from` to all others of `ports` in turn. */
const toAll = (ports: number) => (from: number, n: number) =>
  (from + 1 + (n % (ports - 1))) % ports;

const GROUPS: Group[] = [
  {
    caption: 'By queue pairs of the two ports, a flow each: 64 B, split',
    worlds: [1, 2, 4, 8].map((pairs) => [`${pairs}`, { ...SMALL, ring: 512, pairs }]),
  },
  {
    caption: 'By ports: 64 B, split, rings of 128',
    worlds: [
      ['2', PORTS],
      ['16, 2 of them busy', { ...PORTS, ports: 16, busy: 2 }],
      ['64, 2 of them busy', { ...PORTS, ports: 64, busy: 2 }],
      ['256, 2 of them busy', { ...PORTS, ports: 256, busy: 2 }],
      ['16, in busy pairs', { ...PORTS, ports: 16 }],
      ['64, in busy pairs', { ...PORTS, ports: 64 }],
      ['256, in busy pairs', { ...PORTS, ports: 256 }],
      ['16, each to all others', { ...PORTS, ports: 16, target: toAll(16) }],
      ['64, each to all others', { ...PORTS, ports: 64, target: toAll(64) }],
    ],
  },
  {
    caption: 'By entries in the FDB, each frame from and to another: 64 B, split',
    worlds: [
      ['2', SMALL],
      ['1024', { ...SMALL, addresses: 1 << 10, roam: true }],
      ['65536', { ...SMALL, addresses: 1 << 16, roam: true }],
    ],
  },
  {
    caption: 'Beside a full house: 64 B, split, rings of 128, two busy ports',
    worlds: [
      ['alone, FDB empty but for them', PORTS],
      [
        '62 idle ports, 65536 addresses, the same frames',
        { ...PORTS, ports: 64, busy: 2, addresses: 1 << 16 },
      ],
      [
        '62 idle ports, frames of 65536 addresses',
        { ...PORTS, ports: 64, busy: 2, addresses: 1 << 16, roam: true },
      ],
    ],
  },
  ...(['split', 'packed'] as const).flatMap((format) =>
    ([64, 1518, 'tso'] as const).map((size) => ({
      caption: `While both guests migrate, with dirty logs: ${sizeName(size)}, ${format}`,
      worlds: [
        ['not logged', { size, format }],
        ['logged', { size, format, log: true }],
      ] satisfies Group['worlds'],
    })),
  ),
  {
    caption: 'What a lock costs that nobody else wants: 64 B, split',
    worlds: [
      ['none, one worker', SMALL],
      ['locks taken, as with several', { ...SMALL, workers: 2 }],
    ],
  },
];

function table(caption: string, found: readonly Measured[]): Table {
  const first = found[0]!.ns;
  return {
    caption,
    head: ['', 'ns a frame', 'of the first'],
    rows: found.map(({ name, ns: each }) => [
      name,
      ns(median(each)),
      `${ratio(each, first).toFixed(2)}x`,
    ]),
  };
}

/** 64 KiB frames against the copy of their bytes by memory.copy, in the same memory. */
function largeFrames({ formats }: Options, rounds: number, ms: number) {
  const whole = formats.map((format): [string, WorldSpec] => [
    `${format}, buffers of 64 KiB`,
    { size: 'tso', format },
  ]);
  const merged = formats.map((format): [string, WorldSpec] => [
    `${format}, buffers of 4 KiB, merged`,
    { size: 'tso', format, buffer: 4096, receive: 4096 },
  ]);
  const specs = [...whole, ...merged];
  const worlds = specs.map(([, spec]) => new World(spec));
  const reference = new World({ size: 'tso', format: 'split' });
  const all = measure(
    [() => reference.copies(), ...worlds.map((world) => () => world.lap())],
    rounds,
    ms,
  );
  for (const world of worlds) world.check();
  const [copy, ...frames] = all;
  const row = (name: string, each: number[]) => [
    name,
    ns(median(each)),
    ((reference.frameBytes * 8) / median(each)).toFixed(1),
    ratio(copy!, each).toFixed(2),
  ];
  return {
    raw: { copy, frames: specs.map(([name], i) => ({ name, ns: frames[i] })) },
    table: {
      caption: '64 KiB TSO frames against memory.copy of cold blocks, as much memory as theirs',
      head: ['', 'ns a frame', 'Gbit/s', "of memory.copy's speed"],
      rows: [row('memory.copy', copy!), ...specs.map(([name], i) => row(name, frames[i]!))],
    },
  };
}

const LAYOUT_NAMES: Record<keyof typeof LAYOUTS, string> = {
  apart: 'each worker two ports of its own',
  crossed: 'two ports, a worker each',
  together: 'both into one receive ring',
};

/** Two workers against one, guests on the other CPU. */
async function workers(rounds: number) {
  const before = await lineLatency();
  const layouts = Object.keys(LAYOUT_NAMES) as (keyof typeof LAYOUTS)[];
  const runs = [64, 1518].flatMap((size) =>
    layouts.map((layout) => ({ size, layout, rates: [] as number[][] })),
  );
  for (let round = 0; round < rounds; round++) {
    for (const { size, layout, rates } of runs) {
      rates.push(await onTwoCpus(layout, size, 'split', [1, 2], 30));
    }
  }
  const after = await lineLatency();
  const line = [before, after].map(({ ns: each, label }) => `${each.toFixed(0)} ns (${label})`);
  const rows = runs.map(({ size, layout, rates }) => [
    `${size} B, ${LAYOUT_NAMES[layout]}`,
    ns(1000 / median(rates.map(([one]) => one!))),
    ...[0, 1].map((i) => median(rates.map((rate) => rate[i]!)).toFixed(2)),
    `${median(rates.map(([one, two]) => two! / one!)).toFixed(2)}x`,
  ]);
  return {
    raw: { runs, line: [before, after] },
    table: {
      caption: `Guests on the other CPU, and two workers, split; a line took ${line.join(', then ')}`,
      head: ['', 'one worker, ns a frame', 'Mpps', 'two workers, Mpps', 'gain'],
      rows,
    },
  };
}

async function run(options: Options, say: (line: string) => void): Promise<Section> {
  const { rounds } = options;
  // Laps take microseconds: a tenth of what others measure is thousands of them.
  const ms = options.seconds * 100;
  const tables: Table[] = [];
  const raw: Record<string, unknown> = {};
  const add = (made: Table, what: unknown) => {
    tables.push(made);
    raw[made.caption] = what;
    say(`\n${made.caption}`);
    for (const row of made.rows) say(`  ${row.join('   ')}`);
  };

  const bySize = compare(bySizes(options), rounds, ms);
  add(
    {
      caption: 'Two ports, both sending',
      head: ['', 'ns a frame', 'Gbit/s'],
      rows: bySize.map(({ name, ns: each, gbps }) => [name, ns(median(each)), gbps.toFixed(1)]),
    },
    bySize,
  );
  const large = largeFrames(options, rounds, ms);
  add(large.table, large.raw);
  for (const group of GROUPS) {
    const found = compare(group.worlds, rounds, ms);
    add(table(group.caption, found), found);
  }
  const notes = [
    'The datapath alone on one thread, no sockets, no kicks: our own drivers fill the rings while the ' +
      'clock stands, only poll() is timed, half of what the rings hold at a time. Guests and switch ' +
      'share one core and its caches here; beside real guests each line comes from another core.',
    `Medians of ${rounds} rounds of ${ms} ms taken in turn, each of them the median of its laps; ratios ` +
      `round by round. The clock adds ${clockCost().toFixed(0)} ns a lap of 128 frames or more.`,
  ];
  if (enoughCpus()) {
    const found = await workers(rounds);
    add(found.table, found.raw);
    notes.push(
      'Two workers: real threads on CPUs 0 and 1, on one memory. A ring is always driven from the CPU ' +
        'that its worker is not on, with one worker as with two, and its frames are written and read there, ' +
        'so that lines travel as they do beside real guests; drivers stand while workers run, so that no ' +
        'third CPU is wanting. ' +
        'What two gain together is the sum of both rates. "one worker" is also what a frame costs ' +
        'with guests on another CPU, and no generator in the way.',
    );
  } else {
    notes.push('Two workers were not measured: that takes two CPUs, and this machine has one.');
  }
  const charts = [
    {
      title: 'The datapath alone, in process, switch',
      unit: 'Gbit/s',
      bars: bySize
        .filter(({ spec }) => spec.forwarding === 'switch')
        .map(({ spec, gbps }) => ({ group: sizeName(spec.size), name: spec.format, value: gbps })),
    },
  ];
  return { title: 'In process: the datapath without a peer', notes, tables, charts, raw };
}

export const inprocCase: Case = {
  name: 'inproc',
  about: 'the datapath alone, anywhere: by frame, queues, ports, addresses; 1 and 2 workers',
  needs: [],
  estimate: ({ rounds, seconds }) => 25 + rounds * 5 * seconds,
  run,
};

const KNOWN_FORMATS = ['split', 'packed', 'in-order'];

/** What the arguments name, and otherwise the usual: a line each. */
async function quick(args: readonly string[]): Promise<void> {
  const words = [...KNOWN_FORMATS, 'wire', 'other-cpu'];
  const named = args.filter((arg) => !words.includes(arg));
  const sizes = named.map((arg): Size => (arg === 'imix' || arg === 'tso' ? arg : Number(arg)));
  const bad = sizes.findIndex((size) => typeof size === 'number' && !(size >= 60 && size <= 1518));
  if (bad >= 0) throw new RangeError(`'${named[bad]}' is no length from 60 to 1518, imix or tso`);
  const formats = KNOWN_FORMATS.filter((format) => args.includes(format));
  if (formats.length === 0) formats.push('split', 'packed');
  if (args.includes('other-cpu')) await quickOtherCpu(sizes, formats);
  else quickHere(sizes, formats, args.includes('wire') ? 'wire' : 'switch');
}

function quickHere(sizes: Size[], formats: string[], forwarding: 'wire' | 'switch'): void {
  if (sizes.length === 0) sizes.push(64, 1518, 'tso');
  const worlds = formats.flatMap((format) =>
    sizes.map((size): [string, WorldSpec] => [
      `${sizeName(size)}, ${format}, ${forwarding}`,
      { size, format, forwarding },
    ]),
  );
  for (const { name, ns: each, gbps } of compare(worlds, 5, 50)) {
    const span = [Math.min(...each), Math.max(...each)].map(ns).join('-');
    console.log(
      `${name.padEnd(26)} ${ns(median(each))} ns/frame (${span}), ${gbps.toFixed(1)} Gb/s`,
    );
  }
}

async function quickOtherCpu(sizes: Size[], formats: string[]): Promise<void> {
  if (!enoughCpus()) throw new Error('other-cpu takes two CPUs, and this machine has one');
  if (sizes.length === 0) sizes.push(64, 1518);
  const line = async () => {
    const { ns: each, label } = await lineLatency();
    return `a line takes ${each.toFixed(0)} ns (${label})`;
  };
  console.log(await line());
  for (const format of formats) {
    for (const size of sizes) {
      if (size === 'tso') throw new RangeError('tso is not for other-cpu');
      const [rate] = await onTwoCpus('crossed', size, format, [1], 60);
      console.log(`${`${sizeName(size)}, ${format}`.padEnd(26)} ${ns(1000 / rate!)} ns/frame`);
    }
  }
  console.log(await line());
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await quick(process.argv.slice(2));
