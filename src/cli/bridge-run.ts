// A run of the bridge: which rings are joined, and what it tells. Loaded only by the command.

import type { NetmapPort } from '../netmap/types.ts';
import { type End, Path, runBridge } from '../tools/bridge.ts';
import { norm } from '../tools/report.ts';
import type { BridgeCommandOptions } from './bridge.ts';
import { type Cli, printJson, UsageError } from './cli.ts';
import { catchSignals } from './ending.ts';
import { openPort } from './pkt-gen-run.ts';
import { ringFormat } from './pkt-gen-settings.ts';
import { plain } from './table.ts';

export async function runBridgeCommand(cli: Cli, options: BridgeCommandOptions): Promise<void> {
  const [a, second, more] = options.i;
  if (a === undefined || more !== undefined) {
    throw new UsageError(`a bridge has two ends, not ${options.i.length}: give -i twice`);
  }
  const b = second ?? a;
  if (options.L && a !== b) throw new UsageError('-L goes with one port: give -i once');
  const ending = catchSignals(cli.err);
  const ports: NetmapPort[] = [];
  const open = async (name: string) => {
    const memory = ports[0]?.memory;
    const port = await openPort(cli, name, {
      timeoutMs: Math.max(options.w * 1000, 100),
      signal: ending.signal,
      // A frame with its header in front takes one descriptor, not two.
      headers: 'kept',
      packed: ringFormat(options),
      ...(options.tap === undefined ? {} : { tap: options.tap }),
      ...(memory === undefined ? {} : { memory }),
    });
    ports.push(port);
    return port;
  };
  try {
    const ends = await openEnds(open, a, b, options.L === true);
    await join(cli, ends, options, ending.signal);
  } finally {
    // In the opposite order: the second takes its buffers from the first's memory.
    for (const port of ports.reverse()) await port.close();
    ending.release();
  }
}

type Open = (name: string) => Promise<NetmapPort>;

async function openEnds(open: Open, a: string, b: string, loop: boolean): Promise<[End, End]> {
  if (a !== b) return [whole(a, await open(a)), whole(b, await open(b))];
  if (loop) {
    const end = whole(a, await open(a));
    return [end, end];
  }
  if (a.endsWith('^')) {
    throw new UsageError(`-i ${a}: there are only host rings to join: give -i ${a.slice(0, -1)}`);
  }
  const port = await open(a.endsWith('*') ? a : `${a}*`);
  const end = (name: string, host: boolean): End => ({
    ...{ name, port },
    tx: port.tx.filter((ring) => ring.host === host),
    rx: port.rx.filter((ring) => ring.host === host),
  });
  const ends: [End, End] = [end(a, false), end(`${a}^`, true)];
  for (const { name, tx, rx } of ends) {
    if (tx.length > 0 && rx.length > 0) continue;
    throw new UsageError(`-i ${a}: ${name} has no rings to join: give a second -i`);
  }
  return ends;
}

function whole(name: string, port: NetmapPort): End {
  return { name, port, tx: port.tx, rx: port.rx };
}

async function join(
  cli: Cli,
  [a, b]: [End, End],
  options: BridgeCommandOptions,
  signal: AbortSignal,
): Promise<void> {
  const paths = [new Path(a, b, options.c === true)];
  if (a !== b) paths.push(new Path(b, a, options.c === true));
  const swaps = paths.every((path) => path.swaps);
  if (options.v)
    cli.err.write(`zerocopy ${swaps ? '' : 'NOT '}${options.c ? 'wanted' : 'possible'}\n`);
  let before = paths.map(({ frames, bytes }) => ({ frames, bytes }));
  const error = await runBridge({
    ...{ paths, burst: options.b, time: cli.time, signal },
    second: (seconds) => {
      if (options.v) {
        const rates = paths.map((path, i) => {
          const pps = (path.frames - before[i]!.frames) / seconds;
          const bps = ((path.bytes - before[i]!.bytes) * 8) / seconds;
          return `${path.name}: ${norm(pps, true)}pps ${norm(bps, true)}bps`;
        });
        cli.err.write(`${plain(rates.join(', '))}\n`);
      }
      before = paths.map(({ frames, bytes }) => ({ frames, bytes }));
    },
  });
  if (error !== undefined) {
    cli.err.write(`vhop: ${error.message}\n`);
    cli.status = 1;
  }
  const totals = paths.map(({ name, frames, bytes }) => ({ path: name, frames, bytes }));
  if (options.json) printJson(cli, { zeroCopy: swaps, paths: totals, error: error?.message });
  else {
    for (const { path, frames, bytes } of totals) {
      cli.out.write(`${plain(path)}: ${frames} packets ${bytes} bytes\n`);
    }
  }
}
