// `vhop stats`: the counters of a running switch, or with --live its rates as they change.

import type { ControlClient } from '../control/client.ts';
import type { Stats, SwitchInfo } from '../types.ts';
import {
  type Cli,
  findWanted,
  printJson,
  type QueryOptions,
  query,
  type Register,
  UsageError,
  wholeNumber,
} from './cli.ts';
import { catchSignals } from './ending.ts';
import { LiveTable, runLive } from './live.ts';
import { totalDrops } from './rates.ts';
import { printTable } from './table.ts';
import { duration } from './units.ts';

const HELP = `
tx is from the guest, rx is to it; bytes are of Ethernet frames without FCS.
segmented, segments and summed: frames cut, what they became, and checksums completed for
a guest that did not negotiate the offload.
`;

interface StatsOptions extends QueryOptions {
  live?: boolean;
  seconds?: number;
}

export const stats: Register = (program, cli) => {
  query(program, 'stats', 'show its counters, or live rates')
    .option('--live', 'show rates, every second, until Ctrl-C')
    .option('--seconds <n>', 'with --live: for so long', wholeNumber(1, 1_000_000))
    .addHelpText('after', HELP)
    .action(async (options: StatsOptions) => {
      if (options.live && options.json) {
        throw new UsageError('--live is for people: for programs repeat vhop stats --json');
      }
      if (options.seconds !== undefined && !options.live) {
        throw new UsageError('--seconds goes with --live: vhop stats --live --seconds N');
      }
      const control = await findWanted(options);
      if (options.live) await watch(cli, control, options.seconds);
      else if (options.json) printJson(cli, await control.get('/stats'));
      else printStats(cli, await control.get('/stats'), await control.get('/info'));
    });
};

async function watch(cli: Cli, control: ControlClient, seconds: number | undefined) {
  const ending = catchSignals(cli.err);
  const table = new LiveTable(cli.out);
  ending.onForced(() => table.end());
  const read = async () => {
    const [ports, figures, info] = await Promise.all([
      control.get('/ports'),
      control.get('/stats'),
      control.get('/info'),
    ]);
    return { ports, stats: figures, uptime: info.uptime };
  };
  try {
    const limits = { signal: ending.signal, ...(seconds === undefined ? {} : { seconds }) };
    await runLive(read, table, limits);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ECONNREFUSED' && code !== 'ECONNRESET') throw error;
    throw new Error('the switch has ended');
  } finally {
    ending.release();
  }
}

function printStats(cli: Cli, figures: Stats, info: SwitchInfo): void {
  const right = (title: string) => ({ title, align: 'right' }) as const;
  printTable(
    cli.out,
    [
      { title: 'port' },
      right('tx frames'),
      right('tx bytes'),
      right('rx frames'),
      right('rx bytes'),
      right('drops'),
      right('burst'),
      right('kicks'),
      right('calls'),
    ],
    figures.ports.map((p) => [
      p.port,
      p.txFrames,
      p.txBytes,
      p.rxFrames,
      p.rxBytes,
      totalDrops(p),
      p.txBursts > 0 ? (p.txFrames / p.txBursts).toFixed(1) : undefined,
      p.kicks,
      p.calls,
    ]),
  );
  const drops = figures.ports.flatMap((p) =>
    Object.entries(p.drops).map(([reason, count]) => [p.port, reason, count]),
  );
  if (drops.length > 0) {
    cli.out.write('\n');
    printTable(cli.out, [{ title: 'port' }, { title: 'drop reason' }, right('frames')], drops);
  }
  const offloads = figures.ports.filter((p) => p.segmented + p.summed > 0);
  if (offloads.length > 0) {
    cli.out.write('\n');
    printTable(
      cli.out,
      [{ title: 'port' }, right('segmented'), right('segments'), right('summed')],
      offloads.map((p) => [p.port, p.segmented, p.segments, p.summed]),
    );
  }
  cli.out.write('\n');
  printTable(
    cli.out,
    [
      right('worker'),
      { title: 'state' },
      right('load'),
      right('ns/frame'),
      right('frames'),
      right('polls'),
      right('sleeps'),
    ],
    figures.workers.map((w) => [
      w.worker,
      w.state,
      `${(w.load * 100).toFixed(1)}%`,
      w.nsPerFrame.toFixed(0),
      w.frames,
      w.polls,
      w.sleeps,
    ]),
  );
  const { entries, capacity, moves, full } = figures.fdb;
  const learned = `${entries} of ${capacity} addresses, ${moves} moves, ${full} not learned (full)`;
  cli.out.write(`\n fdb: ${learned}; ${info.name} up ${duration(info.uptime)}\n`);
}
