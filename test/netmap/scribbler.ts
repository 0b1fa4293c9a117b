// Writes 16-bit values, small ones and any, all over the ranges it is given, until it is ended.

import { parentPort, workerData } from 'node:worker_threads';

const { memory, ranges, packed } = workerData as {
  memory: WebAssembly.Memory;
  ranges: [at: number, length: number][];
  packed: boolean;
};
const words = new Uint16Array(memory.buffer);
let seed = 12345;
function next(): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed >>> 8;
}
parentPort!.postMessage('begun');
for (;;) {
  const [at, length] = ranges[next() % ranges.length]!;
  const kind = next() % 3;
  const value = kind === 0 ? next() : kind === 1 || !packed ? next() % 20 : 0x8080;
  words[(at + (next() % length)) >>> 1] = value;
}
