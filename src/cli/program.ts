// The command line as a function: `vhop` with its arguments, to an exit status.

import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { ConfigError } from '../config/error.ts';
import { ControlError } from '../control/path.ts';
import { machineTime } from '../tools/time.ts';
import { args } from './args.ts';
import { bridge } from './bridge.ts';
import { type Cli, type Register, UsageError } from './cli.ts';
import { demo } from './demo.ts';
import { doctor } from './doctor.ts';
import { fdb } from './fdb.ts';
import { pktGen } from './pkt-gen.ts';
import { ports } from './ports.ts';
import { reload } from './reload.ts';
import { rings } from './rings.ts';
import { stats } from './stats.ts';
import { switchCommand } from './switch.ts';
import { up } from './up.ts';
import { wire } from './wire.ts';

/** Every command, in the order of --help. A new one is added here and nowhere else. */
const COMMANDS: readonly Register[] = [
  wire,
  switchCommand,
  up,
  reload,
  demo,
  ports,
  fdb,
  rings,
  stats,
  args,
  pktGen,
  bridge,
  doctor,
];

const EXAMPLES = `
Examples:
  vhop demo                            see it work, nothing needed
  vhop wire a.sock b.sock              two guests, back to back
  vhop switch a.sock b.sock c.sock     a learning switch
  vhop args a --qemu                   what to give QEMU for port a
  vhop stats --live                    watch a running switch
`;

/** From package.json, beside which both sources and the compiled files lie two folders deep. */
export function version(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

/**
 * Runs one command; resolves to the exit status once it has ended (for a running switch: closed).
 * `argv` is without the program's own name. `overrides` are for tests.
 */
export async function runCli(argv: readonly string[], overrides: Partial<Cli> = {}) {
  const cli: Cli = {
    out: process.stdout,
    err: process.stderr,
    status: 0,
    // Loaded only when a switch is opened: a query needs neither FFI nor WebAssembly.
    open: async (options) => (await import('../api/index.ts')).openSwitch(options),
    netmap: async (name, options) => (await import('../api/netmap.ts')).openNetmap(name, options),
    time: machineTime,
    ...overrides,
  };
  try {
    await build(cli, argv[0]).parseAsync([...argv], { from: 'user' });
    return cli.status;
  } catch (error) {
    return report(cli, error);
  }
}

/** `first` is the first argument: where it names a command, errors point to that one's help. */
function build(cli: Cli, first: string | undefined): Command {
  const help = () => {
    const known = program.commands.some((command) => command.name() === first);
    return known ? `vhop ${first} --help` : 'vhop --help';
  };
  const program = new Command('vhop')
    .description('A virtual switch for virtual machines: vhost-user sockets in, one copy, out.')
    .version(version(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand('help [command]', 'print help for a command')
    .addHelpText('after', EXAMPLES)
    .configureHelp({ showGlobalOptions: false })
    .exitOverride()
    .configureOutput({
      writeOut: (text) => cli.out.write(text),
      writeErr: (text) => cli.err.write(text),
      getOutHelpWidth: () => cli.out.columns ?? 80,
      getErrHelpWidth: () => cli.err.columns ?? 80,
      outputError: (text, write) => write(oneSentence(text, help())),
    });
  // Before the commands are added: they inherit exitOverride and the output.
  for (const register of COMMANDS) register(program, cli);
  return program;
}

/** Commander's `error: unknown command 'x'\n(Did you mean y?)` in this program's voice. */
function oneSentence(text: string, help: string): string {
  const sentence = text
    .replace(/^error: /, '')
    .replace(/\n\(Did you mean (one of )?(.*)\?\)/, (_, several, names) =>
      several === undefined ? `: did you mean '${names}'?` : `: did you mean one of ${names}?`,
    )
    .trim();
  return `vhop: ${sentence}${/[.?]$/.test(sentence) ? '' : `: see ${help}`}\n`;
}

function report(cli: Cli, error: unknown): number {
  if (error instanceof CommanderError) {
    // Help that was asked for exits 0; help shown for want of a command does not.
    return error.exitCode === 0 ? 0 : 2;
  }
  const { message, stack, name } = error instanceof Error ? error : new Error(String(error));
  for (const line of message.split('\n')) cli.err.write(`vhop: ${line}\n`);
  if (error instanceof UsageError || error instanceof ConfigError) return 2;
  const ours = ['TypeError', 'RangeError', 'ReferenceError', 'AssertionError'].includes(name);
  if (process.env['VHOP_DEBUG'] || (ours && !(error instanceof ControlError))) {
    cli.err.write(`${stack}\n`);
  }
  return 1;
}
