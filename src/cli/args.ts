// `vhop args`: paste-ready arguments for the guest of a port, of a running switch by the port's
// name, or offline from the socket's path.

import { existsSync } from 'node:fs';
import { InvalidArgumentError, Option } from 'commander';
import { ControlError } from '../control/path.ts';
import { MAC_PATTERN, MAX_SOCKET_PATH, macFromName, nameFromPath } from '../limits.ts';
import type { PortInfo } from '../types.ts';
import {
  type Cli,
  findWanted,
  printJson,
  type Register,
  UsageError,
  type Wanted,
  whichSwitch,
  wholeNumber,
} from './cli.ts';
import {
  type Argument,
  cloudHypervisorArgs,
  type GuestOptions,
  type GuestPort,
  libvirtXml,
  parseMemory,
  qemuArgs,
  shellLines,
  testpmdArgs,
} from './guest-args.ts';
import { dpdkHasHugePages, qemuVersion } from './machine.ts';
import { pick } from './ports.ts';
import { parseSocket } from './sockets.ts';

/** Queue pairs a port offers when nobody says how many; a guest asks for fewer by itself. */
const QUEUES_OFFERED = 8;

const HELP = `
PORT is a port's name, or a socket: /tmp/a.sock, or client:/tmp/a.sock where the
switch connects and the guest listens. Without a program, the answer is for QEMU.

  qemu-system-x86_64 -accel kvm $(vhop args a --qemu) disk.qcow2
  vhop args ./a.sock --testpmd --queues 2
`;

interface ArgsOptions extends Wanted {
  qemu?: boolean;
  libvirt?: boolean;
  cloudHypervisor?: boolean;
  testpmd?: boolean;
  queues?: number;
  mac?: string;
  memory: number;
  packed?: boolean;
  reconnect?: boolean;
  json?: boolean;
}

export const args: Register = (program, cli) => {
  whichSwitch(
    program
      .command('args')
      .description('print what to give a guest for its port')
      .argument('<port>'),
  )
    .option('--qemu', 'arguments of qemu-system-*')
    .option('--libvirt', 'XML for a libvirt domain')
    .option('--cloud-hypervisor', 'arguments of cloud-hypervisor')
    .option('--testpmd', "arguments of DPDK's testpmd")
    .option(
      '-q, --queues <n>',
      "queue pairs (default: what the port's file says, or 1)",
      wholeNumber(1, 8),
    )
    .option('--mac <address>', "the guest's MAC address (default: the port's)", parseMac)
    .addOption(
      new Option('-m, --memory <size>', 'guest memory, such as 512M or 4G')
        .argParser(parseSize)
        .default(512, '512M'),
    )
    .option('--packed', 'packed virtqueues, where the port offers them (cloud-hypervisor has none)')
    .option('--reconnect', 'let the guest come back after the switch restarts')
    .option('--json', 'print JSON for programs')
    .addHelpText('after', HELP)
    .action(async (port: string, options: ArgsOptions) => {
      printArgs(cli, await resolvePort(port, options), options);
    });
};

function parseMac(text: string): string {
  if (!MAC_PATTERN.test(text))
    throw new InvalidArgumentError('Give one such as 52:54:00:12:34:56.');
  return text.toLowerCase();
}

function parseSize(text: string): number {
  const size = parseMemory(text);
  if (size === undefined) throw new InvalidArgumentError('Give a size such as 512M or 4G.');
  return size;
}

/** What the guest of `text` needs: asked of the switch, or worked out from a socket's path. */
async function resolvePort(text: string, options: ArgsOptions): Promise<GuestPort> {
  const isSocket = /^(client|server):|\/|\.sock(et)?$/.test(text);
  const port = isSocket ? await offline(text, options) : await online(text, options);
  if (options.queues !== undefined && options.queues > port.offered) {
    throw new UsageError(
      `port '${port.name}' offers ${port.offered} queue pairs, not ${options.queues}: ` +
        'start the switch with more, or ask for fewer',
    );
  }
  const offersMany = port.offered >= QUEUES_OFFERED;
  return {
    ...port,
    mac: options.mac ?? port.mac,
    queues: options.queues ?? (offersMany ? 1 : port.offered),
  };
}

