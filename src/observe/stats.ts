// Counters of the control area, read out as `Stats`.

import {
  FDB_CAPACITY,
  SWITCH_FDB_COUNT,
  SWITCH_FDB_FULL,
  SWITCH_FDB_MOVES,
  WORKER_BASE,
  WORKER_FRAMES,
  WORKER_PARKED,
  WORKER_POLLS,
  WORKER_SAMPLED_FRAMES,
  WORKER_SAMPLED_NS,
  WORKER_SLEEPS,
  WORKER_STRIDE,
} from '../abi/layout.ts';
import type { Stats, WorkerStats } from '../api/types.ts';
import type { Control } from '../memory/control.ts';
import { portStats } from '../port/describe.ts';
import type { Ring } from '../virtio/ring.ts';

/** `elapsed`: nanoseconds since the switch opened. */
export function readStats(
  control: Control,
  ports: readonly { name: string; rings: readonly Ring[] }[],
  workers: number,
  elapsed: number,
): Stats {
  return {
    time: Date.now(),
    ports: ports.map(({ name, rings }) => portStats(name, rings)),
    workers: Array.from({ length: workers }, (_, id) => workerStats(control, id, elapsed)),
    fdb: {
      entries: control.get(SWITCH_FDB_COUNT),
      capacity: FDB_CAPACITY,
      moves: control.get(SWITCH_FDB_MOVES),
      full: control.get(SWITCH_FDB_FULL),
    },
  };
}

function workerStats(control: Control, id: number, elapsed: number): WorkerStats {
  const block = WORKER_BASE + id * WORKER_STRIDE;
  const frames = control.counter(block + WORKER_FRAMES);
  const sampled = control.float(block + WORKER_SAMPLED_FRAMES);
  const nsPerFrame = sampled > 0 ? control.float(block + WORKER_SAMPLED_NS) / sampled : 0;
  return {
    worker: id,
    polls: control.counter(block + WORKER_POLLS),
    frames,
    nsPerFrame,
    load: Math.min(1, (frames * nsPerFrame) / elapsed),
    sleeps: control.counter(block + WORKER_SLEEPS),
    state: control.get(block + WORKER_PARKED) === 1 ? 'sleeping' : 'busy',
  };
}
