// A port whose guest is behind a vhost-user socket.

import { macFromName } from '../limits.ts';
import type { EventLoop } from '../linux/index.ts';
import type { PortInfo, VhostUserPortOptions } from '../types.ts';
import { Endpoint } from '../vhost-user/index.ts';
import type { NetDevice } from '../virtio/device.ts';
import { describeDevice } from './describe.ts';
import type { Port } from './port.ts';

export class VhostUserPort implements Port {
  readonly name: string;
  readonly index: number;
  readonly device: NetDevice;
  readonly #options: VhostUserPortOptions;
  readonly #endpoint: Endpoint;

  constructor(
    options: VhostUserPortOptions & { name: string },
    index: number,
    device: NetDevice,
    loop: EventLoop,
    tell: { onNotice: (message: string) => void; onConnected: () => void },
  ) {
    this.name = options.name;
    this.index = index;
    this.device = device;
    this.#options = options;
    const { path, mode = 'server', socket: access } = options;
    this.#endpoint = new Endpoint({ path, mode, access, loop, backend: device, ...tell });
  }

  /** Listens, or starts to connect. Throws when the socket path cannot be had. */
  open(): void {
    this.#endpoint.open();
  }

  get options(): VhostUserPortOptions {
    return this.#options;
  }

  /** For a hand-over: its sockets, which go on in another process (switch/handover.ts). */
  get endpoint(): Endpoint {
    return this.#endpoint;
  }

  info(): PortInfo {
    const { path, mode = 'server', mac } = this.#options;
    const connected = this.#endpoint.connected;
    const waiting = mode === 'server' ? 'listening' : 'connecting';
    return {
      name: this.name,
      index: this.index,
      type: 'vhost-user',
      mode,
      path,
      mac: mac ?? macFromName(this.name),
      ...describeDevice(this.device, connected ? 'connected' : waiting),
      ...(this.#endpoint.peer ? { peer: this.#endpoint.peer } : {}),
    };
  }

  quarantine(reason: string): void {
    this.device.fault = reason;
    this.#endpoint.hangUp(reason);
  }

  async close(): Promise<void> {
    this.#endpoint.close();
  }
}
