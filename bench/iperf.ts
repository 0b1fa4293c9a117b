// iperf3 TCP, one stream, between two TCG guests: over vhop and what one would use instead.
// Run: npm run bench -- --cases iperf

import { type Case, compare, inTurn, median, placement } from './case.ts';
import { vhop, vhostPmd } from './contenders.ts';
import { type IperfResult, overBridge, overContender, overStream } from './guests.ts';

const WAYS: [name: string, run: (seconds: number) => Promise<IperfResult>][] = [
  ['vhop switch', (seconds) => overContender(vhop('switch'), seconds)],
  ['testpmd vhost PMD tso=1', (seconds) => overContender(vhostPmd({ tso: true }), seconds)],
  ['QEMU netdev stream', overStream],
  ['TAP + bridge', overBridge],
];

export const iperfCase: Case = {
  name: 'iperf',
  about: 'iperf3 TCP between two TCG guests: vhop, vhost PMD, QEMU stream, TAP + bridge',
  needs: ['qemu', 'testpmd', 'net'],
  estimate: ({ rounds, seconds }) => WAYS.length * rounds * (seconds + 10),
  async run({ rounds, seconds }, say) {
    const all = await inTurn(WAYS, rounds, async ([name, run]) => {
      const result = await run(seconds);
      say(`${name}: ${result.mbps.toFixed(0)} Mbit/s`);
      return result;
    });
    const bridge = all.at(-1)!;
    const rate = (run: IperfResult): number => run.mbps;
    return {
      title: 'iperf3 TCP between two guests',
      notes: [
        'One vCPU each under TCG. Ratios are of rounds at the same placement; their number in brackets.',
      ],
      tables: [
        {
          caption: 'One stream',
          head: ['over', 'Mbit/s', 'each round', 'against the bridge', 'line'],
          rows: WAYS.map(([name], i) => {
            const runs = all[i]!;
            const { ratio, pairs } = compare(runs, bridge, rate);
            return [
              ...[name, median(runs.map(rate)).toFixed(0)],
              runs.map((run) => run.mbps.toFixed(0)).join(' '),
              `${pairs > 0 ? ratio.toFixed(2) : '-'} (${pairs})`,
              runs.map(placement).join(' '),
            ];
          }),
        },
      ],
      charts: [
        {
          title: 'iperf3 TCP between two guests',
          unit: 'Mbit/s',
          bars: WAYS.map(([name], i) => ({
            group: 'one stream',
            name,
            value: median(all[i]!.map(rate)),
          })),
        },
      ],
      raw: WAYS.map(([name], i) => ({ name, runs: all[i] })),
    };
  },
};
