// The reader of a pipe on a thread of its own: counts frames that are not the next of the stream.

import { parentPort, workerData } from 'node:worker_threads';
import { KR_BUF_SIZE, KR_BUFS, KR_RING, KR_SLOTS, NMR_FIRST } from '../../src/abi/netmap.ts';
import { driverHost } from '../../src/netmap/home.ts';
import { loadDatapath } from '../../src/worker/datapath.ts';

const { memory, kring, total } = workerData as {
  memory: WebAssembly.Memory;
  kring: number;
  total: number;
};
const datapath = loadDatapath(memory, driverHost(memory));
const words = new Uint32Array(memory.buffer);
const word = (at: number) => words[at >>> 2]!;

const ring = word(kring + KR_RING);
const slots = word(kring + KR_SLOTS);
let seen = 0;
let wrong = 0;
while (seen < total) {
  datapath.nmRxSync(kring);
  // As NMR_HEAD, NMR_CUR and NMR_TAIL say.
  let head = word(ring);
  const tail = word(ring + 8);
  for (; head !== tail; head = (head + 1) % slots) {
    const slot = ring + NMR_FIRST + head * 16;
    const length = word(slot + 4);
    const at = word(kring + KR_BUFS) + word(slot) * word(kring + KR_BUF_SIZE) + word(slot + 8);
    const last = at + length - 4;
    if (length !== 60 + (seen % 64) * 4 || word(at) !== seen || word(last) !== seen) wrong++;
    seen++;
  }
  words[ring >>> 2] = words[(ring + 4) >>> 2] = head;
}
datapath.nmRxSync(kring);
parentPort!.postMessage({ seen, wrong });
