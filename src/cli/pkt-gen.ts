// `vhop pkt-gen`: netmap's packet generator, with netmap's flags.

import { type Command, InvalidArgumentError, Option } from 'commander';
import { NetmapError, type NetmapOptions, type NetmapPort } from '../netmap/types.ts';
import { CopyFiller, type Cut } from '../tools/fill.ts';
import { Job } from '../tools/job.ts';
import { Pings, ping, pong } from '../tools/ping.ts';
import { Counter, receive, SequenceReader } from '../tools/receive.ts';
import { fillers, transmit } from '../tools/send.ts';
import { SequenceTracker } from '../tools/sequence.ts';
import { FUNCTIONS, type Settings } from '../tools/settings.ts';
import { UdpSource } from '../tools/source.ts';
import { type Cli, type Register, UsageError, wholeNumber } from './cli.ts';
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

const HELP = `
PORT is vhop:PATH of a socket, vhop:PORT[@SWITCH] of a running switch, or tap:NAME.

  vhop pkt-gen -i vhop:/tmp/a.sock -f tx -n 1000000 -l 60
  vhop pkt-gen -i vhop:/tmp/b.sock -f rx
  vhop pkt-gen -i vhop:a -f ping -n 1000
  vhop pkt-gen -i vhop:a -f tx -P trace.pcap -R 10000

An address is ADDRESS[:PORT][-ADDRESS[:PORT]]; frames go through a range, the
source's port first. IPv6 with a port has brackets, [fd00::1]:53.
Reports go to standard error, totals to standard output. Ctrl-C ends a run.
`;

const count = (min: number, max: number) => wholeNumber(min, max);

export const pktGen: Register = (program, cli) => {
  const command = program
    .command('pkt-gen')
    .description("send, receive or ping, with the flags of netmap's pkt-gen");
  what(command);
  frames(command);
  pace(command);
  command.addHelpText('after', HELP).action((options: PktGenOptions) => run(cli, options));
};

function what(command: Command): void {
  command
    .requiredOption('-i <port>', 'the port')
    .addOption(new Option('-f <function>', 'what to do').choices(FUNCTIONS).default('rx' as string))
    .option('-n <count>', 'frames, 0 for no end', count(0, Number.MAX_SAFE_INTEGER), 0)
    .option('-p <n>', 'queue pairs; one thread serves them in turn', count(1, 8))
    .option('-a <cpu>', 'run on this CPU', count(0, 1023))
    .option('-w <seconds>', 'wait for the other side', count(0, 3600), 10)
    .option('-C <config>', 'slots[,slots[,rings[,rings]]] of the port');
}

function frames(command: Command): void {
  command
    .option(
      '-l <bytes>',
      'size without CRC (default: 60); twice: random, from the second to below the first',
      (text: string, sizes: number[] = []) => [...sizes, count(16, 65536)(text)],
    )
    .option('-4', 'IPv4 (the default)')
    .option('-6', 'IPv6')
    .option('-s <addresses>', 'source (default: 10.0.0.1:1234)')
    .option('-d <addresses>', 'destination (default: 10.1.0.1:1234)')
    .option('-S <mac>', "source MAC address or range MAC-MAC (default: of the port's name)")
    .option('-D <mac>', 'destination MAC address or range', 'ff:ff:ff:ff:ff:ff')
    .option('-z', 'random source addresses and ports')
    .option('-Z', 'random destination addresses and ports')
    .option('-P <file>', 'send the frames of a pcap or pcapng file, round and round')
    .option('-F <n>', 'spread each frame over n slots', count(1, 64), 1)
    .option('-M <bytes>', 'at most so much of a frame in a slot', count(1, 65536))
    .addOption(
      new Option('-H <bytes>', "an empty virtio-net header in front: virtio's 12, for 10 too")
        .choices(['0', '10', '12'])
        .default('0'),
    )
    .option('-r', 'send what the buffers hold')
    .option('-o <bits>', "netmap's data options: 4 copies every frame", parseBits, 0)
    .addOption(new Option('-I').hideHelp())
    .addOption(new Option('-c <cpus>').hideHelp());
}

function pace(command: Command): void {
  command
    .option('-b <frames>', 'at most so many at once (default: 512)', count(1, 32768))
    .option('-R <pps>', 'frames a second (default: as many as go)', count(1, 1_000_000_000))
    .option('-T <ms>', 'time between reports', count(10, 86_400_000), 1000)
    .option('-W', 'rx: end after a second without frames')
    .option('-A', 'average and spread of the rate')
    .option('-B', 'count CRC, preamble and gap in bps')
    .option('-N', 'no K, M, G')
    .option('-X', 'dump every frame')
    .option('-v', 'tell more')
    .option('--json', 'print JSON, one object a report');
}

function parseBits(text: string): number {
  if (!/^\d{1,5}$/.test(text)) throw new InvalidArgumentError('Give a sum of option bits.');
  return Number(text);
}

async function run(cli: Cli, options: PktGenOptions): Promise<void> {
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