type Resolved = Omit<GuestPort, 'queues'> & { offered: number };

async function online(name: string, options: Wanted): Promise<Resolved> {
  try {
    return resolved(pick(await (await findWanted(options)).get('/ports'), name));
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    throw new ControlError(`${error.message}, or give a socket: vhop args ./${name}.sock`);
  }
}

async function offline(text: string, options: Wanted): Promise<Resolved> {
  const { path, mode } = parseSocket(text);
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_PATH) {
    throw new UsageError(
      `'${path}' is ${bytes} bytes, a Unix socket's path has at most ${MAX_SOCKET_PATH}: ` +
        'use a shorter folder, such as /tmp',
    );
  }
  // A running switch that has this socket knows more than its path says.
  const named = options.name !== undefined || options.control !== undefined;
  try {
    const found = await (await findWanted(options)).get('/ports');
    const port = found.find((p) => p.path === path);
    if (port !== undefined) return resolved(port);
  } catch (error) {
    if (named) throw error;
  }
  const name = nameFromPath(path);
  return { name, path, mode, mac: macFromName(name), offered: QUEUES_OFFERED };
}

function resolved(port: PortInfo): Resolved {
  const none = (why: string) =>
    new Error(`port '${port.name}' ${why}: there is no guest to start for it`);
  if (port.type === 'tap') throw none(`is the host's own device ${port.device}`);
  if (port.type === 'virtio-user') throw none("is a driver of somebody else's back end");
  if (port.path === undefined) throw none('is inside the switch');
  return {
    name: port.name,
    path: port.path,
    mode: port.mode ?? 'server',
    mac: port.mac,
    mtu: port.mtu,
    offered: port.queues,
  };
}

const PROGRAMS = ['qemu', 'libvirt', 'cloudHypervisor', 'testpmd'] as const;

function printArgs(cli: Cli, port: GuestPort, options: ArgsOptions): void {
  const chosen = PROGRAMS.filter((program) => options[program]);
  if (chosen.length > 1) {
    throw new UsageError('choose one of --qemu, --libvirt, --cloud-hypervisor, --testpmd');
  }
  const program = chosen[0] ?? 'qemu';
  if (options.packed && program === 'cloudHypervisor') {
    throw new UsageError('cloud-hypervisor has no packed virtqueues: leave --packed out');
  }
  const guest: GuestOptions = {
    memory: options.memory,
    hugePages: dpdkHasHugePages(options.memory * 2 ** 20),
  };
  if (options.packed) guest.packed = true;
  if (options.reconnect) guest.reconnect = reconnectOption();
  if (program === 'libvirt') {
    const xml = libvirtXml(port, guest);
    if (options.json) printJson(cli, { program, xml });
    else cli.out.write(xml);
    return;
  }
  if (program !== 'qemu' && port.path.includes(',')) {
    throw new UsageError(
      `${program} takes no socket with a comma in its path: rename '${port.path}'`,
    );
  }
  const build: Record<typeof program, (p: GuestPort, o: GuestOptions) => Argument[]> = {
    qemu: qemuArgs,
    cloudHypervisor: cloudHypervisorArgs,
    testpmd: testpmdArgs,
  };
  const lines = build[program](port, guest);
  if (options.json) printJson(cli, { program, arguments: lines.flat() });
  // Lines for a person to paste; one line for `qemu-system-x86_64 $(vhop args a --qemu)`.
  else cli.out.write(shellLines(lines, cli.out.isTTY ? undefined : ' '));
  // For people only: a script may well start the guest before the switch, with --reconnect.
  if (cli.err.isTTY && port.mode === 'server' && !existsSync(port.path)) {
    cli.err.write(`vhop: nothing listens on ${port.path} yet: start the switch before the guest\n`);
  }
}

/** QEMU 9.2 brought reconnect-ms and deprecated reconnect, which later versions no longer take. */
function reconnectOption(): 'reconnect=1' | 'reconnect-ms=1000' {
  const [major, minor] = qemuVersion() ?? [9, 2];
  return major > 9 || (major === 9 && minor >= 2) ? 'reconnect-ms=1000' : 'reconnect=1';
}
