// A netmap port on somebody's vhost-user back end: our driver, their device.

import { EventEmitter, once } from 'node:events';
import { Frontend, type FrontendDriver, featureNames, Refusal } from '../vhost-user/index.ts';
import { choose, type DriverOptions, offloadBits } from './features.ts';
import type { BufferMemory } from './memory.ts';
import { Port } from './port.ts';
import { QueueRings } from './queue-rings.ts';
import { NetmapError, type NetmapOptions } from './types.ts';

export interface SocketPort {
  path: string;
  mode: 'client' | 'server';
  /** The only pair to use. */
  pair?: number | undefined;
}

/** What a driver of ours makes of a back end; `changed` hears when it is up, and why it is not. */
export class QueueDriver implements FrontendDriver {
  readonly rings: QueueRings;
  features = 0n;
  /** What there is too little of in this process. */
  failure: NetmapError | undefined;
  readonly #options: DriverOptions;
  readonly #name: string;
  readonly #wanted: number;
  readonly #memory: BufferMemory;
  readonly #changed: (reason: string | undefined, fault: boolean) => void;
  #pairs = 0;

  constructor(
    name: string,
    memory: BufferMemory,
    options: DriverOptions & { pair?: number | undefined },
    changed: (reason: string | undefined, fault: boolean) => void,
  ) {
    const { ringSize = 1024, headers = 'shared', headroom = 64, pair, queues } = options;
    this.#name = name;
    this.#options = options;
    this.#memory = memory;
    this.#changed = changed;
    this.#wanted = pair === undefined ? (queues ?? 1) : pair + 1;
    this.rings = new QueueRings({
      memory,
      ringSize,
      headers,
      headroom,
      ...(pair === undefined ? {} : { pair }),
    });
  }

  negotiate(offered: bigint, queuePairs: number): { features: bigint; pairs: number } {
    // A back end that came back with fewer is used with those; the first time it is a mistake.
    if (queuePairs < this.#wanted && this.#pairs === 0) {
      throw new Refusal(
        `it has ${queuePairs} queue pairs, and port ${this.#name} was opened with ${this.#wanted}`,
      );
    }
    const pairs = Math.min(this.#wanted, queuePairs);
    this.features = choose(this.#name, offered, pairs, this.#options);
    this.#pairs = pairs;
    return { features: this.features, pairs };
  }

  setUp() {
    try {
      this.rings.reset(this.features, this.#pairs);
    } catch (error) {
      if (!(error instanceof NetmapError)) throw error;
      this.failure = error;
      throw new Refusal(error.message);
    }
    return { regions: [this.#memory.region()], rings: this.rings.setUps() };
  }

  started(): void {
    this.#changed(undefined, false);
  }

  stopped(reason: string, fault: boolean): void {
    // First: whoever drives the rings lets go of them.
    this.#changed(reason, fault);
    this.rings.restock();
  }
}

/** Opens the port and waits until it is up. Rejects with NetmapError. */
export async function openSocket(
  name: string,
  at: SocketPort,
  memory: BufferMemory,
  options: NetmapOptions,
): Promise<Port> {
  offloadBits(name, options);
  const { timeoutMs = 10_000, headers = 'shared', signal } = options;
  const events = new EventEmitter();
  let last = 'nobody answered';
  const driver = new QueueDriver(name, memory, { ...options, pair: at.pair }, (reason, fault) => {
    if (reason === undefined) {
      const { rx, tx, callFds } = driver.rings;
      port.goUp({ rx, tx, wakeFds: callFds, features: featureNames(driver.features) });
    } else {
      last = reason;
      port.unwatch();
      port.goDown(new NetmapError('down', `port ${name}: ${reason}`));
      if (fault) events.emit('refused', reason);
    }
  });
  const frontend = new Frontend({
    path: at.path,
    mode: at.mode,
    loop: memory.home.loop,
    driver,
    onNotice: (message) => {
      last = message;
    },
  });
  const port: Port = new Port(name, {
    memory,
    headers,
    fault: (reason) => frontend.hangUp(reason),
    gone: () => frontend.hungUp,
    close: async () => {
      await frontend.close();
      port.unwatch();
      driver.rings.restock();
      driver.rings.close();
    },
  });
  try {
    const ended = new AbortController();
    port.on('up', () => ended.abort());
    frontend.open();
    if (!port.up) {
      const waiting = [ended.signal, AbortSignal.timeout(timeoutMs), ...(signal ? [signal] : [])];
      await once(events, 'refused', { signal: AbortSignal.any(waiting) }).catch(() => {});
    }
    if (port.up) return port;
    if (driver.failure) throw driver.failure;
    const features = /does not offer|queue pairs|did not agree/.test(last);
    throw new NetmapError(features ? 'features' : 'down', `port ${name}: ${last}`);
  } catch (error) {
    await port.close();
    throw error;
  }
}
