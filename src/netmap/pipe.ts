// Pipes between two ports of this process, and monitors of others: rings whose other end is a ring.

import { KIND_PIPE, KR_KIND, KR_MONITOR, KR_MONITOR_SWAPS } from '../abi/netmap.ts';
import { close, eventfd } from '../linux/index.ts';
import type { BufferMemory } from './memory.ts';
import { Port } from './port.ts';
import { Ring } from './ring.ts';
import { NetmapError, type NetmapOptions } from './types.ts';

interface End {
  rx: Ring;
  tx: Ring;
  /** Signalled when something is written for this end, or room made. */
  wake: number;
  port: Port | undefined;
}

/** By `base{id`. */
const pipes = new Map<string, { memory: BufferMemory; ends: [End, End]; release: () => void }>();

/**
 * One end of a pipe: what is sent there is received at the other, the buffers changing places. The first to
 * open makes both; `memory` is the first one's, and `release` is called once both ends are closed. Throws
 * NetmapError `busy` when that end is open.
 */
export function openPipe(
  name: string,
  key: string,
  master: boolean,
  memory: { take: () => BufferMemory; release: () => void },
  options: NetmapOptions,
): Port {
  const pipe = pipes.get(key) ?? {
    ...makePipe(memory.take(), options),
    release: memory.release,
  };
  pipes.set(key, pipe);
  const end = pipe.ends[master ? 0 : 1];
  if (end.port) throw new NetmapError('busy', `${name} is open already: a pipe's end has one user`);
  const port = new Port(name, {
    memory: pipe.memory,
    headers: options.headers ?? 'shared',
    close: async () => {
      port.unwatch();
      end.port = undefined;
      if (pipe.ends.some(({ port }) => port)) return;
      pipes.delete(key);
      for (const { rx, tx, wake } of pipe.ends) {
        rx.close();
        tx.close();
        close(wake);
      }
      pipe.release();
    },
  });
  end.port = port;
  port.goUp({ rx: [end.rx], tx: [end.tx], wakeFds: [end.wake], features: [] });
  return port;
}

function makePipe(memory: BufferMemory, options: NetmapOptions) {
  const { ringSize = 1024, headroom = 64 } = options;
  const rings: Ring[] = [];
  const ring = (direction: 'rx' | 'tx'): Ring => {
    const made = new Ring(memory, { direction, id: 0, host: false, slots: ringSize, headroom });
    rings.push(made);
    return made;
  };
  try {
    const end = (): Omit<End, 'wake'> => ({ rx: ring('rx'), tx: ring('tx'), port: undefined });
    const made = [end(), end()] as const;
    const ends = made.map((each) => ({ ...each, wake: eventfd() })) as [End, End];
    for (const [i, { rx, tx }] of ends.entries()) {
      const other = ends[1 - i]!;
      rx.reset({ kind: KIND_PIPE, peer: other.tx.kring, fd: other.wake });
      tx.reset({ kind: KIND_PIPE, peer: other.rx.kring, fd: other.wake });
    }
    return { memory, ends };
  } catch (error) {
    for (const each of rings) each.close();
    throw error;
  }
}

/**
 * Watches rings of `watched`: a monitor's RX ring gets what passes through them, copied, or with `swaps`
 * the buffers themselves once nobody needs them; of what is sent into a pipe, whose buffers go on, copies.
 * Throws NetmapError `busy` where a ring is watched already.
 */
export function openMonitor(
  name: string,
  watched: Port,
  which: { rx: boolean; tx: boolean; swaps: boolean },
  options: NetmapOptions,
): Port {
  const { memory } = watched;
  const { control } = memory.home;
  const wanted = () => [...(which.rx ? watched.rx : []), ...(which.tx ? watched.tx : [])];
  if (wanted().some((ring) => ring.kget(KR_MONITOR) !== 0)) {
    throw new NetmapError(
      'busy',
      `${name}: port ${watched.name} is watched already: one monitor a ring`,
    );
  }
  const { ringSize = 1024, headroom = 64 } = options;
  const monitors: Ring[] = [];
  const wake = eventfd();
  const closeRings = () => {
    for (const ring of monitors) ring.close();
    close(wake);
  };
  try {
    for (const [id, ring] of wanted().entries()) {
      const slots = Math.max(ringSize, ring.slots);
      const rx = new Ring(memory, { direction: 'rx', id, host: false, slots, headroom });
      monitors.push(rx);
      rx.reset({ kind: KIND_PIPE, fd: wake });
    }
  } catch (error) {
    closeRings();
    throw error;
  }
  let rings: Ring[] = [];
  const detach = () => {
    for (const ring of rings.splice(0)) if (ring.open) control.set(ring.kring + KR_MONITOR, 0);
  };
  const attach = () => {
    detach();
    // A back end that came back with more pairs has rings that nobody watches.
    rings = wanted().slice(0, monitors.length);
    for (const [i, ring] of rings.entries()) {
      const copies = !which.swaps || (ring.kget(KR_KIND) === KIND_PIPE && ring.direction === 'tx');
      control.set(ring.kring + KR_MONITOR_SWAPS, copies ? 0 : 1);
      control.set(ring.kring + KR_MONITOR, monitors[i]!.kring);
    }
  };
  const port = new Port(name, {
    memory,
    headers: watched.headers,
    close: async () => {
      detach();
      port.unwatch();
      closeRings();
    },
  });
  attach();
  watched.on('up', () => {
    if (port.up) attach();
  });
  watched.whenClosed(() => {
    detach();
    port.goDown(new NetmapError('down', `${name}: port ${watched.name} was closed`));
  });
  port.goUp({ rx: monitors, tx: [], wakeFds: [wake], features: [] });
  return port;
}
