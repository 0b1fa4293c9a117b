// A front end and a query that behave: how long each waits for its answer. A process of its own. Run:
// node bench/probe.ts PORT-SOCKET CONTROL-SOCKET SECONDS; prints Latency as JSON.

import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import * as vu from '../src/abi/vhost-user.ts';
import { connectTo } from '../src/control/client.ts';
import { connectUnix, EPOLLIN, Epoll, recvWithFds, sendWithFds } from '../src/linux/index.ts';
import { encodeMessage } from '../src/vhost-user/index.ts';

/** Milliseconds: the middle one and the worst. */
export interface Latency {
  request: [median: number, worst: number];
  query: [median: number, worst: number];
}

const [port, control, seconds] = process.argv.slice(2) as [string, string, string];
const fd = connectUnix(port);
const epoll = new Epoll();
epoll.add(fd, EPOLLIN, 0);
const ask = encodeMessage(vu.VU_GET_FEATURES, vu.VERSION, 'none', null);
const buffer = Buffer.alloc(64);
const client = connectTo(control);

function request(): void {
  sendWithFds(fd, ask);
  while (recvWithFds(fd, buffer, 0) === 'again') epoll.wait(1000);
}

async function timed(work: () => unknown): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

function summary(times: number[]): [number, number] {
  const sorted = times.sort((a, b) => a - b);
  return [sorted[sorted.length >> 1]!, sorted.at(-1)!];
}

const times = { request: [] as number[], query: [] as number[] };
await timed(() => client.get('/ports'));
const end = performance.now() + Number(seconds) * 1000;
while (performance.now() < end) {
  times.request.push(await timed(request));
  times.query.push(await timed(() => client.get('/ports')));
  await sleep(2);
}
const latency: Latency = { request: summary(times.request), query: summary(times.query) };
console.log(JSON.stringify(latency));
