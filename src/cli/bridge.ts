// `vhop bridge`: two ports, or a port and its host rings, back to back, as netmap's bridge.

import { type Register, wholeNumber } from './cli.ts';

const HELP = `
PORT is vhop:PATH of a socket, vhop:PORT[@SWITCH] of a running switch, or tap:NAME.
One port alone is joined with its host rings, a TAP device; with -L with itself.

  vhop bridge -i vhop:/tmp/a.sock -i vhop:/tmp/b.sock
  vhop bridge -i vhop:/tmp/a.sock
`;

export interface BridgeCommandOptions {
  i: string[];
  b: number;
  w: number;
  c?: boolean;
  v?: boolean;
  L?: boolean;
  packed?: boolean;
  split?: boolean;
  tap?: string;
  json?: boolean;
}

export const bridge: Register = (program, cli) => {
  program
    .command('bridge')
    .description("join two ports, or one with the host, as netmap's bridge")
    .requiredOption('-i <port>', 'a port; at most twice', (text: string, all: string[] = []) => [
      ...all,
      text,
    ])
    .option('-b <slots>', 'at most so many at once', wholeNumber(1, 32768), 1024)
    .option('-w <seconds>', 'wait for the other sides', wholeNumber(0, 3600), 2)
    .option('-c', 'copy, where buffers could be swapped')
    .option('-v', 'tell each second what passed')
    .option('-L', 'one port: send back what it receives')
    .option('--packed', 'packed rings or none (default: where they are offered)')
    .option('--split', 'split rings')
    .option('--tap <device>', "name of the host rings' TAP device (default: the port's)")
    .option('--json', 'print the totals as JSON')
    .addHelpText('after', HELP)
    .action(async (options: BridgeCommandOptions) =>
      (await import('./bridge-run.ts')).runBridgeCommand(cli, options),
    );
};
