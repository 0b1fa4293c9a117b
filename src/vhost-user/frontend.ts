// The driver's side of a vhost-user socket: one driver whose back end comes and goes.

import type { PeerInfo } from '../types.ts';
import type { FrontendDriver } from './frontend-driver.ts';
import { FrontendSession } from './frontend-session.ts';
import { Rendezvous, type SocketOptions } from './rendezvous.ts';

const TIMEOUT_MS = 5000;
/** As DPDK: each attempt costs the driver its memory, and the back end a page of its log. */
const RETRY_MS = 1000;

export interface FrontendOptions extends SocketOptions {
  driver: FrontendDriver;
  /** How long the back end may take for a reply, milliseconds. Default 5000. */
  timeoutMs?: number;
  /** Before a client connects again to a back end that it did not get to run, milliseconds. Default 1000. */
  retryMs?: number;
  /** Told to back ends that want to know (NET_SET_MTU), if the driver negotiated F_MTU. */
  mtu?: number;
}

export class Frontend {
  readonly #meetings: Rendezvous<FrontendSession>;
  #closing: Promise<void> | undefined;

  constructor(options: FrontendOptions) {
    const { driver, timeoutMs = TIMEOUT_MS, retryMs = RETRY_MS, mtu, ...socket } = options;
    const own = { driver, timeoutMs, mtu, path: socket.path };
    this.#meetings = new Rendezvous({
      ...socket,
      retryMs,
      other: 'back end',
      meet: (each) => new FrontendSession({ ...each, ...own }),
    });
  }

  /** As Endpoint.open. */
  open(): void {
    this.#meetings.open();
  }

  /** Whether a back end is there; the driver's `started` tells when its rings run. */
  get connected(): boolean {
    return this.#meetings.connected;
  }

  /** Whether it is not, or is gone though this thread was not told yet. */
  get hungUp(): boolean {
    return this.#meetings.session?.hungUp ?? true;
  }

  /** The back end connected now. */
  get peer(): PeerInfo | undefined {
    return this.#meetings.peer;
  }

  /** Cuts the back end off for a fault of its own; the next one may come. */
  hangUp(reason: string): void {
    this.#meetings.hangUp(reason);
  }

  /**
   * Gives the path back, has the back end stop its rings, and ends the connection. Resolves when the
   * driver has been told; repeating it does nothing.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close().finally(() => {
      this.#closing = undefined;
    });
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      // A back end that reconnects at once must not find the old socket.
      this.#meetings.withdraw();
      await this.#meetings.session?.stop();
    } finally {
      this.#meetings.close();
    }
  }
}
