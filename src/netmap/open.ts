// Opening netmap ports by name.

import { existsSync } from 'node:fs';
import { nameFromPath } from '../limits.ts';
import type { Home } from './home.ts';
import { withHostRings } from './host-rings.ts';
import { BufferMemory, defaultShape } from './memory.ts';
import { type PortName, parseName } from './name.ts';
import { checkOptions } from './options.ts';
import { openMonitor, openPipe } from './pipe.ts';
import type { Port } from './port.ts';
import { openTapPort } from './tap.ts';
import { NetmapError, type NetmapOptions, type NetmapPort } from './types.ts';
import { openSocket, type SocketPort } from './vhost-user.ts';

/** Finds the socket of a port of a running switch; rejects with a sentence. */
export type FindSocket = (port: string, name: string | undefined) => Promise<string>;

/** Ports open in this process, by what names them (`keyOf`), for monitors. */
const open = new Map<string, Port>();

/** Opens a port in `home`; `find` looks up ports of running switches. Rejects with NetmapError. */
export async function openPort(
  home: Home,
  find: FindSocket,
  name: string,
  options: NetmapOptions = {},
): Promise<NetmapPort> {
  checkOptions(name, options);
  const at = parseName(name, existsSync);
  const key = keyOf(at);
  if (at.monitor) {
    const watched = open.get(key);
    if (!watched) {
      throw new NetmapError('name', `${name}: ${key} is not open in this process: open it first`);
    }
    return openMonitor(name, watched, at.monitor, options);
  }
  const given = options.memory as BufferMemory | undefined;
  let own: BufferMemory | undefined;
  const take = () => {
    if (given) return given;
    own = new BufferMemory(home, defaultShape(options.bufferSize));
    return own;
  };
  const release = () => own?.close();
  let port: Port;
  try {
    if (at.pipe) {
      const { id, master } = at.pipe;
      const pipe = keyOf({ ...at, pipe: { id, master: true } });
      port = openPipe(name, pipe, master, { take, release }, options);
    } else {
      port = await openAt(at, name, take(), options, find);
    }
  } catch (error) {
    release();
    throw error;
  }
  // The first of that name is the one to watch.
  if (!open.has(key)) open.set(key, port);
  return closing(port, () => {
    if (open.get(key) === port) open.delete(key);
    // A pipe's memory is its other end's too.
    if (!at.pipe) release();
  });
}

/** What names the port among those of this process. */
function keyOf({ kind, path, port, switch: name, pair, rings, pipe }: PortName): string {
  const base = kind === 'socket' ? path : `${kind}:${port}${name ? `@${name}` : ''}`;
  const suffix = { device: '', host: '^', both: '*' }[rings];
  const end = pipe ? `${pipe.master ? '{' : '}'}${pipe.id}` : '';
  return `${base}${suffix}${pair === undefined ? '' : `-${pair}`}${end}`;
}

async function openAt(
  at: PortName,
  name: string,
  memory: BufferMemory,
  options: NetmapOptions,
  find: FindSocket,
): Promise<Port> {
  if (at.kind === 'tap') return openTapPort(at.port, memory, options);
  const tap = options.tap ?? deviceName(at.kind === 'port' ? at.port : nameFromPath(at.path));
  if (at.rings === 'host') return openTapPort(tap, memory, options);
  const socket = at.kind === 'port' ? await socketOf(at, find) : at;
  const port = await openSocket(name, socket, memory, options);
  if (at.rings === 'device') return port;
  return withHostRings(port, tap, options).catch(async (error) => {
    await port.close();
    throw error;
  });
}

/** Of a port of a running switch; one called vm-1 is itself, not queue pair 1 of vm. */
async function socketOf(at: PortName, find: FindSocket): Promise<SocketPort> {
  const { port, switch: name, pair, mode } = at;
  if (pair !== undefined) {
    const whole = name === undefined ? [`${port}-${pair}`, name] : [port, `${name}-${pair}`];
    try {
      return { path: await find(whole[0]!, whole[1]), mode };
    } catch (error) {
      if (!(error instanceof NetmapError)) throw error;
    }
  }
  return { path: await find(port, name), mode, pair };
}

/** A TAP's name from a port's: at most 15 characters of it. */
function deviceName(name: string): string {
  return name.slice(0, 15);
}

/** Runs `after` once the port is closed. */
function closing(port: Port, after: () => void): Port {
  const { close } = port;
  let closed: Promise<void> | undefined;
  port.close = () => {
    closed ??= close.call(port).then(after);
    return closed;
  };
  return port;
}
