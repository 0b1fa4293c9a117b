// Counters of the control area, read out as `Stats`.

import {
  FDB_CAPACITY,
  RING_BURSTS,
  RING_BYTES,
  RING_CALLS,
  RING_DROPS,
  RING_FRAMES,
  RING_KICKS,
  RING_SEGMENTED,
  RING_SEGMENTS,
  RING_SUMMED,
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
import type { Control } from '../memory/control.ts';
import type { PortStats, Stats, WorkerStats } from '../types.ts';
import type { Ring } from '../virtio/ring.ts';
import { DROP_NAMES } from './drops.ts';

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

function portStats(port: string, rings: readonly Ring[]): PortStats {
  const sum = (tx: boolean, field: number) =>
    rings.reduce((total, ring) => (ring.isTx === tx ? total + ring.counter(field) : total), 0);
  const drops: Record<string, number> = {};
  for (const [reason, name] of DROP_NAMES.entries()) {
    const field = RING_DROPS + reason * 8;
    const total = sum(true, field) + sum(false, field);
    if (total > 0) drops[name] = total;
  }
  return {
    port,
    txFrames: sum(true, RING_FRAMES),
    txBytes: sum(true, RING_BYTES),
    rxFrames: sum(false, RING_FRAMES),
    rxBytes: sum(false, RING_BYTES),
    kicks: sum(true, RING_KICKS) + sum(false, RING_KICKS),
    calls: sum(true, RING_CALLS) + sum(false, RING_CALLS),
    txBursts: sum(true, RING_BURSTS),
    segmented: sum(false, RING_SEGMENTED),
    segments: sum(false, RING_SEGMENTS),
    summed: sum(false, RING_SUMMED),
    drops,
  };
}
