// The process: started by bin/vhop.

import { runCli } from './program.ts';

/** Milliseconds that whatever a command leaves behind may keep the process alive. */
const LINGER = 2000;

// `vhop stats --json | head -1`: the reader has what it wanted.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
}

process.exitCode = await runCli(process.argv.slice(2));
setTimeout(() => process.exit(), LINGER).unref();
