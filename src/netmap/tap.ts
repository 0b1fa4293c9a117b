// A netmap port on a TAP device: what is sent arrives in the kernel's stack, what the kernel sends is
// received. As host rings (`^`) it stands beside a device's own rings.

import { KIND_TAP } from '../abi/netmap.ts';
import { HDR_LEN } from '../abi/virtio.ts';
import { openTap as openDevice, SystemError, type Tap, TapError } from '../linux/index.ts';
import { offloadBits } from './features.ts';
import type { BufferMemory } from './memory.ts';
import { Port } from './port.ts';
import { Ring } from './ring.ts';
import { NetmapError, type NetmapOptions } from './types.ts';

export interface TapRings {
  tap: Tap;
  rx: Ring[];
  tx: Ring[];
  close(): void;
}

/** Opens the device and its rings, one pair a queue; the interface is set up. Throws NetmapError. */
export function openTapRings(
  name: string,
  memory: BufferMemory,
  options: NetmapOptions & { firstId?: number; host?: boolean },
): TapRings {
  const { ringSize = 1024, headers = 'shared', headroom = 64, queues = 1 } = options;
  const { firstId = 0, host = false } = options;
  const header = headers === 'kept' ? HDR_LEN : 0;
  const tap = device(name, queues, header);
  const rings: Ring[] = [];
  const close = () => {
    for (const ring of rings.splice(0)) ring.close();
    tap.close();
  };
  try {
    const make = (direction: 'rx' | 'tx', i: number): Ring => {
      const ring = new Ring(memory, {
        direction,
        id: firstId + i,
        host,
        slots: ringSize,
        headroom,
      });
      rings.push(ring);
      ring.reset({ kind: KIND_TAP, fd: tap.fds[i]!, headerLength: header });
      return ring;
    };
    const rx = tap.fds.map((_, i) => make('rx', i));
    const tx = tap.fds.map((_, i) => make('tx', i));
    if (!tap.up) tap.setUp(true);
    return { tap, rx, tx, close };
  } catch (error) {
    close();
    throw asNetmapError(name, error);
  }
}

function device(name: string, queues: number, header: 0 | 12): Tap {
  try {
    return openDevice({ name, queues, header });
  } catch (error) {
    throw asNetmapError(name, error);
  }
}

function asNetmapError(name: string, error: unknown): unknown {
  if (error instanceof TapError) {
    const denied = error.code === 'EPERM' || error.code === 'EACCES';
    return new NetmapError(denied ? 'permission' : 'name', error.message);
  }
  if (error instanceof SystemError || error instanceof RangeError) {
    return new NetmapError('name', `TAP ${name}: ${error.message}`);
  }
  return error;
}

/** A port of its own. */
export function openTapPort(name: string, memory: BufferMemory, options: NetmapOptions): Port {
  if (offloadBits(name, options) !== 0n) {
    throw new NetmapError(
      'offloads',
      `port ${name}: a TAP device agrees on no virtio features; open it without offloads`,
    );
  }
  const { tap, rx, tx, close } = openTapRings(name, memory, options);
  const port = new Port(name, {
    memory,
    headers: options.headers ?? 'shared',
    close: async () => {
      port.unwatch();
      close();
    },
  });
  port.goUp({ rx, tx, wakeFds: [...tap.fds], features: [] });
  return port;
}
