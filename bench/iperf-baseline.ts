// iperf3 TCP between two TCG guests over what one would use instead of vhop: a stream socket from
// QEMU to QEMU, and TAP devices on a kernel bridge. Run: node bench/iperf-baseline.ts [rounds]

import { join } from 'node:path';
import { Guest, type GuestOptions } from '../test/peers/guest.ts';
import { configure, iperf } from '../test/peers/iperf.ts';
import { removeFolder, requirePeers, temporaryFolder } from '../test/peers/process.ts';
import { lineLatency } from './line-latency.ts';
import { onBridge, openBridge } from './peers/bridge.ts';

const rounds = Number(process.argv[2] ?? 3);
const seconds = 5;
/** One virtual CPU each, for two guests on two host CPUs. */
const common = { smp: 1 };

/** Boots both guests and measures `rounds` times; Mbit/s each. */
async function measure(a: GuestOptions, b: GuestOptions): Promise<number[]> {
  const guests = await Promise.all([
    Guest.boot({ ...a, ...common }),
    Guest.boot({ ...b, ...common }),
  ]);
  try {
    const [server, client] = guests;
    await configure(server, '10.0.0.1/24');
    await configure(client, '10.0.0.2/24');
    const rates: number[] = [];
    for (let round = 0; round < rounds; round++) {
      rates.push(await iperf(server, client, '10.0.0.1', { seconds }));
    }
    return rates;
  } finally {
    await Promise.all(guests.map((guest) => guest.stop()));
  }
}

async function stream(): Promise<number[]> {
  const folder = temporaryFolder();
  const path = join(folder, 's');
  try {
    return await measure(
      { name: 'a', nics: [{ backend: { stream: path, server: true } }] },
      { name: 'b', nics: [{ backend: { stream: path } }] },
    );
  } finally {
    removeFolder(folder);
  }
}

async function bridge(): Promise<number[]> {
  const opened = await openBridge(2);
  try {
    return await measure(onBridge(opened, 0, 'a'), onBridge(opened, 1, 'b'));
  } finally {
    await opened.close();
  }
}

async function report(name: string, run: () => Promise<number[]>): Promise<void> {
  const before = await lineLatency();
  const rates = await run();
  const after = await lineLatency();
  const line = [before, after].map(({ ns, label }) => `${ns.toFixed(0)} ns ${label}`).join(' → ');
  console.log(`${name}: ${rates.map((rate) => Math.round(rate)).join(' ')} Mbit/s (line ${line})`);
}

const say = { skip: (reason: string): void => console.log(`skipped: ${reason}`) };
if (requirePeers(say, ['qemu'])) await report('netdev stream', stream);
if (requirePeers(say, ['qemu', 'net'])) await report('TAP + bridge', bridge);
