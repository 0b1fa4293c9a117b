// vhop as netmap: `vhop/netmap`.

import { findSwitch } from '../control/client.ts';
import { ControlError } from '../control/path.ts';
import { type Home, openHome } from '../netmap/home.ts';
import { BufferMemory, defaultShape } from '../netmap/memory.ts';
import { openPort } from '../netmap/open.ts';
import {
  NetmapError,
  type NetmapMemory,
  type NetmapOptions,
  type NetmapPort,
} from '../netmap/types.ts';

export * from '../netmap/types.ts';

/** Of a process without a switch; made on first use, kept. */
let home: ReturnType<typeof openHome> | undefined;
let users = 0;

function own(): Home {
  home ??= openHome();
  return home;
}

/**
 * Opens a port. Names, as in netmap:
 *
 *   vhop:/PATH.sock     a vhost-user back end that listens there; vhop:server:/PATH.sock: one that connects
 *   vhop:PORT[@SWITCH]  a port of a running switch
 *   tap:DEVICE          a TAP device: the other side is the kernel's stack
 *
 * and behind the first two `-K` for queue pair K alone, `^` for host rings (a TAP named after the port)
 * alone, `*` for both; `{ID` and `}ID` are the two ends of a pipe in this process, `/r`, `/t`, `/rt`, with z
 * for zero copy, watch a port that is open in this process.
 *
 * Resolves once frames can move. Rejects with NetmapError, one sentence. The process stays alive until the
 * last port is closed.
 */
export async function openNetmap(name: string, options: NetmapOptions = {}): Promise<NetmapPort> {
  users++;
  try {
    const port = await openPort(own(), findSocket, name, options);
    const { close } = port;
    let closed: Promise<void> | undefined;
    port.close = () => {
      closed ??= close.call(port).finally(leave);
      return closed;
    };
    return port;
  } catch (error) {
    await leave();
    throw error;
  }
}

/** The last one out ends the event loop, which else keeps the process alive. */
async function leave(): Promise<void> {
  if (--users > 0 || !home) return;
  const { close } = home;
  home = undefined;
  await close();
}

/**
 * Memory for several ports (EXTMEM): those opened in it can swap buffers. Until it is closed, after its
 * ports, it holds the process's home open.
 */
export function openMemory(options: { bufferSize?: number; buffers?: number } = {}): NetmapMemory {
  const shape = defaultShape(options.bufferSize);
  users++;
  let memory: BufferMemory;
  try {
    memory = new BufferMemory(own(), { ...shape, buffers: options.buffers ?? shape.buffers });
  } catch (error) {
    leave();
    throw error;
  }
  const { close } = memory;
  let open = true;
  memory.close = () => {
    if (!open) return;
    open = false;
    close.call(memory);
    leave();
  };
  return memory;
}

/** The socket that a port of a running switch listens on. */
async function findSocket(port: string, name: string | undefined): Promise<string> {
  try {
    const client = await findSwitch({ name });
    const ports = await client.get('/ports');
    const found = ports.find((other) => other.name === port);
    if (found?.path && found.mode === 'server') return found.path;
    const open = ports.filter(({ path, mode }) => path && mode === 'server');
    const names = open.map((other) => other.name).join(' ') || 'none';
    const why = found ? 'has no socket to connect to' : 'is not there';
    throw new NetmapError(
      'name',
      `port ${port} ${why}; ports of that switch to connect to: ${names}`,
    );
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    throw new NetmapError(
      'name',
      `port ${port}: ${error.message}; or give a path: vhop:/PATH.sock`,
    );
  }
}
