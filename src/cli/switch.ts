// `vhop switch`: any number of sockets; each frame goes where its MAC address was last heard.

import type { Register } from './cli.ts';
import { wholeNumber } from './cli.ts';
import { runSockets, type SocketsOptions, socketOptions } from './sockets.ts';

export const switchCommand: Register = (program, cli) => {
  socketOptions(
    program
      .command('switch')
      .description('join guests with a learning switch')
      .usage('[options] A.sock B.sock [C.sock ...]'),
  )
    .argument('<sockets...>', 'one socket for each port')
    .option(
      '--ageing <seconds>',
      'until an unheard MAC address is forgotten (default: 300)',
      wholeNumber(1, 1_000_000),
    )
    .action((sockets: string[], options: SocketsOptions) =>
      runSockets(cli, 'switch', sockets, options),
    );
};
