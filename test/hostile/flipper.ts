// A guest's second vCPU that does one thing: flip fields between two values, as fast as it can.

import { parentPort, workerData } from 'node:worker_threads';

export interface Flips {
  memory: SharedArrayBuffer;
  /** Linear addresses of the fields, aligned, all of `width` bytes. */
  fields: number[];
  width: 2 | 4 | 8;
  values: [bigint, bigint];
  /** i32: 1 ends the thread; then flips made, in thousands. */
  state: SharedArrayBuffer;
}

const { memory, fields, width, values, state } = workerData as Flips;
const shared = new Int32Array(state);
const [a, b] = values;

/** One store each: the guest's writes do not tear either. */
function flip<T>(list: { [index: number]: T }, first: T, second: T): void {
  const places = fields.map((at) => at / width);
  parentPort!.postMessage('started');
  while (Atomics.load(shared, 0) === 0) {
    for (let i = 0; i < 1000; i += places.length) {
      for (const place of places) list[place] = i & 1 ? first : second;
      for (const place of places) list[place] = i & 1 ? second : first;
    }
    Atomics.add(shared, 1, 2);
  }
}

if (width === 2) flip(new Uint16Array(memory), Number(a), Number(b));
else if (width === 4) flip(new Uint32Array(memory), Number(a), Number(b));
else flip(new BigUint64Array(memory), a, b);
