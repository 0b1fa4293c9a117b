// What it takes to wake a thread that sleeps on an eventfd, with nothing else to it: the floor under any
// switch that sleeps while it is idle. Run: node bench/latency-wake.ts SECONDS; microseconds from the
// call on CPU 1 until the sleeper has run on CPU 0, as JSON.

import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { EPOLLET, EPOLLIN, Epoll, eventfd, setAffinity, signal } from '../src/linux/index.ts';
import { percentiles } from './percentiles.ts';

interface Sleeper {
  fd: number;
  /** How often it has woken; 1: it ends. */
  words: SharedArrayBuffer;
}

/** Milliseconds between two calls. */
const REST = 1;

if (isMainThread) {
  const data: Sleeper = { fd: eventfd(), words: new SharedArrayBuffer(8) };
  const words = new Int32Array(data.words);
  const worker = new Worker(new URL(import.meta.url), { workerData: data });
  await new Promise((resolve) => worker.once('online', resolve));
  setAffinity([1]);
  const times: number[] = [];
  const rest = (ms: number) => {
    for (const end = performance.now() + ms; performance.now() < end; );
  };
  rest(200);
  for (const end = performance.now() + Number(process.argv[2]) * 1000; performance.now() < end; ) {
    rest(REST);
    const before = Atomics.load(words, 0);
    const start = performance.now();
    signal(data.fd);
    while (Atomics.load(words, 0) === before);
    times.push((performance.now() - start) * 1000);
  }
  console.log(JSON.stringify(percentiles(times)));
  Atomics.store(words, 1, 1);
  signal(data.fd);
} else {
  const { fd, words: shared } = workerData as Sleeper;
  const words = new Int32Array(shared);
  setAffinity([0]);
  const epoll = new Epoll(1);
  epoll.add(fd, EPOLLIN | EPOLLET, 0);
  for (; Atomics.load(words, 1) === 0; Atomics.add(words, 0, 1)) epoll.wait(-1);
}
