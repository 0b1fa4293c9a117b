// iperf3 and ping between two guests: the measurements that tests and benches share.

import { type Guest, type GuestProcess, type Machine, spawnIn } from './guest.ts';
import { waitFor } from './process.ts';

/** Gives the guest's eth0 an address, such as '10.0.0.1/24', and brings it up. */
export async function configure(guest: Machine, address: string, device = 'eth0'): Promise<void> {
  await guest.run(`ip addr add ${address} dev ${device}; ip link set ${device} up`);
}

/** Starts an iperf3 server for one client, and waits until it listens. */
export async function serve(server: Machine): Promise<GuestProcess> {
  const daemon = await spawnIn(server, 'exec iperf3 -s -1');
  const listening = async (): Promise<boolean> =>
    (await server.run('netstat -tln | grep -q :5201', { ok: false })).status === 0;
  await waitFor(listening, 10_000, 'iperf3 -s');
  return daemon;
}

/** What iperf3 -J says at its end, of what the server received. */
interface Received {
  seconds: number;
  bytes: number;
  bits_per_second: number;
  /** UDP only. */
  packets: number;
  lost_packets: number;
}

interface End {
  sum_received: Received;
  /** With --bidir. */
  sum_received_bidir_reverse?: Received;
}

async function received(
  server: Guest,
  client: Guest,
  serverAddress: string,
  seconds: number,
  flags: string,
): Promise<End> {
  const daemon = await serve(server);
  try {
    const { stdout } = await client.run(
      `iperf3 -J -c ${serverAddress} -t ${seconds} ${flags} --connect-timeout 5000`,
      { timeoutMs: seconds * 1000 + 20_000 },
    );
    const { end } = JSON.parse(stdout) as { end: Partial<End> };
    if (end.sum_received === undefined) throw new Error(`iperf3 ${flags}: no sum in ${stdout}`);
    return end as End;
  } finally {
    await daemon.kill();
  }
}

/** TCP from `client` to `server` for `seconds`; what the server received, in Mbit/s. */
export async function iperf(
  server: Guest,
  client: Guest,
  serverAddress: string,
  { seconds = 2, flags = '' }: { seconds?: number; flags?: string } = {},
): Promise<number> {
  const { sum_received } = await received(server, client, serverAddress, seconds, flags);
  return sum_received.bits_per_second / 1e6;
}

/** TCP both ways at once: what the server received and what the client did, in Mbit/s. */
export async function iperfBoth(
  server: Guest,
  client: Guest,
  serverAddress: string,
  seconds: number,
): Promise<[number, number]> {
  const end = await received(server, client, serverAddress, seconds, '--bidir');
  return [
    end.sum_received.bits_per_second / 1e6,
    end.sum_received_bidir_reverse!.bits_per_second / 1e6,
  ];
}

/**
 * UDP from `client` to `server`, datagrams of `bytes` of payload as fast as it goes: those that the
 * server received a second, and the part of those sent that it did not, 0 to 1.
 */
export async function iperfUdp(
  server: Guest,
  client: Guest,
  serverAddress: string,
  { seconds = 2, bytes = 64 }: { seconds?: number; bytes?: number } = {},
): Promise<{ perSecond: number; lost: number }> {
  const flags = `-u -b 0 -l ${bytes}`;
  const { sum_received: end } = await received(server, client, serverAddress, seconds, flags);
  return {
    perSecond: end.bytes / bytes / end.seconds,
    lost: end.packets > 0 ? end.lost_packets / end.packets : 1,
  };
}

/** Round-trip times of `count` pings in a row, microseconds; `interval` seconds apart, or at once. */
export async function pingTimes(
  from: Guest,
  address: string,
  { count, interval }: { count: number; interval?: number },
): Promise<number[]> {
  const pace = interval === undefined ? '-A' : `-i ${interval}`;
  // Into a file first: the console, slow under TCG, would disturb what is measured.
  const { stdout } = await from.run(
    `ping ${pace} -c ${count} -W 2 ${address} > /tmp/pings
    sed -n 's/.* time=\\([0-9.]*\\) ms.*/\\1/p' /tmp/pings`,
    { timeoutMs: 30_000 + count * ((interval ?? 0) * 1000 + 20) },
  );
  const times = stdout
    .trim()
    .split('\n')
    .map((ms) => Number(ms) * 1000);
  if (times.length < count / 2 || times.some(Number.isNaN)) {
    throw new Error(`ping: ${times.length} of ${count} came back`);
  }
  return times;
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
