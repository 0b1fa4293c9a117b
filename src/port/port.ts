// The port contract: what the switch knows of a port, whatever is behind it.

import type { NetmapPort } from '../netmap/types.ts';
import type { PortInfo } from '../types.ts';
import type { NetDevice } from '../virtio/device.ts';

export interface Port {
  readonly name: string;
  /** Index in the control area. */
  readonly index: number;
  readonly device: NetDevice;
  info(): PortInfo;
  /** What its other end did that it must not, in a sentence; asked when a worker says that there is something. */
  trouble?(): string | undefined;
  /** Netmap mode: the rings of both its ends, until closed (port/lane.ts). Throws NetmapError `busy`. */
  borrow?(): NetmapPort;
  /** Cuts the guest off for `reason`, a sentence: its rings stop. One behind a socket may come anew. */
  quarantine(reason: string): void;
  /** Ends whatever drives the device; the switch resets the device after. */
  close(): Promise<void>;
}
