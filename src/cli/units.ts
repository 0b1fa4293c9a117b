// Numbers as people read them.

const SUFFIXES = ['', 'k', 'M', 'G', 'T'];

/** Three significant digits with a suffix: 0, 999, 12.3k, 4.56M, 1.2G. Negative and NaN read `-`. */
export function scaled(value: number): string {
  if (!Number.isFinite(value) || value < 0) return '-';
  if (value < 999.5) {
    return value !== 0 && value < 9.95 ? trimmed(value.toFixed(1)) : value.toFixed(0);
  }
  let step = 0;
  // 999.5 is where three digits round up to the next suffix's 1.00.
  while (value >= 999.5 && step < SUFFIXES.length - 1) {
    value /= 1000;
    step++;
  }
  return `${value.toPrecision(value < 999.5 ? 3 : 4)}${SUFFIXES[step]}`;
}

function trimmed(text: string): string {
  return text.replace(/\.0$/, '');
}

/** Bytes of memory: 512 MiB, 4 GiB. */
export function memory(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let step = 0;
  while (bytes >= 1024 && step < units.length - 1) {
    bytes /= 1024;
    step++;
  }
  return `${trimmed(bytes.toFixed(1))} ${units[step]}`;
}

/** Seconds as 42s, 3m07s, 2h05m. */
export function duration(seconds: number): string {
  const s = Math.floor(seconds);
  const two = (n: number) => String(n).padStart(2, '0');
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
  return `${Math.floor(s / 3600)}h${two(Math.floor((s % 3600) / 60))}m`;
}

/** Milliseconds as 4.2 ms, 38 ms, 1.5 s, 42 s, 3m07s, 2h05m. */
export function span(ms: number): string {
  if (ms < 999.5) return `${scaled(Math.max(ms, 0))} ms`;
  return ms < 60_000 ? `${scaled(ms / 1000)} s` : duration(ms / 1000);
}

/** Local time of day, HH:MM:SS. */
export function clock(time: number | Date = new Date()): string {
  const t = new Date(time);
  return [t.getHours(), t.getMinutes(), t.getSeconds()]
    .map((n) => String(n).padStart(2, '0'))
    .join(':');
}
