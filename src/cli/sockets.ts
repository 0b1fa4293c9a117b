// The socket arguments of `vhop wire` and `vhop switch`, and the options the two share.

import { resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type CheckedPort, checkPorts } from '../config/check.ts';
import { parseLimits } from '../config/quantity.ts';
import { macFromName, nameFromPath, SOCKET_MODE_PATTERN } from '../limits.ts';
import type { Forwarding, Limits, PortMode, SocketAccess } from '../types.ts';
import { type Cli, parseName, UsageError, wholeNumber } from './cli.ts';
import { runSwitch } from './run.ts';

export interface SocketsOptions {
  name?: string;
  control?: string;
  state?: string;
  workers?: number;
  ageing?: number;
  queues?: number;
  mtu?: number;
  socketMode?: number;
  socketOwner?: Pick<SocketAccess, 'owner' | 'group'>;
  rate?: Limits;
  burst?: Limits;
  requireSealed?: boolean;
  live?: boolean;
  json?: boolean;
  takeover?: boolean;
}

export const SOCKET_HELP = `
A socket is a path to listen on; client:PATH connects out instead and keeps
retrying. Ports may also be:
  tap:DEVICE         the host itself, through a network device (needs root)
  virtio-user:PATH   somebody else's back end: the switch is its driver
A port is named after its socket or device: a.sock is port a.
`;

/** Options of everything that runs a switch in the foreground. */
export function runOptions(command: Command): Command {
  return command
    .addOption(
      new Option('-n, --name <name>', "the switch's name (default: default)").argParser(parseName),
    )
    .option('--control <path>', 'where to put the control socket')
    .option('--state <path>', 'what a restart goes on with: a file on a tmpfs, or none')
    .option('--takeover', "go on with a running switch's ports, guests connected, and end it")
    .option('--live', 'show a live table')
    .option('--json', 'print events as JSON, one a line');
}

/** Options of the commands that take their ports from the command line. */
export function socketOptions(command: Command): Command {
  return runOptions(command)
    .option('-w, --workers <n>', 'datapath threads (default: 1)', wholeNumber(1, 16))
    .option('-q, --queues <n>', 'queue pairs each port offers (default: 8)', wholeNumber(1, 8))
    .option('--mtu <bytes>', 'largest IP packet the ports take', wholeNumber(68, 65535))
    .option('--rate <limits>', 'what a port may send a second: bits=1G,frames=100k', limits)
    .option('--burst <limits>', 'and at once after a pause (default: 0.1 s of the rate)', limits)
    .option('--require-sealed', 'refuse guest memory that could shrink while it is mapped')
    .option('--socket-mode <bits>', 'permission bits of the sockets, octal', parseMode)
    .option('--socket-owner <user:group>', 'whom the sockets belong to, as for chown', parseOwner)
    .addHelpText('after', SOCKET_HELP);
}

function limits(text: string): Limits {
  try {
    return parseLimits(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

/** `660`, `0660`. */
function parseMode(text: string): number {
  if (SOCKET_MODE_PATTERN.test(text)) return Number.parseInt(text, 8);
  throw new InvalidArgumentError('Give octal permission bits such as 660.');
}

/** `alice`, `alice:kvm`, `:kvm`; each part a name or a number. */
function parseOwner(text: string): Pick<SocketAccess, 'owner' | 'group'> {
  const [, owner, group] = /^([^:]*)(?::([^:]+))?$/.exec(text) ?? [];
  if (!owner && !group) throw new InvalidArgumentError('Give USER, USER:GROUP or :GROUP.');
  return {
    ...(owner ? { owner: nameOrNumber(owner) } : {}),
    ...(group ? { group: nameOrNumber(group) } : {}),
  };
}

function nameOrNumber(text: string): string | number {
  return /^\d{1,9}$/.test(text) ? Number(text) : text;
}

/** A socket as typed: `PATH`, `client:PATH` or `server:PATH`, to an absolute path. */
export function parseSocket(text: string): { path: string; mode: PortMode } {
  const [, mode = 'server', path = ''] = /^(?:(client|server):)?(.*)$/s.exec(text) ?? [];
  if (path === '')
    throw new UsageError(`'${text}' names no socket: give a path such as /tmp/a.sock`);
  return { path: resolve(path), mode: mode as PortMode };
}

/** As typed: a socket, or what else a port may be. */
function parsePort(text: string): { type: CheckedPort['type']; path: string; mode?: PortMode } {
  const [, type, rest = ''] = /^(tap|virtio-user):(.*)$/s.exec(text) ?? [];
  if (type === undefined) return { type: 'vhost-user', ...parseSocket(text) };
  if (type === 'virtio-user') {
    if (rest === '')
      throw new UsageError(`'${text}' names no socket: give virtio-user:/tmp/a.sock`);
    return { type, ...parseSocket(/^(client|server):/.test(rest) ? rest : `client:${rest}`) };
  }
  if (rest === '') throw new UsageError(`'${text}' names no device: give one such as tap:vhop0`);
  return { type: 'tap', path: rest };
}

/** `options` without those that were not given. */
function present<T extends object>(options: T): Partial<T> {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as Partial<T>;
}

/**
 * The ports for sockets as typed. Two sockets of one base name get different port names; the same
 * socket twice, a path that is too long, or a wire without exactly two is a UsageError.
 */
export function portsFrom(
  sockets: readonly string[],
  forwarding: Forwarding,
  options: Omit<SocketsOptions, 'name' | 'control'> = {},
): CheckedPort[] {
  const names = new Set<string>();
  const { socketMode, socketOwner } = options;
  const limited = socketMode !== undefined || socketOwner !== undefined;
  const { queues, mtu, rate, burst, requireSealed } = options;
  const access = limited ? present({ mode: socketMode, ...socketOwner }) : undefined;
  const common = present({ queues, mtu, rate, burst });
  const given = present({ requireSealed, socket: access });
  const ports = sockets.map((socket): CheckedPort => {
    const { type, path, mode = 'server' } = parsePort(socket);
    const base = nameFromPath(path);
    let name = base;
    for (let n = 2; names.has(name); n++) name = `${base.slice(0, 28)}-${n}`;
    names.add(name);
    const own = { name, mac: macFromName(name), ...common };
    if (type === 'tap') return { type, device: path, ...own };
    if (type === 'virtio-user') return { type, path, mode, ...own };
    return { type, path, mode, ...own, ...given };
  });
  const places = ports.map((port) =>
    'path' in port ? `socket '${port.path}'` : `device '${port.device}'`,
  );
  const same = places.find((place, i) => places.indexOf(place) < i);
  if (same !== undefined) {
    throw new UsageError(`the ${same} is given twice: give each port its own`);
  }
  const problem = checkPorts(ports, forwarding)[0];
  if (problem !== undefined) {
    const { key, message } = problem;
    throw new UsageError(key === 'rate' || key === 'burst' ? `--${key}: ${message}` : message);
  }
  return ports;
}

export function runSockets(
  cli: Cli,
  forwarding: Forwarding,
  sockets: readonly string[],
  options: SocketsOptions,
): Promise<void> {
  const { name, workers, ageing } = options;
  return runSwitch(cli, {
    switch: {
      forwarding,
      ...(name === undefined ? {} : { name }),
      ...(workers === undefined ? {} : { workers }),
      ...(ageing === undefined ? {} : { ageing }),
    },
    ports: portsFrom(sockets, forwarding, options),
    control: options.control,
    state: options.state,
    live: options.live,
    json: options.json,
    takeover: options.takeover,
  });
}
