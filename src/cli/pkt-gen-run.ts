// A run of pkt-gen: the port, the loop, the report. Loaded only by the command.

import { NetmapError, type NetmapOptions, type NetmapPort } from '../netmap/types.ts';
import { CopyFiller, type Cut } from '../tools/fill.ts';
import { Job } from '../tools/job.ts';
import { Pings, ping, pong } from '../tools/ping.ts';
import { Counter, receive, SequenceReader } from '../tools/receive.ts';
import { fillers, transmit } from '../tools/send.ts';
import { SequenceTracker } from '../tools/sequence.ts';
import type { Settings } from '../tools/settings.ts';
import { UdpSource } from '../tools/source.ts';
import { type Cli, UsageError } from './cli.ts';
import { catchSignals } from './ending.ts';
import { cutFor } from './pkt-gen-cut.ts';
import { Display } from './pkt-gen-display.ts';
import {
  openOptions,
  type PktGenOptions,
  PPS_STATISTICS,
  routeOf,
  settingsOf,
} from './pkt-gen-settings.ts';

export async function runPktGen(cli: Cli, options: PktGenOptions): Promise<void> {
  const settings = settingsOf(options);
  if (options.a !== undefined) await pin(options.a);
  const ending = catchSignals(cli.err);
  try {
    const port = await openPort(cli, options.i, {
      ...openOptions(options),
      signal: ending.signal,
    });
    try {
      await work(cli, port, options, settings, ending.signal);
    } finally {
      await port.close();
    }
  } finally {
    ending.release();
  }
}

/** A name or option that cannot be is the user's mistake, as any other option. */
export async function openPort(cli: Cli, name: string, options: NetmapOptions) {
  try {
    return await cli.netmap(name, options);
  } catch (error) {
    if (error instanceof NetmapError && (error.code === 'name' || error.code === 'option')) {
      throw new UsageError(error.message);
    }
    throw error;
  }
}

async function pin(cpu: number): Promise<void> {
  const { setAffinity } = await import('../linux/sched.ts');
  try {
    setAffinity([cpu]);
  } catch {
    throw new UsageError(`-a ${cpu}: this process may not run on such a CPU: see nproc`);
  }
}

async function work(
  cli: Cli,
  port: NetmapPort,
  options: PktGenOptions,
  settings: Settings,
  signal: AbortSignal,
): Promise<void> {
  const cut = cutFor(port, options, settings);
  const display = new Display(cli, {
    settings,
    style: { normalize: !options.N, framing: options.B === true },
    statistics: options.A === true || (options.o & PPS_STATISTICS) !== 0,
    json: options.json === true,
  });
  const job = new Job({
    ...{ port, settings, signal, time: cli.time },
    report: (interval) => display.interval(interval),
    dump: (ring, i) => display.dump(ring, i),
  });
  display.opening(port, routeOf(options, settings.traffic), options.v === true);
  await job.run(loopOf(job, cut, display));
  if (job.error !== undefined) {
    cli.err.write(`vhop: ${job.error.message}\n`);
    cli.status = 1;
  }
  display.total(job);
}

function loopOf(job: Job, cut: Cut, display: Display): (job: Job) => Promise<void> {
  const { port, settings } = job;
  switch (settings.mode) {
    case 'tx':
    case 'txseq': {
      const fill = fillers(job, cut);
      return () => transmit(job, fill);
    }
    case 'rx':
      return () => receive(job, new Counter());
    case 'rxseq': {
      const sequence = new SequenceTracker();
      display.sequence = sequence;
      return () => receive(job, new SequenceReader(port.memory, sequence));
    }
    case 'ping': {
      const pings = new Pings();
      const source = new UdpSource(settings.traffic);
      const filler = new CopyFiller(port.memory, source, cut, settings.header);
      display.pings = pings;
      return () => ping(job, source, filler, pings);
    }
    case 'pong':
      return () => pong(job);
  }
}
