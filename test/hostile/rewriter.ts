// A guest's second vCPU: a thread that rewrites the descriptors of its rings as fast as it can while
// the datapath works on them.

import { parentPort, workerData } from 'node:worker_threads';
import { DESC_F_AVAIL, DESC_F_USED, DESC_F_WRITE } from '../../src/abi/virtio.ts';
import { random } from '../datapath/frames.ts';

export interface Rewrites {
  memory: SharedArrayBuffer;
  packed: boolean;
  /** Linear addresses of the rings' parts, and their sizes. */
  rings: { desc: number; avail: number; used: number; size: number; rx: boolean }[];
  /** Guest-physical addresses of 4 KiB that a frame may lie in, and of what is none. */
  buffers: bigint[];
  others: bigint[];
  /** i32: 1 ends the thread. */
  stop: SharedArrayBuffer;
}

const LENGTHS = [0, 1, 12, 16, 64, 200, 0xffff_fff0];

const { memory, packed, rings, buffers, others, stop } = workerData as Rewrites;
const view = new DataView(memory);
const done = new Int32Array(stop);
const next = random(1);
const pick = <T>(list: T[]): T => list[next() % list.length]!;
/** Three out of four are good in a field. */
const good = () => next() % 4 > 0;
/** A number below the size but for one in a thousand, for which the ring may be retired. */
const below = (size: number) => (next() % 1000 === 0 ? next() : next() % size);

function descriptor(at: number, rx: boolean): number {
  view.setBigUint64(at, pick(good() ? buffers : others), true);
  view.setUint32(at + 8, good() ? (rx ? 2048 : 76) : pick(LENGTHS), true);
  return good() ? (rx ? DESC_F_WRITE : 0) : next() & 7;
}

parentPort!.postMessage('started');
// Lap after lap is made available, whatever of the last one is used by then.
for (let lap = 0; Atomics.load(done, 0) === 0; lap++) {
  for (const { desc, avail, used, size, rx } of rings) {
    for (let i = 0; i < size; i++) {
      // Mostly the next slot, so that whole laps are available; now and then another one.
      const slot = next() % 8 ? i : next() % size;
      const at = desc + slot * 16;
      const flags = descriptor(at, rx);
      if (packed) {
        view.setUint16(at + 12, below(size), true);
        view.setUint16(at + 14, (lap & 1 ? DESC_F_USED : DESC_F_AVAIL) | flags, true);
      } else {
        view.setUint16(at + 12, flags, true);
        view.setUint16(at + 14, good() ? next() % size : next(), true);
        view.setUint16(avail + 4 + slot * 2, below(size), true);
        const ahead = below(size + 1);
        view.setUint16(avail + 2, view.getUint16(used + 2, true) + ahead, true);
      }
    }
  }
}
