// `vhop demo`: the whole path in one process. Two guests of our own, on rings in their own memory,
// send each other checked frames through a real switch.

import { controlPath } from '../control/path.ts';
import { serveControl } from '../control/server.ts';
import type { TrafficCounts } from '../port/traffic.ts';
import { type Cli, printJson, type Register, wholeNumber } from './cli.ts';
import { catchSignals } from './ending.ts';
import { LiveTable, runLive } from './live.ts';
import { paint, tableLines } from './table.ts';
import { scaled } from './units.ts';

interface DemoOptions {
  seconds: number;
  length: number;
  json?: boolean;
}

const NAME = 'demo';

export const demo: Register = (program, cli) => {
  program
    .command('demo')
    .description('two in-process guests exchange traffic: no root, no QEMU, no huge pages')
    .option('-s, --seconds <n>', 'how long', wholeNumber(1, 86400), 8)
    .option('-l, --length <bytes>', 'frame length, 0 for a mix', wholeNumber(0, 1514), 0)
    .option('--json', 'print only the summary, as JSON')
    .action((options: DemoOptions) => runDemo(cli, options));
};

async function runDemo(cli: Cli, options: DemoOptions): Promise<void> {
  // Loaded here: queries need neither FFI nor WebAssembly.
  const { openSwitch, startTraffic } = await import('../api/index.ts');
  const ending = catchSignals(cli.err);
  const api = await openSwitch({ name: NAME });
  try {
    const traffic = startTraffic(api, { frames: Number.POSITIVE_INFINITY, length: options.length });
    const table = new LiveTable(cli.out);
    // Answers from other terminals while it runs; a second demo goes without.
    const control = await serveControl(api, controlPath(NAME)).catch(() => undefined);
    try {
      const start = performance.now();
      if (!options.json) cli.out.write(intro(cli, control !== undefined));
      const read = () => ({ ports: api.ports(), stats: api.stats(), uptime: api.info().uptime });
      const silent = new LiveTable({ write: () => {} });
      await runLive(read, options.json ? silent : table, {
        signal: ending.signal,
        seconds: options.seconds,
      });
      const seconds = (performance.now() - start) / 1000;
      const counts = await traffic.drain();
      const stats = api.stats();
      const drops = stats.ports.map((port) =>
        Object.values(port.drops).reduce((sum, n) => sum + n, 0),
      );
      const result = summarize(counts, drops, seconds);
      if (options.json) printJson(cli, { ...result, stats });
      else cli.out.write(report(cli, result, stats.workers[0]!.nsPerFrame));
      if (!result.ok) cli.status = 1;
    } finally {
      await traffic.stop();
      await control?.close();
    }
  } finally {
    await api.close();
    ending.release();
  }
}

interface Summary {
  seconds: number;
  guests: (TrafficCounts & { name: string })[];
  /** Frames delivered a second, both directions. */
  pps: number;
  /** Bits delivered a second, both directions. */
  bps: number;
  /** Frames that the switch dropped, under named reasons. */
  dropped: number;
  /** Frames neither delivered nor counted as dropped; anything but 0 is a bug. */
  unaccounted: number;
  ok: boolean;
}

function summarize(counts: [TrafficCounts, TrafficCounts], drops: number[], seconds: number) {
  const total = (of: (c: TrafficCounts) => number) => of(counts[0]) + of(counts[1]);
  const received = total((c) => c.received);
  const dropped = drops.reduce((sum, n) => sum + n, 0);
  const unaccounted = total((c) => c.sent) - received - dropped;
  const wrong = total((c) => c.corrupt + c.reordered + c.foreign);
  return {
    seconds,
    guests: counts.map((c, i) => ({ name: i === 0 ? 'guest-a' : 'guest-b', ...c })),
    pps: received / seconds,
    bps: (total((c) => c.bytes) * 8) / seconds,
    dropped,
    unaccounted,
    ok: received > 0 && wrong === 0 && unaccounted === 0,
  } satisfies Summary;
}

function intro(cli: Cli, answers: boolean): string {
  const other = answers ? ` From another terminal: vhop rings --name ${NAME}` : '';
  return (
    'Two guests, a switch between them, one copy a frame; every byte is checked.\n' +
    `${paint(cli.out, 'dim', `Ctrl-C ends it early.${other}`)}\n\n`
  );
}

function report(cli: Cli, result: Summary, nsPerFrame: number): string {
  const lines = tableLines(
    [
      { title: 'guest' },
      { title: 'sent', align: 'right' },
      { title: 'received intact', align: 'right' },
      { title: 'corrupt', align: 'right' },
      { title: 'reordered', align: 'right' },
    ],
    result.guests.map((g) => [g.name, g.sent, g.received, g.corrupt, g.reordered]),
    { title: (line) => paint(cli.out, 'bold', line) },
  );
  const gigabits = (result.bps / 1e9).toFixed(1);
  const verdict = result.ok
    ? paint(cli.out, 'green', 'every frame accounted for')
    : paint(cli.out, 'red', `${result.unaccounted} frames unaccounted for: this is a bug`);
  return (
    `
${lines.join('\n')}

${result.seconds.toFixed(1)} s: ${scaled(result.pps)} frames/s, ${gigabits} Gb/s, both ways together; ` +
    `${nsPerFrame.toFixed(0)} ns of switch a frame.
${result.dropped} dropped${result.dropped > 0 ? ' (rx_full: a guest was slower than its peer)' : ''}; ${verdict}.

next: plug in your own VM
  ${paint(cli.out, 'bold', 'bin/vhop switch /tmp/a.sock /tmp/b.sock')}     a switch with two sockets
  ${paint(cli.out, 'bold', 'bin/vhop args a --qemu')}                      what to give QEMU (another terminal)
`
  );
}
