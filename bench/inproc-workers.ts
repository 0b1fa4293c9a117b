// Datapath threads on two CPUs and one memory: what a frame costs when the rings' other ends are on
// another CPU, and what a second worker adds. Drivers stand still while workers run and the other way
// round, so that two CPUs are enough for both, and nothing but polling is timed.

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
  /** Which worker polls each port, where there are two. */
  workers: readonly number[];
  /** The first so many ports send, each to its target. */
  busy: number;
  target(from: number): number;
}

export const LAYOUTS = {
  apart: { workers: [0, 0, 1, 1], busy: 4, target: (from) => from ^ 1 },
  crossed: { workers: [0, 1], busy: 2, target: (from) => from ^ 1 },
  together: { workers: [0, 1, 0], busy: 2, target: () => 2 },
} as const satisfies Record<string, Layout>;

/** Entries of the rings; those that receive hold a burst too many. */
const RINGS = { ring: 256, receive: 512 };
/** Laps with as many workers, before it is the other number's turn. */
const BLOCK = 16;
/** Blocks until the engine has compiled what is timed. */
const WARM = 20;

interface Driven extends Queue {
  /** With two workers, the one that takes frames from this ring or puts them into it. */
  worker: number;
}

interface Job {
  inprocWorker: number;
  memory: WebAssembly.Memory;
  sync: SharedArrayBuffer;
  tx: Driven[];
  rx: Driven[];
  lapFrames: number;
  /** On average. */
  frameBytes: number;
  counts: readonly number[];
  blocks: number;
}

export function enoughCpus(): boolean {
  return availableParallelism() >= 2;
}

/**
 * Frames a microsecond that workers on CPUs 0 and 1 move together, the medians of laps: for each number
 * of workers in `counts`, 1 or 2, taken in turn, `blocks` times each. Every ring is driven from the CPU
 * that its worker is not on; with one worker, 0, that is CPU 1 for all. Drivers write every line of a
 * frame before they send it and read every line of one that came, as guests do.
 */
export async function onTwoCpus(
  layout: keyof typeof LAYOUTS,
  size: number | 'imix',
  format: string,
  counts: readonly (1 | 2)[],
  blocks: number,
): Promise<number[]> {
  const { workers, busy, target }: Layout = LAYOUTS[layout];
  const world = new World({ size, format, ...RINGS, ports: workers.length, busy, target });
  const { control } = world.rig;
  const sender = (to: number) => workers.findIndex((_, from) => from < busy && target(from) === to);
  const sync = new SharedArrayBuffer(64);
  const job = {
    memory: control.memory,
    sync,
    tx: world.tx.map((queue, port) => ({ ...queue, worker: workers[port]! })),
    rx: world.rx.map((queue, port) => ({ ...queue, worker: workers[sender(port)] ?? 0 })),
    lapFrames: world.lapFrames,
    frameBytes: world.frameBytes,
    counts,
    blocks: WARM + blocks,
  };
  const threads = [0, 1].map((inprocWorker) => {
    const block = WORKER_BASE + inprocWorker * WORKER_STRIDE;
    control.set(block + WORKER_LOCKED, NO_RING);
    control.set(block + WORKER_CURRENT, NO_RING);
    const workerData: Job = { ...job, inprocWorker };
    return new Worker(new URL(import.meta.url), { workerData });
  });
  try {
    const rates = await Promise.all(
      threads.map(
        (thread) =>
          new Promise<number[][]>((resolve, reject) => {
            thread.once('message', resolve).once('error', reject);
          }),
      ),
    );
    world.check();
    return counts.map((count, i) => {
      const [mine, other] = [rates[0]![i]!, rates[1]![i]!];
      return median(mine.map((rate, lap) => rate + (count === 2 ? other[lap]! : 0)));
    });
  } finally {
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
}

/** What reading came to; without a use the engine might leave it out. */
let seen = 0;

/** One of the two threads. Posts its frames a microsecond, lap by lap, for each of the counts. */
function work(job: Job): void {
  const { inprocWorker: id, memory, tx, rx, lapFrames, counts, blocks } = job;
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
    for (const { ring, worker } of tx) {
      control.set(ringAddress(ring) + RING_WORKER, count === 1 ? 0 : worker);
    }
    control.set(SWITCH_WORKERS, count);
    for (let i = 0; i < 2; i++) control.add(WORKER_BASE + i * WORKER_STRIDE + WORKER_GENERATION, 1);
  };
  /** Every line of the buffer that came back: what a guest does with a frame. */
  const touch =
    ({ list }: Driven, write: boolean) =>
    (token: number) => {
      const { bytes } = control;
      const at = control.get(list + token * 8);
      for (let i = at; i < at + job.frameBytes; i += 64) {
        if (write) bytes[i] = bytes[i]!;
        else seen = (seen + bytes[i]!) | 0;
      }
    };
  const rates: number[][] = counts.map(() => []);
  for (let block = 0; block < blocks; block++) {
    for (const [i, count] of counts.entries()) {
      const mine = ({ worker }: Driven) => id !== (count === 1 ? 0 : worker);
      const driven = [...rx, ...tx].filter(mine);
      const touches = driven.map((queue) => touch(queue, tx.includes(queue)));
      meet();
      if (id === 0) workers(count);
      for (let lap = 0; lap < BLOCK; lap++) {
        meet();
        for (const [k, queue] of driven.entries()) refill(datapath, queue, touches[k]);
        meet();
        if (id >= count) continue;
        const start = performance.now();
        const taken = pollFor(datapath, lapFrames / count);
        const rate = taken / ((performance.now() - start) * 1000);
        // The first lap makes the list of rings anew.
        if (lap > 0 && block >= WARM) rates[i]!.push(rate);
      }
    }
  }
  parentPort!.postMessage(rates);
}

const job = workerData as Job | null;
if (!isMainThread && job?.inprocWorker !== undefined) work(job);
