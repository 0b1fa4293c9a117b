// iperf3 with datagrams.

import type { Guest } from '../peers/guest.ts';
import { serve } from '../peers/iperf.ts';

/** Datagrams sent, and received by the time the sender's word of the end arrived. */
export interface UdpResult {
  sent: number;
  received: number;
}

/** 20 Mbit/s for one second from `client` to `server`; the other way round with `-R`. */
export async function udp(
  server: Guest,
  client: Guest,
  address: string,
  flags = '',
): Promise<UdpResult> {
  const daemon = await serve(server);
  try {
    const { stdout } = await client.run(
      `iperf3 -J -u -b 20M -l 1400 -t 1 ${flags} -c ${address} --connect-timeout 5000`,
      { timeoutMs: 30_000 },
    );
    const { end } = JSON.parse(stdout) as {
      end: Record<'sum_sent' | 'sum_received', { packets: number }>;
    };
    return { sent: end.sum_sent.packets, received: end.sum_received.packets };
  } finally {
    await daemon.kill();
  }
}
