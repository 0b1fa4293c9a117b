// The lines of a report, in the wording of netmap's pkt-gen.

import type { Histogram } from './histogram.ts';

export interface Counts {
  packets: number;
  bytes: number;
  /** Batches: times that frames were sent or found. */
  events: number;
}

export interface Style {
  /** Units with K, M, G, T. */
  normalize: boolean;
  /** Count check sequence, preamble and gap in bps. */
  framing: boolean;
}

/** Bits on the wire that are not in a frame: 4 bytes of CRC, 20 of preamble and gap. */
const FRAMING_BITS = 24 * 8;
/** Intervals that the average of a line goes over. */
const WINDOW = 15;
/** What min_space shows when nothing has been looked at. */
export const NO_SPACE = 99999;

/** `14.881 M`, `14880952 `: a unit is to follow. */
export function norm(value: number, normalize: boolean): string {
  if (!normalize) return `${value.toFixed(0)} `;
  const units = ['', 'K', 'M', 'G', 'T'];
  let step = 0;
  while (value >= 1000 && step < units.length - 1) {
    value /= 1000;
    step++;
  }
  return `${value.toFixed(3)} ${units[step]}`;
}

/** Packets a second of the intervals so far. */
export class PpsStatistics {
  readonly #window: number[] = [];
  #count = 0;
  #sum = 0;
  #squares = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = 0;

  add(pps: number): void {
    // As in netmap, intervals without traffic are none.
    if (pps === 0) return;
    this.#window.push(pps);
    if (this.#window.length > WINDOW) this.#window.shift();
    this.#count++;
    this.#sum += pps;
    this.#squares += pps * pps;
    this.#min = Math.min(this.#min, pps);
    this.#max = Math.max(this.#max, pps);
  }

  /** Of the last 15 intervals. */
  recent(): { avg: number; std: number } {
    const count = Math.max(this.#window.length, 1);
    const avg = this.#window.reduce((sum, pps) => sum + pps, 0) / count;
    const squares = this.#window.reduce((sum, pps) => sum + (pps - avg) ** 2, 0);
    return { avg, std: Math.sqrt(squares / count) };
  }

  total(): { intervals: number; min: number; avg: number; max: number; std: number } | undefined {
    if (this.#count === 0) return undefined;
    const avg = this.#sum / this.#count;
    const variance = Math.max(this.#squares / this.#count - avg * avg, 0);
    return {
      ...{ intervals: this.#count, min: this.#min, avg, max: this.#max },
      std: Math.sqrt(variance),
    };
  }
}

export interface Interval extends Counts {
  usec: number;
  minSpace: number;
}

export function intervalRates(interval: Interval, style: Style) {
  const { packets, bytes, events, usec } = interval;
  const bits = bytes * 8 + (style.framing ? packets * FRAMING_BITS : 0);
  return {
    pps: Math.floor((packets * 1e6 + usec / 2) / usec),
    bps: (bits * 1e6) / usec,
    avgBatch: events > 0 ? packets / events : 0,
  };
}

/** `14.881 Mpps (14.882 Mpkts 7.143 Gbps in 1000070 usec) 512.00 avg_batch 99999 min_space` */
export function intervalLine(interval: Interval, style: Style, pps?: PpsStatistics): string {
  const n = (value: number) => norm(value, style.normalize);
  const rates = intervalRates(interval, style);
  const recent = pps?.recent();
  const spread = recent ? `[avg/std ${n(recent.avg)}/${n(recent.std)}pps] ` : '';
  return (
    `${n(rates.pps)}pps ${spread}(${n(interval.packets)}pkts ${n(rates.bps)}bps ` +
    `in ${interval.usec} usec) ${rates.avgBatch.toFixed(2)} avg_batch ${interval.minSpace} min_space`
  );
}

export function totalRates({ packets, bytes, events }: Counts, seconds: number) {
  const time = seconds || 1e-6;
  return {
    size: packets > 0 ? Math.floor(bytes / packets) : 0,
    pps: packets / time,
    bps: (bytes * 8) / time,
    rawBps: (bytes * 8 + packets * FRAMING_BITS) / time,
    avgBatch: events > 0 ? packets / events : 0,
  };
}

export function totalLines(verb: string, counts: Counts, seconds: number, style: Style): string[] {
  const { packets, bytes, events } = counts;
  if (packets === 0) return [`${verb} nothing.`];
  const n = (value: number) => norm(value, style.normalize);
  const rates = totalRates(counts, seconds);
  return [
    `${verb} ${packets} packets ${bytes} bytes ${events} events ` +
      `${rates.size} bytes each in ${seconds.toFixed(2)} seconds.`,
    `Speed: ${n(rates.pps)}pps Bandwidth: ${n(rates.bps)}bps (raw ${n(rates.rawBps)}bps). ` +
      `Average batch: ${rates.avgBatch.toFixed(2)} pkts`,
  ];
}

export function ppsLine(pps: PpsStatistics, style: Style): string[] {
  const total = pps.total();
  if (total === undefined) return [];
  const n = (value: number) => `${norm(value, style.normalize)}pps`;
  const { intervals, min, avg, max, std } = total;
  return [
    `Rate over ${intervals} intervals: min ${n(min)} avg ${n(avg)} max ${n(max)} std ${n(std)}`,
  ];
}

/** A second of pings, with the counts of round trips by powers of two. */
export function pingLines(rtt: Histogram): string[] {
  if (rtt.count === 0) return ['count 0 RTT: none'];
  const { first, counts } = rtt.powers();
  const last = first + counts.length - 1;
  return [
    `count ${rtt.count} RTT: min ${rtt.min} av ${Math.floor(rtt.mean)} ns`,
    `k: ${2 ** first} .. ${2 ** last}`,
    `\t${counts.map((count) => ` ${String(count).padStart(5)}`).join('')}`,
  ];
}

export function percentiles(rtt: Histogram) {
  return {
    p50: rtt.percentile(50),
    p99: rtt.percentile(99),
    p999: rtt.percentile(99.9),
    max: rtt.max,
  };
}

export function pingTotalLines(rtt: Histogram, lost: number): string[] {
  if (rtt.count === 0) return [`RTT over 0 packets: none, ${lost} lost`];
  const { p50, p99, p999, max } = percentiles(rtt);
  return [
    `RTT over ${rtt.count} packets: min ${rtt.min} av ${Math.floor(rtt.mean)} ns`,
    `RTT percentiles: p50 ${p50} p99 ${p99} p99.9 ${p999} max ${max} ns, ${lost} lost`,
  ];
}

/** netmap's `123.456789 main_thread [line] text`: the columns stay where scripts look for them. */
export function stamped(wallMs: number, text: string): string {
  const micros = Math.floor(wallMs * 1000);
  const seconds = String(Math.floor(micros / 1e6) % 1000).padStart(3, '0');
  return `${seconds}.${String(micros % 1e6).padStart(6, '0')} main_thread [vhop] ${text}`;
}
