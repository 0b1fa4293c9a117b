// What a switch with 64 ports takes while nothing happens: CPU, memory, threads; and how long it takes
// to start.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectTo } from '../src/control/client.ts';
import { close, connectUnix } from '../src/linux/index.ts';
import { Child, removeFolder, root, temporaryFolder, waitFor } from '../test/peers/process.ts';
import { type Case, median, type Options, type Section } from './case.ts';
import { FrontEnd, MEMORY_NAME } from './front-end.ts';

const PORTS = 64;
const STARTS = 10;
/** Milliseconds until what a start or a connection left to do is done: the compiler's threads, say. */
const SETTLE = 3000;
const MIB = 1 << 20;

/** What its guests are; with 0 pairs nobody is connected. */
const STATES = [
  { name: 'nobody connected', pairs: 0 },
  { name: '64 idle guests, 1 queue pair each', pairs: 1 },
  { name: '64 idle guests, 8 queue pairs each', pairs: 8 },
];

interface Idle {
  name: string;
  /** Of one CPU, 1 is all of it; by round. */
  cpu: number[];
  /** Bytes resident, guests' memory left out, and of guests' memory. */
  resident: number;
  guests: number;
  threads: number;
}

/** A switch with its sockets in a folder of its own. */
class Vhop {
  readonly sockets: string[];
  readonly #folder = temporaryFolder();
  readonly #control: string;
  readonly #child: Child;

  constructor() {
    this.sockets = Array.from({ length: PORTS }, (_, i) => join(this.#folder, `${i}`));
    this.#control = join(this.#folder, 'control');
    const args = ['switch', ...this.sockets, '--control', this.#control];
    this.#child = new Child(join(root, 'bin/vhop'), args);
  }

  /** Resolves when every socket takes connections. */
  async accepts(): Promise<void> {
    for (const path of this.sockets) {
      const there = () => {
        try {
          close(connectUnix(path));
          return true;
        } catch {
          if (this.#child.exit !== undefined) throw new Error(`vhop ended\n${this.#child.tail()}`);
          return false;
        }
      };
      while (!there()) await sleep(1);
    }
  }

  async running(): Promise<void> {
    const runs = () => this.#child.stdout.includes('runs (pid');
    await waitFor(runs, 20_000, 'vhop', () => this.#child.tail());
  }

  /** Ports whose guests are there, with rings that run. */
  async up(): Promise<number> {
    const ports = await connectTo(this.#control).get('/ports');
    return ports.filter(({ state }) => state === 'up').length;
  }

  /** It replaces the programs that start it one after another, and so has their process id. */
  get pid(): number {
    return this.#child.pid;
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGTERM');
    await this.#child.finish(10_000);
    removeFolder(this.#folder);
  }
}

/** Nanoseconds that all threads of a process have run. */
function ran(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.reduce((sum, tid) => {
    const spent = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0];
    return sum + Number(spent);
  }, 0);
}

/** Resident bytes of a process: all of them, and those of the guests' memory it has mapped. */
function residence(pid: number): { all: number; guests: number } {
  let [all, guests] = [0, 0];
  let guest = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    if (/^[\da-f]+-[\da-f]+ /.test(line)) guest = line.includes(MEMORY_NAME);
    const bytes = Number(/^Rss: +(\d+) kB/.exec(line)?.[1] ?? 0) * 1024;
    all += bytes;
    if (guest) guests += bytes;
  }
  return { all, guests };
}

async function look(name: string, pid: number, { rounds, seconds }: Options): Promise<Idle> {
  await sleep(SETTLE);
  const cpu: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const [before, start] = [ran(pid), performance.now()];
    await sleep(seconds * 1000);
    cpu.push((ran(pid) - before) / ((performance.now() - start) * 1e6));
  }
  const { all, guests } = residence(pid);
  const threads = readdirSync(`/proc/${pid}/task`).length;
  return { name, cpu, resident: all - guests, guests, threads };
}

async function run(options: Options, say: (line: string) => void): Promise<Section> {
  const starts: number[] = [];
  for (let i = 0; i < STARTS; i++) {
    const start = performance.now();
    const vhop = new Vhop();
    await vhop.accepts();
    starts.push(performance.now() - start);
    await vhop.running();
    await vhop.stop();
  }
  say(`  ${PORTS} sockets accept after ${median(starts).toFixed(0)} ms`);
  const found: Idle[] = [];
  for (const { name, pairs } of STATES) {
    const vhop = new Vhop();
    await vhop.accepts();
    await vhop.running();
    const guests = pairs === 0 ? [] : vhop.sockets.map((path) => new FrontEnd(path, { pairs }));
    const up = await vhop.up();
    if (up !== guests.length) throw new Error(`${up} ports are up, not ${guests.length}`);
    const idle = await look(name, vhop.pid, options);
    found.push(idle);
    for (const guest of guests) guest.close();
    await vhop.stop();
    say(`  ${row(idle).join('   ')}`);
  }
  return {
    title: `A switch with ${PORTS} ports while nothing happens`,
    notes: [
      'A process of its own, one worker. Guests are vhost-user front ends with rings of 256 that have ' +
        'posted their receive buffers and wait. CPU: what all its threads ran, of one CPU, from ' +
        `/proc/PID/task/*/schedstat. Resident: Rss of all mappings in /proc/PID/smaps, less those of ` +
        "the guests' memory, which is theirs.",
      `Started ${STARTS} times: from the start of bin/vhop, a shell script, until a connection to every ` +
        'one of its sockets succeeds.',
      "DPDK's vhost PMD and OVS-DPDK poll: each of their cores is busy all the time.",
    ],
    tables: [
      {
        caption: 'Idle',
        head: ['', 'CPU, % of one', 'resident, MiB', "guests' memory, MiB", 'threads'],
        rows: found.map(row),
      },
      {
        caption: 'Start',
        head: ['', 'median, ms', 'least', 'most'],
        rows: [
          [
            `until ${PORTS} sockets accept`,
            ...[median(starts), Math.min(...starts), Math.max(...starts)].map((ms) =>
              ms.toFixed(0),
            ),
          ],
        ],
      },
    ],
    charts: [],
    raw: { starts, found },
  };
}

function row({ name, cpu, resident, guests, threads }: Idle): string[] {
  const percent = (median(cpu) * 100).toFixed(2);
  return [name, percent, ...[resident, guests].map((n) => (n / MIB).toFixed(0)), `${threads}`];
}

export const idleCase: Case = {
  name: 'idle',
  about: 'a switch with 64 ports at rest: CPU, memory, threads; and how long it takes to start',
  needs: [],
  estimate: ({ rounds, seconds }) => 20 + 3 * (3 + rounds * seconds),
  run,
};
