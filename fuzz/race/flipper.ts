// The second thread of the race: stores one of two values and then the other into a field, for as long
// as it is told to. Dwells a little now and then, so that every distance between two reads is met.

import { parentPort, workerData } from 'node:worker_threads';

/** i32 words between the two threads. */
export const JOB = 0; // number of the job to do; 0: rest, -1: end
export const DOING = 1; // the job that is being done
export const WIDTH = 2; // bytes of the field: 1, 2 or 4
export const VALUE_A = 3;
export const VALUE_B = 4;
export const PLACES = 5; // linear addresses, how many; they follow from PLACE on
export const FLIPS = 6; // stores of this job, in units of UNIT
export const PLACE = 8;
export const MOST = 64;
export const UNIT = 1024;

/** How many stores in a row between two looks at the job, and the pause behind some of them. */
const RUN = 32;

type Words = Uint8Array | Uint16Array | Int32Array;

function flip(view: Words, shift: number, control: Int32Array, job: number): void {
  const a = control[VALUE_A]!;
  const b = control[VALUE_B]!;
  const count = control[PLACES]!;
  const at = Array.from({ length: count }, (_, i) => control[PLACE + i]! >>> shift);
  let done = 0;
  for (let turn = 0; Atomics.load(control, JOB) === job; turn++) {
    if (count === 1) {
      const place = at[0]!;
      for (let i = 0; i < RUN; i++) {
        view[place] = a;
        view[place] = b;
      }
      done += 2 * RUN;
      // Which of the two stays for a while.
      if (turn & 1) view[place] = a;
    } else {
      for (let i = 0; i < count; i++) view[at[i]!] = a;
      for (let i = 0; i < count; i++) view[at[i]!] = b;
      done += 2 * count;
      if (turn & 1) for (let i = 0; i < count; i++) view[at[i]!] = a;
    }
    for (let pause = (turn * 7) & 127; pause > 64; pause--) Atomics.load(control, DOING);
    if (done >= UNIT) {
      Atomics.add(control, FLIPS, Math.trunc(done / UNIT));
      done %= UNIT;
    }
  }
}

if (parentPort !== null) {
  const { memory, words } = workerData as { memory: SharedArrayBuffer; words: SharedArrayBuffer };
  const control = new Int32Array(words);
  const views: Record<number, Words> = {
    1: new Uint8Array(memory),
    2: new Uint16Array(memory),
    4: new Int32Array(memory),
  };
  for (;;) {
    const job = Atomics.load(control, JOB);
    if (job < 0) break;
    Atomics.store(control, DOING, job);
    Atomics.notify(control, DOING);
    const width = control[WIDTH]!;
    if (job === 0) Atomics.wait(control, JOB, 0);
    else flip(views[width]!, width >> 1, control, job);
  }
}
