// A guest's second vCPU: a thread that rewrites the descriptors of packed rings as fast as it can while
// the datapath works on them.

import { parentPort, workerData } from 'node:worker_threads';
import { DESC_F_AVAIL, DESC_F_USED, DESC_F_WRITE } from '../../src/abi/virtio.ts';
import { random } from '../datapath/frames.ts';

export interface Rewrites {
  memory: SharedArrayBuffer;
  /** Linear address and size of the rings. */
  rings: { at: number; size: number; rx: boolean }[];
  /** Guest-physical addresses of 4 KiB that a frame may lie in, and of what is none. */
  buffers: bigint[];
  others: bigint[];
  /** i32: 1 ends the thread. */
  stop: SharedArrayBuffer;
}

const LENGTHS = [0, 1, 12, 16, 64, 200, 0xffff_fff0];

const { memory, rings, buffers, others, stop } = workerData as Rewrites;
const view = new DataView(memory);
const done = new Int32Array(stop);
const next = random(1);
const pick = <T>(list: T[]): T => list[next() % list.length]!;

parentPort!.postMessage('started');
// Lap after lap is made available, whatever of the last one is used by then.
for (let lap = 0; Atomics.load(done, 0) === 0; lap++) {
  for (const { at, size, rx } of rings) {
    for (let i = 0; i < size; i++) {
      // Mostly the next slot, so that whole laps are available; now and then another one.
      const slot = at + (next() % 8 ? i : next() % size) * 16;
      // Three out of four are good in a field; the flags of one out of four are any.
      const good = () => next() % 4 > 0;
      view.setBigUint64(slot, pick(good() ? buffers : others), true);
      view.setUint32(slot + 8, good() ? (rx ? 2048 : 76) : pick(LENGTHS), true);
      view.setUint16(slot + 12, next(), true);
      const flags = good() ? (rx ? DESC_F_WRITE : 0) : next() & 7;
      view.setUint16(slot + 14, (lap & 1 ? DESC_F_USED : DESC_F_AVAIL) | flags, true);
    }
  }
}
