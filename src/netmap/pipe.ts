// Pipes between two ports of this process, and monitors of others: rings whose other end is a ring.

import { KIND_PIPE, KR_MONITOR, KR_MONITOR_SWAPS } from '../abi/netmap.ts';
import { close, eventfd } from '../linux/index.ts';
import type { BufferMemory } from './memory.ts';
import { Port } from './port.ts';
import { Ring } from './ring.ts';
import { NetmapError, type NetmapOptions } from './types.ts';

interface End {
  rx: Ring;
  tx: Ring;
  /** Signalled when something is written for this end. */
  wake: number;
  port: Port | undefined;
}

/** By `base{id`. */
const pipes = new Map<string, { memory: BufferMemory; ends: [End, End] }>();

/**
 * One end of a pipe: what is sent there is received at the other, the buffers changing places. The first to
 * open makes both; `memory` is the first one's. Throws NetmapError `busy` when that end is open.
 */
export function openPipe(
  name: string,
  key: string,
  master: boolean,
  memory: () => BufferMemory,
  options: NetmapOptions,
): Port {
  let pipe = pipes.get(key);
  if (!pipe) {
    pipe = makePipe(memory(), options);
    pipes.set(key, pipe);
  }
  const end = pipe.ends[master ? 0 : 1];
  if (end.port) throw new NetmapError('busy', `${name} is open already: a pipe's end has one user`);
  const made = pipe;
  const port = new Port(name, {
    memory: pipe.memory,
    headers: options.headers ?? 'shared',
    close: async () => {
      port.unwatch();
      end.port = undefined;
      if (made.ends.some(({ port }) => port)) return;
      pipes.delete(key);
      for (const { rx, tx, wake } of made.ends) {
        rx.close();
        tx.close();
        close(wake);
      }
    },
  });
  end.port = port;
  port.goUp({ rx: [end.rx], tx: [end.tx], wakeFds: [end.wake], features: [] });
  return port;
}

function makePipe(memory: BufferMemory, options: NetmapOptions) {
  const { ringSize = 1024, headroom = 64 } = options;
  const shape = { id: 0, host: false, slots: ringSize, headroom };
  const end = (): End => ({
    rx: new Ring(memory, { ...shape, direction: 'rx' }),
    tx: new Ring(memory, { ...shape, direction: 'tx' }),
    wake: eventfd(),
    port: undefined,
  });
  const ends: [End, End] = [end(), end()];
  for (const { rx } of ends) rx.reset({ kind: KIND_PIPE });
  for (const [i, { tx }] of ends.entries()) {
    const other = ends[1 - i]!;
    tx.reset({ kind: KIND_PIPE, peer: other.rx.kring, fd: other.wake });
  }
  return { memory, ends };
}

/**
 * Watches rings of `watched`: a monitor's RX ring gets what passes through them, copied, or with `swaps`
 * the buffers themselves once nobody needs them. Throws NetmapError `busy` where a ring is watched already.
 */
export function openMonitor(
  name: string,
  watched: Port,
  which: { rx: boolean; tx: boolean; swaps: boolean },
  options: NetmapOptions,
): Port {
  const { memory } = watched;
  const { control } = memory.home;
  const rings = [...(which.rx ? watched.rx : []), ...(which.tx ? watched.tx : [])];
  if (rings.some((ring) => ring.kget(KR_MONITOR) !== 0)) {
    throw new NetmapError(
      'busy',
      `${name}: port ${watched.name} is watched already: one monitor a ring`,
    );
  }
  const { ringSize = 1024, headroom = 64 } = options;
  const monitors = rings.map((ring, id) => {
    const slots = Math.max(ringSize, ring.slots);
    const rx = new Ring(memory, { direction: 'rx', id, host: false, slots, headroom });
    rx.reset({ kind: KIND_PIPE });
    control.set(ring.kring + KR_MONITOR_SWAPS, which.swaps ? 1 : 0);
    control.set(ring.kring + KR_MONITOR, rx.kring);
    return rx;
  });
  const port = new Port(name, {
    memory,
    headers: watched.headers,
    close: async () => {
      for (const ring of rings) control.set(ring.kring + KR_MONITOR, 0);
      for (const ring of monitors) ring.close();
    },
  });
  // Whoever syncs the watched rings does not know that somebody sleeps: monitors are looked at.
  port.goUp({ rx: monitors, tx: [], wakeFds: [], features: [] });
  return port;
}
