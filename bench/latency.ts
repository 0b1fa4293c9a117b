// How long one frame takes: to and fro between two guests of ours (latency-player.ts), through a switch
// in another process, idle and under load, and from sleep.

import { join } from 'node:path';
import koffi from 'koffi';
import {
  Child,
  exec,
  removeFolder,
  requirePeers,
  temporaryFolder,
  waitFor,
} from '../test/peers/process.ts';
import { openTaps } from '../test/peers/tap.ts';
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
import type { Answer, Round } from './latency-player.ts';
import { lineLatency } from './line-latency.ts';
import { pagesHere } from './machine.ts';
import { type Percentiles, percentiles } from './percentiles.ts';

/** Bytes of the frame whose time is taken. */
const PING = 64;
/** Of the frames beside it: long ones, for one thread plays both guests and has to keep up. */
const LOAD = 1514;
/** Milliseconds for the engine and the switch to warm up, and to find out what the switch can carry. */
const WARM = 500;
/** Milliseconds without a frame: ten times as long as any worker spins before it sleeps. */
const REST = 1;

/** Frames a microsecond: more than anybody carries. */
const FLOOD = 1000;

/** CPU of the switch; the player has the other. */
const DUT_CPU = 0;

const KINDS = {
  poll: 'There and back, idle, guests poll',
  call: 'There and back, idle, guests sleep until called',
  rest: 'One way after 1 ms of rest: kick, wake-up, frame; the receiver polls',
  load: 'There and back at half load, guests poll',
} as const;
type Kind = keyof typeof KINDS;

/** Microseconds, and under load frames a microsecond: the most it carried, half of that, what arrived. */
interface Found {
  times: Partial<Record<Kind, Percentiles>>;
  load?: { most: number; asked: number; arrived: number };
}

type Run = Found & OnLine;

interface Entrant {
  name: string;
  run(seconds: number): Promise<Found>;
}

function through(contender: Contender): Entrant {
  return {
    name: contender.name,
    async run(seconds) {
      const folder = temporaryFolder();
      const sockets = [join(folder, 'a'), join(folder, 'b')] as const;
      try {
        const running = await contender.start(sockets, DUT_CPU);
        try {
          const player = await Player.start(sockets);
          try {
            return await playAll(player, seconds * 1000);
          } finally {
            await player.stop();
          }
        } finally {
          await running.stop();
        }
      } finally {
        removeFolder(folder);
      }
    },
  };
}

async function playAll(player: Player, ms: number): Promise<Found> {
  const common = { bytes: PING, ms };
  await player.play({ ...common, kind: 'poll', ms: WARM });
  const poll = await player.play({ ...common, kind: 'poll' });
  const call = await player.play({ ...common, kind: 'call' });
  const rest = await player.play({ ...common, kind: 'rest', rest: REST });
  const flood = await player.play({ ...common, kind: 'load', load: LOAD, rate: FLOOD, ms: WARM });
  const asked = flood.rate / 2;
  const load = await player.play({ ...common, kind: 'load', load: LOAD, rate: asked });
  return {
    times: { poll: poll.times, call: call.times, rest: rest.times, load: load.times },
    load: { most: flood.rate, asked, arrived: load.rate },
  };
}

class Player {
  readonly #child: Child;
  #read = 0;

  private constructor(child: Child) {
    this.#child = child;
  }

  static async start(sockets: readonly [string, string]): Promise<Player> {
    const script = join(import.meta.dirname, 'latency-player.ts');
    const cpus = `${1 - DUT_CPU}`;
    const player = new Player(new Child(process.execPath, [script, ...sockets], { cpus }));
    await player.#line(10_000);
    return player;
  }

  async play(round: Round): Promise<Answer> {
    this.#child.write(`${JSON.stringify(round)}\n`);
    return JSON.parse(await this.#line(round.ms + 20_000)) as Answer;
  }

  async stop(): Promise<void> {
    this.#child.kill();
    await this.#child.exited;
  }

  async #line(ms: number): Promise<string> {
    const child = this.#child;
    const end = () => child.stdout.indexOf('\n', this.#read);
    const there = () => {
      if (child.exit !== undefined) throw new Error(`the player ended\n${child.tail()}`);
      return end() >= 0;
    };
    await waitFor(there, ms, 'the player', () => child.tail());
    const line = child.stdout.slice(this.#read, end());
    this.#read = end() + 1;
    return line;
  }
}

/** Two TAPs on a kernel bridge, written and read by this thread: what the kernel does inside write(2). */
const bridge: Entrant = {
  name: 'TAP + bridge',
  async run(seconds) {
    const { taps, close } = await openTaps(0, 0);
    try {
      const [a, b] = taps.map(({ fd }) => fd) as [number, number];
      const libc = koffi.load(null);
      const write = libc.func('intptr_t write(int fd, void *bytes, size_t length)');
      const read = libc.func('intptr_t read(int fd, void *bytes, size_t length)');
      // A virtio header of 10 bytes, then the frame. The bridge learns the addresses while it warms up.
      const [there, back, got] = [PING, PING, 2048].map((length) => Buffer.alloc(10 + length));
      there!.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5], 10);
      back!.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5], 10);
      const pass = (from: number, frame: Buffer, to: number): boolean => {
        if (write(from, frame, frame.length) !== frame.length) return false;
        for (const end = performance.now() + 1000; performance.now() < end; ) {
          if (read(to, got, got!.length) === frame.length) return true;
        }
        return false;
      };
      const times: number[] = [];
      const repeat = (ms: number) => {
        for (const end = performance.now() + ms; performance.now() < end; ) {
          const start = performance.now();
          if (!pass(a, there!, b) || !pass(b, back!, a)) {
            throw new Error('the bridge lost a frame');
          }
          times.push((performance.now() - start) * 1000);
        }
      };
      repeat(WARM);
      times.length = 0;
      repeat(seconds * 1000);
      return { times: { poll: percentiles(times) } };
    } finally {
      await close();
    }
  },
};

