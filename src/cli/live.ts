// The live table: redrawn in place on a terminal, one line a second anywhere else.

import type { PortInfo, Stats } from '../types.ts';
import type { Output } from './cli.ts';
import { type Rates, rates } from './rates.ts';
import { type Column, paint, tableLines } from './table.ts';
import { clock, scaled } from './units.ts';

/** One reading of a switch. */
export interface Sample {
  ports: readonly PortInfo[];
  stats: Stats;
  /** Seconds since the switch opened, at the time of `stats`. */
  uptime: number;
}

const right = (title: string): Column => ({ title, align: 'right' });
const PORT_COLUMNS: readonly Column[] = [
  { title: 'port' },
  { title: 'state' },
  right('tx pps'),
  right('rx pps'),
  right('tx Gb/s'),
  right('rx Gb/s'),
  right('drops/s'),
  right('burst'),
];
const WORKER_COLUMNS: readonly Column[] = [
  right('worker'),
  { title: 'state' },
  right('load'),
  right('ns/frame'),
  right('frames/s'),
];

/**
 * Draws samples on `out`. `update` with a first sample shows the states, with each further one the
 * rates since the one before. `end` leaves the last table standing and gives the cursor back.
 */
export class LiveTable {
  readonly #out: Output;
  readonly #redraws: boolean;
  #last: Sample | undefined;
  #drawn: string[] = [];
  #hidden = false;

  constructor(out: Output) {
    this.#out = out;
    this.#redraws = out.isTTY === true && process.env['TERM'] !== 'dumb';
  }

  update(sample: Sample): void {
    const before = this.#last;
    this.#last = sample;
    const figures = before && rates(before.stats, sample.stats, sample.uptime);
    if (this.#redraws) this.#draw(liveLines(this.#out, sample, figures));
    else if (figures !== undefined) this.#out.write(`${summary(sample, figures)}\n`);
  }

  /** Writes a line that stays, above the table. */
  note(line: string): void {
    const table = this.#drawn;
    this.#erase();
    this.#out.write(`${line}\n`);
    if (this.#redraws && table.length > 0) this.#draw(table);
  }

  end(): void {
    if (this.#hidden) this.#out.write('\u001b[?25h');
    this.#hidden = false;
    this.#drawn = [];
  }

  #draw(lines: readonly string[]): void {
    // A table taller than the terminal would scroll and could not be taken back.
    const height = Math.max((this.#out.rows ?? 24) - 1, 1);
    const shown = lines.slice(0, height).map((line) => clip(line, this.#out.columns ?? 80));
    let text = this.#hidden ? '' : '\u001b[?25l';
    this.#hidden = true;
    if (this.#drawn.length > 0) text += `\u001b[${this.#drawn.length}A`;
    // Line by line, so that an unchanged table does not flicker.
    text += shown.map((line) => `\r${line}\u001b[K\n`).join('');
    this.#out.write(`${text}\u001b[J`);
    this.#drawn = shown;
  }

  #erase(): void {
    if (this.#drawn.length > 0) this.#out.write(`\u001b[${this.#drawn.length}A\r\u001b[J`);
    this.#drawn = [];
  }
}

/**
 * Shows what `read` gives, at once and then every `interval` milliseconds, until `signal` aborts or
 * `seconds` have passed. Rejects when `read` does. `table` lets the caller add notes meanwhile.
 */
export async function runLive(
  read: () => Sample | Promise<Sample>,
  table: LiveTable,
  options: { signal?: AbortSignal; seconds?: number; interval?: number } = {},
): Promise<void> {
  const { signal, seconds = Number.POSITIVE_INFINITY, interval = 1000 } = options;
  const start = performance.now();
  try {
    // Ticks of one clock, so that slow reads do not add up and the last interval is a whole one.
    for (let tick = 0; tick * interval <= seconds * 1000; tick++) {
      await pause(start + tick * interval - performance.now(), signal);
      if (signal?.aborted) break;
      table.update(await read());
    }
  } finally {
    table.end();
  }
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((done) => {
    if (signal?.aborted || milliseconds <= 0) {
      done();
      return;
    }
    const finish = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', finish);
      done();
    };
    const timer = setTimeout(finish, milliseconds);
    signal?.addEventListener('abort', finish, { once: true });
  });
}

/** The tables of one sample; without `figures` (the first sample) the rates read `-`. */
export function liveLines(out: Output, sample: Sample, figures: Rates | undefined): string[] {
  const title = (line: string) => paint(out, 'bold', line);
  const portRows = sample.ports.map((port) => {
    const rate = figures?.ports.find((p) => p.port === port.name);
    return [
      port.name,
      port.state,
      ...(rate
        ? [
            scaled(rate.txPps),
            scaled(rate.rxPps),
            gigabits(rate.txBps),
            gigabits(rate.rxBps),
            scaled(rate.dropsPps),
            rate.burst.toFixed(1),
          ]
        : []),
    ];
  });
  const workerRows = sample.stats.workers.map((worker) => {
    const rate = figures?.workers.find((w) => w.worker === worker.worker);
    return [
      worker.worker,
      worker.state,
      ...(rate
        ? [`${(rate.load * 100).toFixed(0)}%`, rate.nsPerFrame.toFixed(0), scaled(rate.fps)]
        : []),
    ];
  });
  const cell = (text: string, column: number) => (column === 1 ? paintState(out, text) : text);
  return [
    ...tableLines(PORT_COLUMNS, portRows, { title, cell }),
    '',
    ...tableLines(WORKER_COLUMNS, workerRows, { title, cell }),
  ];
}

/** A port's or worker's state in its colour. */
export function paintState(out: Output, state: string): string {
  if (state === 'up' || state === 'busy') return paint(out, 'green', state);
  if (state === 'quarantined') return paint(out, 'red', state);
  return state;
}

/** `12:00:01  a tx 1.2M rx 0 pps, b …; drops 0/s, load 37%` for logs. */
function summary(sample: Sample, figures: Rates): string {
  const ports = figures.ports.map((p) => `${p.port} tx ${scaled(p.txPps)} rx ${scaled(p.rxPps)}`);
  const drops = figures.ports.reduce((sum, p) => sum + p.dropsPps, 0);
  const load = figures.workers.map((w) => `${(w.load * 100).toFixed(0)}%`).join(' ');
  return `${clock(sample.stats.time)}  ${ports.join(', ')} pps; drops ${scaled(drops)}/s; load ${load}`;
}

/** Two decimals below 10, fewer above, and never a false zero. */
function gigabits(bps: number): string {
  const value = bps / 1e9;
  if (value > 0 && value < 0.005) return '<0.01';
  return value.toFixed(value < 10 ? 2 : 1);
}

/** At most `width` visible characters; escape sequences take none. */
function clip(line: string, width: number): string {
  let shown = 0;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: SGR sequences begin with ESC.
  return line.replace(/\u001b\[[0-9;]*m|[^\u001b]/g, (token) =>
    token.length > 1 || ++shown <= width ? token : '',
  );
}
