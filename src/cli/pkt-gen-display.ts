// What pkt-gen prints: netmap's lines, or with --json an object for each of them.

import type { NetmapPort, NetmapRing } from '../netmap/types.ts';
import type { Job } from '../tools/job.ts';
import type { Pings } from '../tools/ping.ts';
import {
  type Interval,
  intervalLine,
  intervalRates,
  PpsStatistics,
  percentiles,
  pingLines,
  pingTotalLines,
  ppsLine,
  type Style,
  stamped,
  totalLines,
  totalRates,
} from '../tools/report.ts';
import type { SequenceTracker } from '../tools/sequence.ts';
import type { Mode, Settings } from '../tools/settings.ts';
import type { Cli } from './cli.ts';
import { plain } from './table.ts';

const OPENING: Record<Mode, string> = {
  ...{ tx: 'Sending on', txseq: 'Sending on', rx: 'Receiving from', rxseq: 'Receiving from' },
  ...{ ping: 'Working on', pong: 'Working on' },
};
const VERBS: Record<Mode, string> = {
  ...{ tx: 'Sent', txseq: 'Sent', ping: 'Sent', pong: 'Sent', rx: 'Received', rxseq: 'Received' },
};

export interface DisplayOptions {
  settings: Settings;
  style: Style;
  /** -A */
  statistics: boolean;
  json: boolean;
}

export class Display {
  readonly #cli: Cli;
  readonly #options: DisplayOptions;
  readonly #pps = new PpsStatistics();
  pings: Pings | undefined;
  sequence: SequenceTracker | undefined;
  /** Sequence errors that were told. */
  #told = 0;

  constructor(cli: Cli, options: DisplayOptions) {
    this.#cli = cli;
    this.#options = options;
  }

  opening(port: NetmapPort, addresses: string, verbose: boolean): void {
    if (this.#options.json) return;
    const { mode } = this.#options.settings;
    const receives = mode === 'rx' || mode === 'rxseq';
    const queues = (receives ? port.rx : port.tx).length;
    this.#line(`${OPENING[mode]} ${port.name}: ${queues} queues, 1 threads and 1 cpus.`);
    if (mode === 'tx' || mode === 'txseq') this.#line(addresses);
    if (!verbose) return;
    this.#note(`features: ${port.features.join(' ') || 'none'}; headers ${port.headers}`);
    for (const ring of [...port.tx, ...port.rx]) {
      this.#note(`   ${ringName(ring)} slots ${ring.slots} of ${ring.bufferSize} bytes`);
    }
  }

  interval(interval: Interval): void {
    const { style, statistics, json } = this.#options;
    const rates = intervalRates(interval, style);
    this.#pps.add(rates.pps);
    const { pings } = this;
    if (json) {
      this.#json({ type: 'interval', ...rates, ...interval, ...rtt(pings?.interval, pings?.lost) });
    } else {
      this.#note(intervalLine(interval, style, statistics ? this.#pps : undefined));
      if (pings !== undefined) this.#ping(pings);
      if (this.sequence !== undefined) this.#sequence(this.sequence);
    }
    pings?.interval.clear();
  }

  total(job: Job): void {
    const { style, statistics, settings, json } = this.#options;
    const { counts, seconds } = job;
    const { pings, sequence } = this;
    if (json) {
      const error = job.error?.message;
      this.#json({
        ...{ type: 'total', function: settings.mode, seconds, ...counts },
        ...totalRates(counts, seconds),
        ...(statistics ? { statistics: this.#pps.total() } : {}),
        ...rtt(pings?.total, pings?.lost, pings?.late),
        ...(sequence === undefined ? {} : { sequence: sequenceFigures(sequence) }),
        ...(error === undefined ? {} : { error }),
      });
      return;
    }
    const lines = totalLines(VERBS[settings.mode], counts, seconds, style);
    if (statistics) lines.push(...ppsLine(this.#pps, style));
    if (pings !== undefined) lines.push(...pingTotalLines(pings.total, pings.lost));
    if (sequence !== undefined) lines.push(sequenceLine(sequence));
    for (const line of lines) this.#line(line);
  }

  /** A slot and what is in it, as netmap's -X shows it. */
  dump(ring: NetmapRing, i: number): void {
    const bytes = ring.bytes(i);
    const flags = ring.flags(i).toString(16).padStart(4, '0');
    const cells = [i, ring.buffer(i), bytes.length].map(String);
    const [cur, buffer, length] = cells as [string, string, string];
    let text =
      `ring ${ringName(ring)} cur ${cur.padStart(5)} ` +
      `[buf ${buffer.padStart(6)} flags 0x${flags} len ${length.padStart(5)}]\n`;
    for (let at = 0; at < bytes.length; at += 16) {
      const row = [...bytes.subarray(at, at + 16)];
      const hex = row.map((byte) => `${byte.toString(16).padStart(2, '0')} `).join('');
      const shown = row.map((b) => (b >= 0x20 && b < 0x7f ? String.fromCharCode(b) : '.')).join('');
      text += `${String(at).padStart(5)}: ${hex.padEnd(48)}${shown}\n`;
    }
    (this.#options.json ? this.#cli.err : this.#cli.out).write(text);
  }

  #ping(pings: Pings): void {
    const [first, ...rest] = pingLines(pings.interval);
    this.#note(first!);
    for (const line of rest) this.#cli.err.write(`${line}\n`);
  }

  #sequence(sequence: SequenceTracker): void {
    const { gaps, reordered, duplicates, last } = sequence;
    const errors = gaps + reordered + duplicates;
    if (errors === this.#told || last === undefined) return;
    this.#told = errors;
    const behind = ((last.found - last.expected) | 0) < 0;
    const what = behind ? 'OUT OF ORDER' : 'GAP';
    this.#note(`Sequence ${what}: exp ${last.expected} found ${last.found}`);
    this.#note(sequenceLine(sequence));
  }

  #note(text: string): void {
    this.#cli.err.write(`${stamped(this.#cli.time.wall(), text)}\n`);
  }

  #line(text: string): void {
    this.#cli.out.write(`${plain(text)}\n`);
  }

  #json(value: unknown): void {
    this.#cli.out.write(`${JSON.stringify(value)}\n`);
  }
}

function ringName(ring: NetmapRing): string {
  return `${ring.direction.toUpperCase()}${ring.id}${ring.host ? ' (host)' : ''}`;
}

function rtt(histogram: Pings['total'] | undefined, lost = 0, late?: number): object {
  if (histogram === undefined) return {};
  const { count, min, mean } = histogram;
  const times = count === 0 ? {} : { min, avg: mean, ...percentiles(histogram) };
  return { rtt: { count, ...times, ...histogram.powers(), lost, late } };
}

function sequenceFigures({ gaps, lost, reordered, duplicates, short }: SequenceTracker) {
  return { gaps, lost, reordered, duplicates, short };
}

function sequenceLine(sequence: SequenceTracker): string {
  const { gaps, lost, reordered, duplicates, short } = sequence;
  const frames = short > 0 ? `, ${short} too short for a number` : '';
  return `Sequence: ${gaps} gaps, ${lost} lost, ${reordered} out of order, ${duplicates} twice${frames}`;
}
