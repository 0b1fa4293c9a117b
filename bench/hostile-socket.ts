// What a front end that never rests costs an innocent pair of guests in process, on the same switch. The
// flooder is stopped and continued in turn, so that near is compared with near.
//
// Two figures: the pair's rate, which on a small machine includes the CPU that flooder and main take; and
// frames by CPU time of the pair's own threads, which other load on the machine does not touch.
// Run: npm run bench -- --cases flood

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { WORKER_BASE, WORKER_GENERATION } from '../src/abi/layout.ts';
import { openSwitch, startTraffic } from '../src/api/index.ts';
import { serveControl } from '../src/control/server.ts';
import { type Case, median } from './case.ts';
import type { Kind } from './flood.ts';
import type { Latency } from './probe.ts';

/** `rest` is the control: what the machine does by itself. */
export const FLOODS: readonly Kind[] = [
  'rest',
  'features',
  'enable',
  'call',
  'restart',
  'memory',
  'refused',
  'connect',
];

/** Milliseconds of flood before the count begins: what a burst may use is used up. */
const WARM = 3000;
/** Milliseconds of each look, at rest and under the flood in turn. */
const LOOK = 300;

export interface FloodResult {
  kind: Kind;
  /** The pair's rate under the flood against that at rest, look by look. */
  rates: number[];
  /** The same of its frames by CPU time of the worker and the guests. */
  efficiency: number[];
  /** Shares of one CPU used under the flood: by the switch's main thread, and by the flooder. */
  main: number;
  flooder: number;
  /** Times a second that the workers were quiesced. */
  quiesced: number;
  /** What another port and the control socket wait for answers, from the flood's first request on. */
  latency: Latency;
}

/**
 * What each flood of `kinds` costs the pair, over `looks` pairs of looks, on a switch with `idle` more
 * ports of 8 queue pairs that do nothing.
 */
export async function floods(
  kinds: readonly Kind[],
  looks: number,
  idle: number,
): Promise<FloodResult[]> {
  const folder = mkdtempSync(join(tmpdir(), 'vhop-flood-'));
  const path = join(folder, 'flood.sock');
  const lab = await openSwitch();
  const calm = join(folder, 'calm.sock');
  await lab.addPort({ type: 'vhost-user', path });
  await lab.addPort({ type: 'vhost-user', path: calm });
  for (let i = 0; i < idle; i++) {
    lab.addMemoryPort({ type: 'memory', name: `idle-${i}`, queues: 8, ringSize: 64 });
  }
  const control = await serveControl(lab, join(folder, 'control.sock'));
  const traffic = startTraffic(lab, { frames: Number.POSITIVE_INFINITY, length: 60, check: false });
  const now = (child: ChildProcess) => ({
    frames: traffic.counts().reduce((sum, { received }) => sum + received, 0),
    time: performance.now(),
    main: cpuOf(process.pid, process.pid),
    all: cpuOf(process.pid),
    flooder: cpuOf(child.pid!),
    quiesced: lab.control.get(WORKER_BASE + WORKER_GENERATION),
  });
  const look = async (child: ChildProcess) => {
    const from = now(child);
    await sleep(LOOK);
    const to = now(child);
    const time = to.time - from.time;
    const main = to.main - from.main;
    const frames = to.frames - from.frames;
    return {
      rate: frames / time,
      efficiency: frames / (to.all - from.all - main),
      main: main / time,
      flooder: (to.flooder - from.flooder) / time,
      quiesced: (to.quiesced - from.quiesced) / (time / 1000),
    };
  };
  const results: FloodResult[] = [];
  try {
    for (const kind of kinds) {
      // The probe looks on from before the first request.
      const probing = probe(calm, control.path, WARM / 1000);
      await sleep(500);
      const child = await flooder(path, kind);
      const latency = await probing;
      const result: FloodResult = {
        kind,
        rates: [],
        efficiency: [],
        main: 0,
        flooder: 0,
        quiesced: 0,
        latency,
      };
      for (let i = 0; i < looks; i++) {
        child.kill('SIGSTOP');
        await sleep(20);
        const rest = await look(child);
        child.kill('SIGCONT');
        await sleep(20);
        const flood = await look(child);
        result.rates.push(flood.rate / rest.rate);
        result.efficiency.push(flood.efficiency / rest.efficiency);
        result.main += flood.main / looks;
        result.flooder += flood.flooder / looks;
        result.quiesced += flood.quiesced / looks;
      }
      child.kill('SIGKILL');
      await new Promise((done) => child.once('exit', done));
      while (lab.ports()[0]?.state !== 'listening') await sleep(5);
      results.push(result);
    }
  } finally {
    await traffic.stop();
    await control.close();
    await lab.close();
    rmSync(folder, { recursive: true });
  }
  return results;
}

/** Milliseconds of CPU that a process, or one thread of it, has used. */
function cpuOf(pid: number, thread?: number): number {
  const threads = thread === undefined ? readdirSync(`/proc/${pid}/task`) : [`${thread}`];
  return threads.reduce((sum, tid) => {
    const spent = readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0];
    return sum + Number(spent) / 1e6;
  }, 0);
}

async function probe(port: string, control: string, seconds: number): Promise<Latency> {
  const script = join(import.meta.dirname, 'probe.ts');
  const args = [script, port, control, `${seconds}`];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  return JSON.parse(stdout) as Latency;
}

async function flooder(path: string, kind: Kind): Promise<ChildProcess> {
  const script = join(import.meta.dirname, 'flood.ts');
  const child = spawn(process.execPath, [script, path, kind], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((done) => child.stdout!.once('data', done));
  return child;
}

/** Idle ports beside the pair. */
const IDLE = [0, 64];
/** Looks a round: they are short. */
const LOOKS = 10;

export const floodCase: Case = {
  name: 'flood',
  about: 'what a front end that never rests costs others on its switch',
  needs: [],
  estimate: ({ rounds }) =>
    IDLE.length * FLOODS.length * (4 + (rounds * LOOKS * 2 * (LOOK + 20)) / 1000),
  async run({ rounds }, say) {
    const found: { idle: number; runs: FloodResult[] }[] = [];
    for (const idle of IDLE) {
      say(`${FLOODS.length} floods, ${idle} idle ports`);
      found.push({ idle, runs: await floods(FLOODS, rounds * LOOKS, idle) });
    }
    return {
      title: 'A front end that never rests',
      notes: [
        'Two guests in process exchange frames beside a front end that repeats one kind of request: their ' +
          'rate under the flood against that at rest, and the same of frames by CPU time of their own threads. ' +
          "Requests are another port's, queries `vhop ports`: median and worst.",
      ],
      tables: found.map(({ idle, runs }) => ({
        caption: `${idle} idle ports of 8 queue pairs beside them`,
        head: [
          ...['flood', 'rate', 'by CPU time', 'CPU of main, %', 'of the flooder, %'],
          ...['quiesces a second', 'request, ms', 'query, ms'],
        ],
        rows: runs.map((run) => [
          ...[run.kind, median(run.rates).toFixed(3), median(run.efficiency).toFixed(3)],
          ...[(run.main * 100).toFixed(1), (run.flooder * 100).toFixed(1), run.quiesced.toFixed(0)],
          ...[run.latency.request, run.latency.query].map((ms) =>
            ms.map((each) => each.toFixed(1)).join(' / '),
          ),
        ]),
      })),
      charts: [],
      raw: found,
    };
  },
};
