// What a second worker adds: two datapath threads on two CPUs, on one memory. Drivers stand still while
// workers run and the other way round, so that two CPUs are enough and nothing but polling is timed.

import { availableParallelism } from 'node:os';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import {
  NO_RING,
  RING_WORKER,
  SWITCH_WORKERS,
  WORKER_BASE,
  WORKER_CURRENT,
  WORKER_GENERATION,
  WORKER_LOCKED,
  WORKER_STRIDE,
} from '../src/abi/layout.ts';
import { setAffinity } from '../src/linux/index.ts';
import { Control, ringAddress } from '../src/memory/control.ts';
import { loadDatapath } from '../src/worker/datapath.ts';
import { median } from './case.ts';
import { pollFor, type Queue, refill, World } from './inproc-world.ts';

interface Layout {
  /** Who drives each port, and polls it where there are two workers. */
  owners: readonly number[];
  /** The first so many ports send, each to its target. */
  busy: number;
  target(from: number): number;
}

export const LAYOUTS: Record<string, Layout> = {
  'each worker its own two ports': { owners: [0, 0, 1, 1], busy: 4, target: (from) => from ^ 1 },
  'two ports, a worker each': { owners: [0, 1], busy: 2, target: (from) => from ^ 1 },
  'both into one receive ring': { owners: [0, 1, 0], busy: 2, target: () => 2 },
};

/** Laps with one worker, then as many with two. */
const BLOCK = 16;
/** Blocks until the engine has compiled what is timed. */
const WARM = 20;

export interface WorkersResult {
  layout: string;
  size: number;
  /** Frames a microsecond: of one worker that polls all, and of two together. */
  one: number;
  two: number;
}

interface Job {
  inprocWorker: number;
  memory: WebAssembly.Memory;
  sync: SharedArrayBuffer;
  tx: Queue[];
  rx: Queue[];
  /** All that is sent on, and whose it is with two workers. */
  all: { ring: number; owner: number }[];
  lapFrames: number;
  blocks: number;
}

export function enoughCpus(): boolean {
  return availableParallelism() >= 2;
}

/** Both in turn, `blocks` times, on CPUs 0 and 1. */
export async function twoWorkers(
  layout: string,
  size: number,
  format: string,
  blocks: number,
): Promise<WorkersResult> {
  const { owners, busy, target } = LAYOUTS[layout]!;
  const world = new World({ size, format, ring: 1024, ports: owners.length, busy, target });
  const { control } = world.rig;
  const sync = new SharedArrayBuffer(64);
  const of = (queues: Queue[], owner: number) => queues.filter((_, port) => owners[port] === owner);
  const threads = [0, 1].map((id) => {
    const block = WORKER_BASE + id * WORKER_STRIDE;
    control.set(block + WORKER_LOCKED, NO_RING);
    control.set(block + WORKER_CURRENT, NO_RING);
    const job: Job = {
      inprocWorker: id,
      memory: control.memory,
      sync,
      tx: of(world.tx, id),
      rx: of(world.rx, id),
      all: world.tx.map(({ ring }, port) => ({ ring, owner: owners[port]! })),
      lapFrames: world.lapFrames,
      blocks: WARM + blocks,
    };
    return new Worker(new URL(import.meta.url), { workerData: job });
  });
  try {
    const times = await Promise.all(
      threads.map(
        (thread) =>
          new Promise<number[][]>((resolve, reject) => {
            thread.once('message', resolve).once('error', reject);
          }),
      ),
    );
    world.check();
    const [mine, other] = times as [number[][], number[][]];
    const half = world.lapFrames / 2;
    const one = median(mine[0]!.map((us) => world.lapFrames / us));
    const two = median(mine[1]!.map((us, lap) => half / us + half / other[1]![lap]!));
    return { layout, size, one, two };
  } finally {
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
}

/** One of the two threads. Posts microseconds of each lap: with one worker, and with two. */
function work(job: Job): void {
  const { inprocWorker: id, memory, tx, rx, all, lapFrames, blocks } = job;
  setAffinity([id]);
  const control = new Control(memory);
  const datapath = loadDatapath(memory, { call() {}, latched() {} });
  datapath.init(id);
  const met = new Int32Array(job.sync);
  let meetings = 0;
  const meet = (): void => {
    Atomics.add(met, 0, 1);
    for (meetings += 2; Atomics.load(met, 0) < meetings; );
  };
  const workers = (count: number): void => {
    for (const { ring, owner } of all) {
      control.set(ringAddress(ring) + RING_WORKER, count === 1 ? 0 : owner);
    }
    control.set(SWITCH_WORKERS, count);
    for (let i = 0; i < 2; i++) control.add(WORKER_BASE + i * WORKER_STRIDE + WORKER_GENERATION, 1);
  };
  const times: [number[], number[]] = [[], []];
  for (let block = 0; block < blocks; block++) {
    for (const count of [1, 2]) {
      meet();
      if (id === 0) workers(count);
      for (let lap = 0; lap < BLOCK; lap++) {
        meet();
        for (const queue of rx) refill(datapath, queue);
        for (const queue of tx) refill(datapath, queue);
        meet();
        if (id >= count) continue;
        const start = performance.now();
        const taken = pollFor(datapath, lapFrames / count);
        const us = ((performance.now() - start) * 1000 * (lapFrames / count)) / taken;
        // The first lap makes the list of rings anew.
        if (lap > 0 && block >= WARM) times[count - 1]!.push(us);
      }
    }
  }
  parentPort!.postMessage(times);
}

const job = workerData as Job | null;
if (!isMainThread && job?.inprocWorker !== undefined) work(job);
