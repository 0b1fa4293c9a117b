// How long a cache line travels between two CPUs. Measure it before and after every benchmark: on a
// virtual machine the two may sit on one core complex now and on two a minute later, and the same
// program runs at a third of its speed. Run: node bench/line-latency.ts [cpu cpu]

import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { setAffinity } from '../src/linux/index.ts';

/** near: under 60 ns, one core complex; far: over 110 ns, two. */
export type LineLabel = 'near' | 'between' | 'far';

export interface LineLatency {
  /** One way, in nanoseconds: half a round trip, the median of the batches. */
  ns: number;
  label: LineLabel;
}

export function labelOf(ns: number): LineLabel {
  return ns < 60 ? 'near' : ns > 110 ? 'far' : 'between';
}

const rounds = 5000;
const batches = 25;

/**
 * One loop for both ends, over a word of shared memory:
 *   bounce(value, rounds): do { while (word != value); word = value + 1; value += 2 } while (--rounds)
 * The load is atomic, so that it stays in the loop; the store is plain: an atomic one would add the
 * cost of a locked instruction to every trip, and no other memory needs ordering.
 */
const bounceModule = Uint8Array.from([
  ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  ...[1, 6, 1, 0x60, 2, 0x7f, 0x7f, 0], // type 0: (i32, i32) → ()
  ...[2, 9, 1, 1, 0x6d, 1, 0x6d, 2, 3, 1, 1], // import "m" "m": shared memory of one page
  ...[3, 2, 1, 0], // function 0: type 0
  ...[7, 10, 1, 6, 0x62, 0x6f, 0x75, 0x6e, 0x63, 0x65, 0, 0], // export "bounce"
  ...[10, 47, 1, 45, 0, 0x03, 0x40, 0x03, 0x40], // code: no locals; loop loop
  ...[0x41, 0, 0xfe, 0x10, 2, 0, 0x20, 0, 0x47, 0x0d, 0], // atomic load, local 0, ne, br_if
  0x0b,
  ...[0x41, 0, 0x20, 0, 0x41, 1, 0x6a, 0x36, 2, 0], // word = local 0 + 1
  ...[0x20, 0, 0x41, 2, 0x6a, 0x21, 0], // local 0 += 2
  ...[0x20, 1, 0x41, 1, 0x6b, 0x22, 1, 0x0d, 0], // local 1 -= 1, br_if
  ...[0x0b, 0x0b],
]);

interface Job {
  memory: WebAssembly.Memory;
  cpu: number;
  /** Whether this end speaks first, and keeps the time. */
  first: boolean;
}

/** Measures between two CPUs, 0 and 1 by default, in some 30 ms. Throws if there is only one. */
export async function lineLatency(cpus: readonly [number, number] = [0, 1]): Promise<LineLatency> {
  if (availableParallelism() < 2) throw new Error('line latency needs two CPUs');
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const workers = cpus.map((cpu, index) => {
    const job: Job = { memory, cpu, first: index === 0 };
    return new Worker(new URL(import.meta.url), { workerData: { lineLatency: job } });
  });
  try {
    const results = workers.map(
      (worker) =>
        new Promise<number>((resolve, reject) => {
          worker.once('message', resolve).once('error', reject);
        }),
    );
    const [ns = Number.NaN] = await Promise.all(results);
    return { ns, label: labelOf(ns) };
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
}

function serve({ memory, cpu, first }: Job): void {
  setAffinity([cpu]);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bounceModule), {
    m: { m: memory },
  });
  const bounce = exports.bounce as (value: number, rounds: number) => void;
  const times: number[] = [];
  for (let batch = 0; batch < batches; batch++) {
    const value = batch * rounds * 2 + (first ? 0 : 1);
    // The first trip waits for the other end to arrive.
    bounce(value, 1);
    const start = process.hrtime.bigint();
    bounce(value + 2, rounds - 1);
    times.push(Number(process.hrtime.bigint() - start) / (2 * (rounds - 1)));
  }
  times.sort((a, b) => a - b);
  parentPort?.postMessage(times[batches >> 1]);
}

const job = (workerData as { lineLatency?: Job } | null)?.lineLatency;
if (!isMainThread && job) {
  serve(job);
} else if (isMainThread && process.argv[1] === fileURLToPath(import.meta.url)) {
  const [a = 0, b = 1] = process.argv.slice(2).map(Number);
  const { ns, label } = await lineLatency([a, b]);
  console.log(`${ns.toFixed(1)} ns one way: ${label}`);
}
