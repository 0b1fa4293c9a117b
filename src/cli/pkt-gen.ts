// `vhop pkt-gen`: netmap's packet generator, with netmap's flags.

import { type Command, InvalidArgumentError, Option } from 'commander';
import { FUNCTIONS } from '../tools/settings.ts';
import { wholeNumber as count, type Register } from './cli.ts';
import type { PktGenOptions } from './pkt-gen-settings.ts';

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

export const pktGen: Register = (program, cli) => {
  const command = program
    .command('pkt-gen')
    .description("send, receive or ping, with the flags of netmap's pkt-gen");
  what(command);
  frames(command);
  pace(command);
  command
    .addHelpText('after', HELP)
    .action(async (options: PktGenOptions) =>
      (await import('./pkt-gen-run.ts')).runPktGen(cli, options),
    );
};

function what(command: Command): void {
  command
    .requiredOption('-i <port>', 'the port')
    .addOption(new Option('-f <function>', 'what to do').choices(FUNCTIONS).default('rx' as string))
    .option('-n <count>', 'frames, 0 for no end', count(0, Number.MAX_SAFE_INTEGER), 0)
    .option('-p <n>', 'queue pairs; one thread serves them in turn', count(1, 8))
    .option('-a <cpu>', 'run on this CPU', count(0, 1023))
    .option('-w <seconds>', 'wait for the other side', count(0, 3600), 10)
    .option('-C <config>', 'slots[,slots[,rings[,rings]]] of the port')
    .option('--packed', 'packed rings or none (default: where they are offered)')
    .option('--split', 'split rings');
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
      new Option('-H <bytes>', 'an empty virtio-net header in front of each frame; 0: one for all')
        .choices(['0', '10', '12'])
        .default('12'),
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
