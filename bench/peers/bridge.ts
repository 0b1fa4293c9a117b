// TAP devices on a Linux bridge, in a network namespace of their own: what one would use instead of
// a vhost-user switch, as a baseline. Needs root.

import type { GuestOptions } from '../../test/peers/guest.ts';
import type { Nic } from '../../test/peers/nic.ts';
import { exec } from '../../test/peers/process.ts';

export interface Bridge {
  /** The namespace's name: GuestOptions.netns. */
  netns: string;
  /** The TAP devices, each up, on the bridge, with virtio-net headers. */
  taps: string[];
  /** Removes the namespace, and with it the devices. */
  close(): Promise<void>;
}

let made = 0;

/**
 * Makes a bridge with `count` TAP devices. A guest reaches one through
 * `{ netns: bridge.netns, nics: [{ backend: { tap: bridge.taps[0] } }] }`; QEMU then moves frames
 * itself (vhost=off) and agrees checksum and segmentation offloads with the kernel.
 */
export async function openBridge(count = 2): Promise<Bridge> {
  const netns = `vhopb-${process.pid}-${++made}`;
  const taps = Array.from({ length: count }, (_, index) => `vhopb-tap${index}`);
  const close = async (): Promise<void> => {
    await exec('ip', ['netns', 'del', netns]);
  };
  const ip = (line: string): Promise<string> => exec('ip', ['-n', netns, ...line.split(' ')]);
  await exec('ip', ['netns', 'add', netns]);
  try {
    await ip('link add vhopb-br type bridge');
    await ip('link set vhopb-br up');
    for (const tap of taps) {
      await ip(`tuntap add ${tap} mode tap vnet_hdr`);
      await ip(`link set ${tap} master vhopb-br up`);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { netns, taps, close };
}

/** Guest options for the bridge's TAP number `index`; `device`: properties of the card. */
export function onBridge(
  bridge: Bridge,
  index: number,
  name: string,
  device: Nic['device'] = {},
): GuestOptions {
  const tap = bridge.taps[index];
  if (tap === undefined) throw new RangeError(`the bridge has no TAP ${index}`);
  return { name, netns: bridge.netns, nics: [{ backend: { tap }, device }] };
}
