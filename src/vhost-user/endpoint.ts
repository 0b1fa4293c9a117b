// The device side of a port's socket: one device whose front end comes and goes.

import type { Backend } from './backend.ts';
import { Rendezvous, type SocketOptions } from './rendezvous.ts';
import { Session } from './session.ts';

export interface EndpointOptions extends SocketOptions {
  backend: Backend;
}

/** The sockets of an endpoint, for another process. */
export interface EndpointSockets {
  listening?: number | undefined;
  /** Of the front end that is connected, and what it negotiated. */
  connected?: number | undefined;
  protocolFeatures?: bigint | undefined;
}

export class Endpoint extends Rendezvous<Session> {
  readonly #backend: Backend;

  constructor({ backend, ...socket }: EndpointOptions) {
    super({
      ...socket,
      other: 'front end',
      meet: (options) => new Session({ ...options, backend }),
    });
    this.#backend = backend;
  }

  /** What there is to hand over, of a suspended endpoint; the descriptors stay its own. */
  get sockets(): EndpointSockets {
    const { listening, session } = this;
    return { listening, connected: session?.fd, protocolFeatures: session?.protocolFeatures };
  }

  /** Instead of `open`: goes on, once resumed, with the sockets of an endpoint in another process. */
  take({ protocolFeatures = 0n, ...sockets }: EndpointSockets): void {
    const backend = this.#backend;
    this.adopt(sockets, (options) => new Session({ ...options, backend, protocolFeatures }));
  }
}
