// `vhop wire`: two sockets, back to back. Every frame of one goes to the other.

import type { Register } from './cli.ts';
import { runSockets, type SocketsOptions, socketOptions } from './sockets.ts';

export const wire: Register = (program, cli) => {
  socketOptions(
    program
      .command('wire')
      .description('connect two guests back to back')
      .usage('[options] A.sock B.sock'),
  )
    // Any number, so that a third one is told about `vhop switch`.
    .argument('<sockets...>', 'the two sockets')
    .action((sockets: string[], options: SocketsOptions) =>
      runSockets(cli, 'wire', sockets, options),
    );
};
