// One datapath thread: poll while there is work, spin a little, then sleep until a kick.
//
// It runs no event loop and gets no messages: main speaks to it through its worker block (abi/
// layout.ts) and a wake-up eventfd, kicks come through epoll.

import { workerData } from 'node:worker_threads';
import {
  MAX_RINGS,
  NO_RING,
  RING_BASE,
  RING_CALL_FD,
  RING_KICKS,
  RING_STRIDE,
  SWITCH_POLICED,
  WORKER_ACK,
  WORKER_BASE,
  WORKER_CURRENT,
  WORKER_GENERATION,
  WORKER_LOCKED,
  WORKER_NOW,
  WORKER_PAGING_NS,
  WORKER_PARKED,
  WORKER_SAMPLED_FRAMES,
  WORKER_SAMPLED_NS,
  WORKER_SLEEPS,
  WORKER_SPIN,
  WORKER_STOP,
  WORKER_STRIDE,
  WORKER_TRAPS,
} from '../abi/layout.ts';
import { adoptAio, Epoll, signal, signalPeer } from '../linux/index.ts';
import { Control } from '../memory/control.ts';
import { loadDatapath, pager, taps } from './datapath.ts';

export interface WorkerData {
  id: number;
  memory: WebAssembly.Memory;
  epollFd: number;
  /** aioContext() of the main thread. */
  aio: number;
  /** eventfd that tells main of a latched ring. */
  mainFd: number;
}

/** Every so many polls one is timed, for ns per frame. */
const SAMPLE = 16;
/** Polls between two looks at the clock while spinning. */
const SPIN_CHECK = 32;
/**
 * Polls between two looks at armed rings. A look takes 0.2 us, a round of full bursts tens of them: a
 * port that wakes up among busy ones waits a fraction of a millisecond.
 */
const KICK_CHECK = 8;
/** Spins in vain until spinning stops, and sleeps until it is tried once more. */
const PAYS_MOST = 16;
const PROBE = 64;

const { id, memory, epollFd, aio, mainFd } = workerData as WorkerData;
adoptAio(aio);
const control = new Control(memory);
const block = WORKER_BASE + id * WORKER_STRIDE;
const epoll = Epoll.adopt(epollFd, 256);
const calls = new Int32Array(memory.buffer, 0, (RING_BASE + RING_STRIDE * MAX_RINGS) / 4);
const sums = new Float64Array(memory.buffer, block, WORKER_STRIDE / 8);
const counters = new BigUint64Array(memory.buffer, block, WORKER_STRIDE / 8);
const kicks = new BigUint64Array(memory.buffer, RING_BASE, (RING_STRIDE * MAX_RINGS) / 8);

const datapath = loadDatapath(memory, {
  call(ring) {
    const fd = calls[(RING_BASE + ring * RING_STRIDE + RING_CALL_FD) >> 2]!;
    if (fd < 0) return;
    try {
      signalPeer(fd);
    } catch {
      // A call fd that cannot be written to is the front end's loss; its session will tell.
    }
  },
  latched() {
    signal(mainFd);
  },
  kick(fd) {
    if (fd >= 0) signalPeer(fd);
  },
  ...taps(memory),
  pageIn: pager(memory, (ns) => {
    sums[WORKER_PAGING_NS >> 3]! += ns;
  }),
});

/** Nanoseconds on the machine's monotonic clock, which all threads share. */
const origin = Number(process.hrtime.bigint()) - performance.now() * 1e6;

function tick(): void {
  sums[WORKER_NOW >> 3] = origin + performance.now() * 1e6;
}

function count(counter: number): void {
  counters[counter >> 3]!++;
}

/** Marks rings whose kick arrived as active. */
function takeKicks(timeout: number): number {
  const n = epoll.wait(timeout);
  if (timeout !== 0) control.set(block + WORKER_PARKED, 0);
  for (let i = 0; i < n; i++) {
    const ring = epoll.data(i);
    // The wake-up eventfd: it has done its work.
    if (ring === NO_RING) continue;
    // Lanes come after the rings.
    if (ring < MAX_RINGS) kicks[(ring * RING_STRIDE + RING_KICKS) >> 3]!++;
    guarded(() => activate(ring));
  }
  return n;
}

/**
 * Runs a part of the datapath; what traps costs the ring being worked on, and nothing else. Returns
 * what the part returns, or `otherwise`.
 */
function guarded(part: () => number, otherwise = 0): number {
  try {
    return part();
  } catch {
    count(WORKER_TRAPS);
    datapath.recover();
    return otherwise;
  }
}

const { poll, armAll, activate } = datapath;

function run(): void {
  datapath.init(id);
  control.set(block + WORKER_LOCKED, NO_RING);
  control.set(block + WORKER_CURRENT, NO_RING);
  control.set(block + WORKER_PARKED, 0);
  let polls = 0;
  let empty = 0;
  let spinStart = 0;
  // Where guests and switch share cores every spin is stolen from a guest: spin while it finds
  // work about as often as not, and try again now and then.
  let pays = PAYS_MOST;
  let probes = 0;
  let budget = 0;
  while (control.get(block + WORKER_STOP) === 0) {
    polls++;
    if (polls % KICK_CHECK === 0) takeKicks(0);
    if (control.get(SWITCH_POLICED) !== 0) tick();
    let moved: number;
    if (polls % SAMPLE === 0) {
      const start = performance.now();
      moved = guarded(poll);
      if (moved > 0) {
        sums[WORKER_SAMPLED_NS >> 3]! += (performance.now() - start) * 1e6;
        sums[WORKER_SAMPLED_FRAMES >> 3]! += moved;
      }
    } else {
      moved = guarded(poll);
    }
    if (moved > 0) {
      if (empty >= SPIN_CHECK) pays = Math.min(PAYS_MOST, pays + 1);
      empty = 0;
      continue;
    }
    empty++;
    if (empty % SPIN_CHECK !== 0) continue;
    const now = performance.now();
    if (empty === SPIN_CHECK) {
      spinStart = now;
      budget = pays > 0 || ++probes % PROBE === 0 ? control.get(block + WORKER_SPIN) : 0;
    }
    if ((now - spinStart) * 1e6 < budget) continue;
    // Spun in vain.
    if (budget > 0) pays = Math.max(0, pays - 1);
    if (guarded(armAll, 1) > 0) continue;
    control.set(block + WORKER_PARKED, 1);
    // Looked at after saying so: main bumps or stops first and looks at PARKED after. The wake-up
    // itself may have been taken by a look at epoll since.
    if (
      control.get(block + WORKER_GENERATION) !== control.get(block + WORKER_ACK) ||
      control.get(block + WORKER_STOP) !== 0
    ) {
      control.set(block + WORKER_PARKED, 0);
      continue;
    }
    count(WORKER_SLEEPS);
    takeKicks(-1);
    empty = 0;
  }
}

try {
  run();
} finally {
  // Whatever ended it: main must not wait for it.
  control.set(block + WORKER_PARKED, 1);
}
