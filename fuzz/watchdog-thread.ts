// The thread of watchdog.ts.

import { writeSync } from 'node:fs';
import { workerData } from 'node:worker_threads';

const { words, ms, told } = workerData as { words: SharedArrayBuffer; ms: number; told: string };
const view = new Int32Array(words);
let seen = Atomics.load(view, 0);
const never = new Int32Array(new SharedArrayBuffer(4));

for (;;) {
  Atomics.wait(never, 0, 0, ms);
  const now = Atomics.load(view, 0);
  if (now === seen) {
    const text = told.replace(/\{(\d)\}/g, (_, i) => String(view[1 + Number(i)]! >>> 0));
    writeSync(2, `\n${text}\n`);
    process.kill(process.pid, 'SIGKILL');
  }
  seen = now;
}
