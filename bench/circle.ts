// Frames that circle for ever: one testpmd is the guest on both sides (virtio-user), the contender
// stands between. The rate is what both together can pass round; the cost is the contender's alone.

import { join } from 'node:path';
import { removeFolder, temporaryFolder } from '../test/peers/process.ts';
import { Testpmd } from '../test/peers/testpmd.ts';
import type { Contender } from './contenders.ts';
import { lineLatency } from './line-latency.ts';

/** Of the generator's rings; the last is packed with VIRTIO_F_IN_ORDER. */
export const FORMATS = ['split', 'packed', 'in-order'] as const;
export type RingFormat = (typeof FORMATS)[number];

export interface CircleCase {
  /** Frame length, bytes. */
  size: number;
  mergeable: boolean;
  format: RingFormat;
  /** Entries in the generator's rings. */
  ring: number;
  /** Seconds measured. */
  seconds: number;
  pages: 'none' | 'huge';
}

export interface CircleResult {
  contender: string;
  /** Millions of frames a second, both directions summed. */
  mpps: number;
  /** Nanoseconds a frame, on the contender's core. */
  cost: number | undefined;
  /** Line latency before and after, nanoseconds. */
  line: [number, number];
}

/** CPU of the contender's datapath; the generator has the other. */
const DUT_CPU = 0;

export async function circle(contender: Contender, what: CircleCase): Promise<CircleResult> {
  const folder = temporaryFolder();
  const sockets = [join(folder, 'a'), join(folder, 'b')] as const;
  try {
    const before = await lineLatency();
    const running = await contender.start(sockets, DUT_CPU);
    try {
      const generator = await Testpmd.start({
        name: `gen${process.pid}`,
        ports: sockets.map((virtioUser) => ({
          virtioUser,
          mrgRxbuf: what.mergeable,
          packed: what.format !== 'split',
          inOrder: what.format === 'in-order',
          queueSize: what.ring,
        })),
        pages: what.pages,
        memory: 512,
        mbufs: 32768,
        mainCpu: 1 - DUT_CPU,
        cpu: 1 - DUT_CPU,
        // The last --txd and --rxd count; the default is 1024.
        extraArgs: [`--txd=${what.ring}`, `--rxd=${what.ring}`],
      });
      try {
        const { mpps, cost } = await measure(generator, running, what);
        const after = await lineLatency();
        return { contender: contender.name, mpps, cost, line: [before.ns, after.ns] };
      } finally {
        await generator.quit();
      }
    } finally {
      await running.stop();
    }
  } finally {
    removeFolder(folder);
  }
}

async function measure(
  generator: Testpmd,
  running: { cost(): Promise<number | undefined> },
  { size, seconds, ring }: CircleCase,
): Promise<{ mpps: number; cost: number | undefined }> {
  await generator.waitLinkUp();
  await generator.cmd(`set txpkts ${size}`);
  // As many frames as peers.md says, as far as the rings hold them.
  await generator.start(`tx_first ${Math.min(32, ring / 32)}`);
  // Warm up: compilers, caches, the first seconds of a new process.
  await sleep(1500);
  await running.cost();
  const start = performance.now();
  const first = await generator.stats();
  await sleep(seconds * 1000);
  const last = await generator.stats();
  const elapsed = (performance.now() - start) / 1000;
  const cost = await running.cost();
  const frames = (stats: typeof first) => stats.reduce((sum, port) => sum + port.rxPackets, 0);
  return { mpps: (frames(last) - frames(first)) / elapsed / 1e6, cost };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
