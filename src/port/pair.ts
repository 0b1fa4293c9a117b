// Two in-process guests on a switch, sending each other checked streams: the demo's main job.

import {
  type TrafficCounts,
  TrafficGuest,
  type TrafficHost,
  type TrafficOptions,
  TrafficThread,
} from './traffic.ts';

/** One for both guests, or each its own. */
type Each<T> = T | readonly [T, T];

export interface TrafficPairOptions extends TrafficOptions {
  /** Port names. Default `guest-a` and `guest-b`. */
  names?: readonly [string, string];
  /** Power of two, 8-32768; with packed rings any size, 2-32768. Default 1024. */
  ringSize?: Each<number>;
  /** Virtio features to ask for, of those offered. Default: all the driver can do, on split rings. */
  features?: Each<bigint>;
}

export interface TrafficPair {
  /** What each guest sent, received and found wrong; in the order of the names. */
  counts(): [TrafficCounts, TrafficCounts];
  /** Stops sending, waits until all that was sent has arrived or been dropped, and counts. */
  drain(): Promise<[TrafficCounts, TrafficCounts]>;
  /** Ends the guests' thread; their ports stay until removed. */
  stop(): Promise<void>;
}

/** How long no frame must move before the streams count as drained, milliseconds. */
const QUIET = 50;
/** The same while frames are on their way: threads may wait for a CPU, and a broken ring forever. */
const STUCK = 5000;

/**
 * Adds two memory ports to `host` and starts their guests, each sending to the other.
 * Throws RangeError on bad options, Error when a name is taken.
 */
export function startTraffic(host: TrafficHost, options: TrafficPairOptions = {}): TrafficPair {
  const { names = ['guest-a', 'guest-b'], ringSize = 1024, features, ...traffic } = options;
  const [a, b] = names.map((name, i) => {
    const asked = features === undefined ? {} : { features: each(features, i) };
    return host.addMemoryPort({ type: 'memory', name, ringSize: each(ringSize, i), ...asked });
  });
  const guests = [
    new TrafficGuest(host.control, a!, b!.info().mac, traffic),
    new TrafficGuest(host.control, b!, a!.info().mac, traffic),
  ] as const;
  const thread = new TrafficThread(host.control, guests, options.eager);
  const counts = (): [TrafficCounts, TrafficCounts] => [guests[0].counts(), guests[1].counts()];
  return {
    counts,
    async drain() {
      for (const guest of guests) guest.halt();
      let last = -1;
      for (let quiet = 0; ; ) {
        const moved = counts().reduce((sum, { sent, received }) => sum + sent + received, 0);
        quiet = moved === last ? quiet + QUIET : 0;
        const waiting = guests.some(({ outstanding }) => outstanding > 0);
        if (quiet >= (waiting ? STUCK : QUIET)) return counts();
        last = moved;
        await new Promise((resolve) => setTimeout(resolve, QUIET));
      }
    },
    stop: () => thread.stop(),
  };
}

function each<T extends number | bigint>(option: Each<T>, i: number): T {
  return typeof option === 'object' ? option[i]! : option;
}
