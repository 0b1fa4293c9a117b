// The switch without any peer, wherever it runs: what a frame costs the datapath, one thread, all in
// process. Our own drivers fill the rings while the clock stands.
//
// For whoever tunes the datapath, in under 5 seconds:
//   node bench/inproc.ts [SIZE, imix, tso ...] [split, packed, in-order ...] [wire]

import { fileURLToPath } from 'node:url';
import { type Case, median, type Options, type Section, type Table } from './case.ts';
import { enoughCpus, LAYOUTS, twoWorkers, type WorkersResult } from './inproc-workers.ts';
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
    { size: 'tso', format, buffer: 4096, ring: 64, receive: 1024 },
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

async function workers(rounds: number) {
  const runs: WorkersResult[] = [];
  const before = await lineLatency();
  for (const size of [64, 1518]) {
    for (const layout of Object.keys(LAYOUTS)) {
      for (let round = 0; round < rounds; round++) {
        runs.push(await twoWorkers(layout, size, 'split', 30));
      }
    }
  }
  const after = await lineLatency();
  const rows = [64, 1518].flatMap((size) =>
    Object.keys(LAYOUTS).map((layout) => {
      const mine = runs.filter((run) => run.size === size && run.layout === layout);
      const [one, two] = [mine.map((run) => run.one), mine.map((run) => run.two)];
      const gain = median(mine.map((run) => run.two / run.one));
      return [
        `${size} B, ${layout}`,
        median(one).toFixed(2),
        median(two).toFixed(2),
        `${gain.toFixed(2)}x`,
      ];
    }),
  );
  const line = [before, after].map(({ ns: each, label }) => `${each.toFixed(0)} ns (${label})`);
  const caption = `Two workers against one, split; a line takes ${line.join(', then ')}`;
  return {
    raw: { runs, line: [before, after] },
    table: { caption, head: ['', 'one, Mpps', 'two, Mpps', 'gain'], rows },
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
      `round by round. The clock adds ${clockCost().toFixed(0)} ns a lap of at least 64 frames (32 of ` +
      '64 KiB).',
  ];
  if (enoughCpus()) {
    const found = await workers(rounds);
    add(found.table, found.raw);
    notes.push(
      'Two workers: real threads on CPUs 0 and 1, on one memory; drivers stand while workers run, so ' +
        'that no CPU is wanting. With one worker the other thread still drives its own ports. What ' +
        'the two gain together is the sum of both rates.',
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

export const inproc: Case = {
  name: 'inproc',
  about: 'the datapath alone, anywhere: by frame, queues, ports, addresses; 1 and 2 workers',
  needs: [],
  run,
};

/** What the arguments name, everything by default: a line each. */
function quick(args: readonly string[]): void {
  const known = ['split', 'packed', 'in-order'];
  const formats = known.filter((format) => args.includes(format));
  const named = args.filter((arg) => !known.includes(arg) && arg !== 'wire');
  const asked = named.map((arg): Size => (arg === 'imix' || arg === 'tso' ? arg : Number(arg)));
  const bad = asked.find((size) => typeof size === 'number' && !(size >= 60 && size <= 65557));
  if (bad !== undefined) throw new RangeError(`frames of '${named[asked.indexOf(bad)]}' bytes?`);
  const forwarding = args.includes('wire') ? 'wire' : 'switch';
  const worlds = (formats.length > 0 ? formats : ['split', 'packed']).flatMap((format) =>
    (asked.length > 0 ? asked : [64, 1518, 'tso' as const]).map((size): [string, WorldSpec] => [
      `${sizeName(size)}, ${format}, ${forwarding}`,
      { size, format, forwarding },
    ]),
  );
  const rounds = 5;
  for (const { name, ns: each, gbps } of compare(worlds, rounds, 50)) {
    const span = [Math.min(...each), Math.max(...each)].map(ns).join('-');
    console.log(
      `${name.padEnd(26)} ${ns(median(each))} ns/frame (${span}), ${gbps.toFixed(1)} Gb/s`,
    );
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) quick(process.argv.slice(2));
