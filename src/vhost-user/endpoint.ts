// The device side of a port's socket: one device whose front end comes and goes.

import type { Backend } from './backend.ts';
import { Rendezvous, type SocketOptions } from './rendezvous.ts';
import { Session } from './session.ts';

export interface EndpointOptions extends SocketOptions {
  backend: Backend;
}

export class Endpoint extends Rendezvous<Session> {
  constructor({ backend, ...socket }: EndpointOptions) {
    super({
      ...socket,
      other: 'front end',
      meet: (options) => new Session({ ...options, backend }),
    });
  }
}