const wakeUp: Entrant = {
  name: 'eventfd alone',
  async run(seconds) {
    const script = join(import.meta.dirname, 'latency-wake.ts');
    const said = await exec(process.execPath, [script, `${seconds}`], {
      ms: seconds * 1000 + 10_000,
    });
    return { times: { rest: JSON.parse(said) as Percentiles } };
  },
};

const us = (value: number | undefined): string => value?.toFixed(1) ?? '-';

async function run({ rounds, seconds }: Options, say: (line: string) => void): Promise<Section> {
  const notes = [
    'One thread plays both guests, on split rings of 1024 of our own driver over vhost-user sockets, and ' +
      `has CPU ${1 - DUT_CPU}; the switch has CPU ${DUT_CPU}. Frames of ${PING} B, microseconds.`,
    `Half load: frames of ${LOAD} B, half of them each way, at half the rate of what arrived when that ` +
      'one thread sent all it could; it may be the limit before the switch is.',
    'The bridge takes a frame from one TAP to the other inside the write of the thread that sends, on ' +
      'the same CPU: nobody has to be woken. "eventfd alone" is a thread that sleeps and is woken, with ' +
      'no switch at all: what a machine takes for that no switch that sleeps can go below.',
  ];
  const entrants: Entrant[] = [through(vhop('switch'))];
  const lacking = { skip: (why: string) => void notes.push(`Left out: ${why}`) };
  if (requirePeers(lacking, ['testpmd'])) {
    entrants.push(through(vhostPmd({ pages: pagesHere() })));
  }
  if (requirePeers(lacking, ['net'])) entrants.push(bridge);
  entrants.push(wakeUp);
  const all = await inTurn(entrants, rounds, async (entrant): Promise<Run> => {
    const before = await lineLatency();
    const found = await entrant.run(seconds);
    const played: Run = { ...found, line: [before.ns, (await lineLatency()).ns] };
    const said = Object.entries(found.times).map(([kind, { p50, p99 }]) => {
      return `${kind} ${us(p50)}/${us(p99)}`;
    });
    say(`  ${entrant.name}: p50/p99 ${said.join(', ')} us; line ${lineText(played)}`);
    return played;
  });
  const runs = entrants.map(({ name }, i) => ({ name, runs: all[i]! }));
  return {
    title: 'Latency of one frame',
    notes,
    tables: [...(Object.keys(KINDS) as Kind[]).map((kind) => table(kind, runs)), loads(runs)],
    charts: [chart('poll', runs), chart('rest', runs)],
    raw: runs,
  };
}

interface Runs {
  name: string;
  runs: readonly Run[];
}

/** The middle of what the rounds say, NaN where a contender has no such kind. */
function middle(runs: readonly Run[], kind: Kind, which: keyof Percentiles): number {
  return median(runs.flatMap(({ times }) => times[kind]?.[which] ?? []));
}

function table(kind: Kind, all: readonly Runs[]): Table {
  const [ours] = all;
  return {
    caption: KINDS[kind],
    head: ['', 'p50, us', 'p99', 'p99.9', 'p50 of vhop against it', 'line before > after'],
    rows: all
      .filter(({ runs }) => runs.some(({ times }) => times[kind]))
      .map(({ name, runs }) => {
        return [
          name,
          ...(['p50', 'p99', 'p999'] as const).map((which) => us(middle(runs, kind, which))),
          ratioText(compare(ours!.runs, runs, ({ times }) => times[kind]?.p50)),
          runs.map(lineText).join('; '),
        ];
      }),
  };
}

function loads(all: readonly Runs[]): Table {
  return {
    caption: 'The load, Mpps',
    head: ['', 'the most that arrived', 'asked for', 'arrived'],
    rows: all.flatMap(({ name, runs }) => {
      const found = runs.flatMap(({ load }) => load ?? []);
      if (found.length === 0) return [];
      const of = (which: 'most' | 'asked' | 'arrived') =>
        median(found.map((load) => load[which])).toFixed(2);
      return [[name, of('most'), of('asked'), of('arrived')]];
    }),
  };
}

function chart(kind: Kind, all: readonly Runs[]): Chart {
  return {
    title: KINDS[kind],
    unit: 'us',
    bars: (['p50', 'p99'] as const).flatMap((which) =>
      all
        .map(({ name, runs }) => ({ group: which, name, value: middle(runs, kind, which) }))
        .filter(({ value }) => !Number.isNaN(value)),
    ),
  };
}

export const latencyCase: Case = {
  name: 'latency',
  about: 'one frame to and fro: idle, at half load, from sleep; vhop, vhost PMD, TAP + bridge',
  needs: [],
  estimate: ({ rounds, seconds }) => rounds * (7 * seconds + 15),
  run,
};
