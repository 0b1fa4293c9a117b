// The port contract: what the switch knows of a port, whatever is behind it.

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
  /** Cuts the guest off for `reason`, a sentence: its rings stop. One behind a socket may come anew. */
  quarantine(reason: string): void;
  /** Ends whatever drives the device; the switch resets the device after. */
  close(): Promise<void>;
}
