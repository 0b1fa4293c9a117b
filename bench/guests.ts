// iperf3 between two TCG guests: over a contender, over QEMU's own stream socket, over TAP + kernel
// bridge.

import { join } from 'node:path';
import { Guest, type GuestOptions } from '../test/peers/guest.ts';
import { configure, iperf } from '../test/peers/iperf.ts';
import { removeFolder, temporaryFolder } from '../test/peers/process.ts';
import type { Contender } from './contenders.ts';
import { lineLatency } from './line-latency.ts';
import { onBridge, openBridge } from './peers/bridge.ts';

export interface IperfResult {
  mbps: number;
  line: [number, number];
}

async function measure(options: readonly GuestOptions[], seconds: number): Promise<IperfResult> {
  const before = await lineLatency();
  // One virtual CPU each: two guests on two host CPUs.
  const guests = await Promise.all(options.map((o) => Guest.boot({ ...o, smp: 1 })));
  try {
    const [server, client] = guests;
    await configure(server!, '10.0.0.1/24');
    await configure(client!, '10.0.0.2/24');
    await iperf(server!, client!, '10.0.0.1', { seconds: 1 });
    const mbps = await iperf(server!, client!, '10.0.0.1', { seconds });
    const after = await lineLatency();
    return { mbps, line: [before.ns, after.ns] };
  } finally {
    await Promise.all(guests.map((guest) => guest.stop()));
  }
}

export async function overContender(contender: Contender, seconds: number): Promise<IperfResult> {
  const folder = temporaryFolder();
  const sockets = [join(folder, 'a'), join(folder, 'b')] as const;
  try {
    const running = await contender.start(sockets, 0);
    try {
      const nic = (vhostUser: string) => [{ backend: { vhostUser } }];
      return await measure(
        [
          { name: 'a', nics: nic(sockets[0]) },
          { name: 'b', nics: nic(sockets[1]) },
        ],
        seconds,
      );
    } finally {
      await running.stop();
    }
  } finally {
    removeFolder(folder);
  }
}

export async function overStream(seconds: number): Promise<IperfResult> {
  const folder = temporaryFolder();
  const stream = join(folder, 's');
  try {
    return await measure(
      [
        { name: 'a', nics: [{ backend: { stream, server: true } }] },
        { name: 'b', nics: [{ backend: { stream } }] },
      ],
      seconds,
    );
  } finally {
    removeFolder(folder);
  }
}

export async function overBridge(seconds: number): Promise<IperfResult> {
  const bridge = await openBridge(2);
  try {
    return await measure([onBridge(bridge, 0, 'a'), onBridge(bridge, 1, 'b')], seconds);
  } finally {
    await bridge.close();
  }
}
