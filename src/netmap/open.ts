// Opening netmap ports by name.

import { existsSync } from 'node:fs';
import { nameFromPath } from '../limits.ts';
import { ringSizeProblem } from '../virtio/queue-layout.ts';
import type { Home } from './home.ts';
import { withHostRings } from './host-rings.ts';
import { BufferMemory, defaultShape } from './memory.ts';
import { type PortName, parseName } from './name.ts';
import { openMonitor, openPipe } from './pipe.ts';
import type { Port } from './port.ts';
import { openTapPort } from './tap.ts';
import { NetmapError, type NetmapOptions, type NetmapPort } from './types.ts';
import { openSocket } from './vhost-user.ts';

/** Finds the socket of a port of a running switch; rejects with a sentence. */
export type FindSocket = (port: string, name: string | undefined) => Promise<string>;

/** Ports open in this process, by base name, for monitors. */
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
  if (at.monitor) {
    const watched = open.get(at.base);
    if (!watched) {
      throw new NetmapError(
        'name',
        `${name}: ${at.base} is not open in this process: open it first`,
      );
    }
    return openMonitor(name, watched, at.monitor, options);
  }
  const given = options.memory as BufferMemory | undefined;
  let own: BufferMemory | undefined;
  const memory = () => {
    own = given ? undefined : new BufferMemory(home, defaultShape(options.bufferSize));
    return given ?? own!;
  };
  if (at.pipe) {
    const key = `${at.base}{${at.pipe.id}`;
    return openPipe(name, key, at.pipe.master, memory, options);
  }
  const port = await openAt(at, name, memory(), options, find).catch((error) => {
    own?.close();
    throw error;
  });
  open.set(at.base, port);
  return closing(port, () => {
    open.delete(at.base);
    own?.close();
  });
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
  const path = at.kind === 'port' ? await find(at.port, at.switch) : at.path;
  const port = await openSocket(name, { path, mode: at.mode, pair: at.pair }, memory, options);
  if (at.rings === 'device') return port;
  return withHostRings(port, tap, options).catch(async (error) => {
    await port.close();
    throw error;
  });
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

function checkOptions(name: string, options: NetmapOptions): void {
  const refuse = (what: string): never => {
    throw new NetmapError('option', `port ${name}: ${what}`);
  };
  const { ringSize = 1024, queues = 1, headroom = 64, packed = false } = options;
  const ring = ringSizeProblem(ringSize, packed);
  if (ring) refuse(ring);
  if (!(Number.isInteger(queues) && queues >= 1 && queues <= 8)) {
    refuse(`queues is ${queues}; it must be 1 to 8`);
  }
  const size = options.memory?.bufferSize ?? options.bufferSize ?? 2048;
  if (
    !(Number.isInteger(headroom) && headroom >= 16 && headroom <= 1024 && headroom + 64 <= size)
  ) {
    refuse(`headroom is ${headroom}; it must be 16 to 1024 bytes and leave room for a frame`);
  }
}
