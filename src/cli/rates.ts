// Two readings of the counters to figures per second.

import type { PortStats, Stats, WorkerStats } from '../types.ts';

/** As `PortStats` counts: `tx` is from the guest, `rx` to it; bits without preamble, gap and FCS. */
export interface PortRate {
  port: string;
  txPps: number;
  rxPps: number;
  txBps: number;
  rxBps: number;
  dropsPps: number;
  /** Frames per burst taken from the guest in the interval; 0 when there was none. */
  burst: number;
}

export interface WorkerRate {
  worker: number;
  /** Share of the interval spent on work, 0-1. */
  load: number;
  nsPerFrame: number;
  fps: number;
  state: WorkerStats['state'];
}

export interface Rates {
  /** Seconds between the two readings. */
  seconds: number;
  ports: PortRate[];
  workers: WorkerRate[];
}

/**
 * The rates between two readings, `after` taken when the switch was `uptime` seconds old. A port
 * that was not there before counts from zero; so does one whose counters went backwards, since it
 * was removed and added again.
 */
export function rates(before: Stats, after: Stats, uptime: number): Rates {
  const seconds = Math.max((after.time - before.time) / 1000, 0.001);
  return {
    seconds,
    ports: after.ports.map((port) => {
      const earlier = before.ports.find((p) => p.port === port.port);
      return portRate(earlier, port, seconds);
    }),
    workers: after.workers.map((worker) => {
      const earlier = before.workers.find((w) => w.worker === worker.worker);
      // `load` is a mean since the switch opened: take the busy seconds of both readings apart.
      const busy = worker.load * uptime - (earlier?.load ?? 0) * Math.max(uptime - seconds, 0);
      return {
        worker: worker.worker,
        load: Math.min(Math.max(busy / seconds, 0), 1),
        nsPerFrame: worker.nsPerFrame,
        fps: grown(earlier?.frames, worker.frames) / seconds,
        state: worker.state,
      };
    }),
  };
}

function portRate(before: PortStats | undefined, after: PortStats, seconds: number): PortRate {
  const frames = grown(before?.txFrames, after.txFrames);
  const bursts = grown(before?.txBursts, after.txBursts);
  return {
    port: after.port,
    txPps: frames / seconds,
    rxPps: grown(before?.rxFrames, after.rxFrames) / seconds,
    txBps: (grown(before?.txBytes, after.txBytes) * 8) / seconds,
    rxBps: (grown(before?.rxBytes, after.rxBytes) * 8) / seconds,
    dropsPps: grown(before && totalDrops(before), totalDrops(after)) / seconds,
    burst: bursts > 0 ? frames / bursts : 0,
  };
}

export function totalDrops(port: PortStats): number {
  return Object.values(port.drops).reduce((sum, n) => sum + n, 0);
}

function grown(before: number | undefined, after: number): number {
  return before === undefined || before > after ? after : after - before;
}
