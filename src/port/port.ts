// The port contract: what the switch knows of a port, whatever is behind it.

import type { PortInfo } from '../types.ts';
import type { NetDevice } from '../virtio/device.ts';

export interface Port {
  readonly name: string;
  /** Index in the control area. */
  readonly index: number;
  readonly device: NetDevice;
  info(): PortInfo;
  /** Ends whatever drives the device; the switch resets the device after. */
  close(): Promise<void>;
}

/** A locally administered MAC that a name always gets: 02:76 ("v"), then its hash. */
export function defaultMac(name: string): string {
  // FNV-1a: small, and no two names of one switch are likely to meet.
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  const bytes = [0x02, 0x76, hash >>> 24, (hash >>> 16) & 255, (hash >>> 8) & 255, hash & 255];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}
