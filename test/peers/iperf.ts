// iperf3 between two guests: the one TCP measurement that tests and benches share.

import type { Guest, GuestProcess } from './guest.ts';
import { waitFor } from './process.ts';

/** Gives the guest's eth0 an address, such as '10.0.0.1/24', and brings it up. */
export async function configure(guest: Guest, address: string, device = 'eth0'): Promise<void> {
  await guest.run(`ip addr add ${address} dev ${device}; ip link set ${device} up`);
}

/** Starts an iperf3 server for one client, and waits until it listens. */
export async function serve(server: Guest): Promise<GuestProcess> {
  const daemon = await server.spawn('exec iperf3 -s -1');
  const listening = async (): Promise<boolean> =>
    (await server.run('netstat -tln | grep -q :5201', { ok: false })).status === 0;
  await waitFor(listening, 10_000, 'iperf3 -s');
  return daemon;
}

/** TCP from `client` to `server` for `seconds`; what the server received, in Mbit/s. */
export async function iperf(
  server: Guest,
  client: Guest,
  serverAddress: string,
  { seconds = 2, flags = '' }: { seconds?: number; flags?: string } = {},
): Promise<number> {
  const daemon = await serve(server);
  try {
    const { stdout } = await client.run(
      `iperf3 -J -c ${serverAddress} -t ${seconds} ${flags} --connect-timeout 5000`,
      { timeoutMs: seconds * 1000 + 20_000 },
    );
    const report = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } };
    return report.end.sum_received.bits_per_second / 1e6;
  } finally {
    await daemon.kill();
  }
}

/** Share of lost echoes, 0 to 1, of `count` pings 0.1 s apart. */
export async function pingLoss(from: Guest, address: string, count = 5): Promise<number> {
  const { stdout } = await from.run(`ping -c ${count} -i 0.1 -W 2 ${address}`, {
    ok: false,
    timeoutMs: 10_000 + count * 200,
  });
  const loss = /(\d+)% packet loss/.exec(stdout)?.[1];
  if (loss === undefined) throw new Error(`ping: ${stdout}`);
  return Number(loss) / 100;
}
