// Who is measured: vhop and what one would use instead, each as a process of its own that joins two
// vhost-user sockets.

import { basename, dirname, join } from 'node:path';
import { connectTo } from '../src/control/client.ts';
import type { Stats } from '../src/types.ts';
import { Child, waitFor } from '../test/peers/process.ts';
import { Testpmd } from '../test/peers/testpmd.ts';
import { type TestpmdOptions, testpmdArguments } from '../test/peers/testpmd-options.ts';
import { startOvs } from './peers/ovs.ts';

export interface Running {
  /** What was typed to start it. */
  commands: string[];
  /** Nanoseconds a frame cost the switch core since the last call; undefined where not known. */
  cost(): Promise<number | undefined>;
  stop(): Promise<void>;
}

export interface Contender {
  name: string;
  /** Joins the sockets, which it listens on; resolves when they accept. */
  start(sockets: readonly [string, string], cpu: number): Promise<Running>;
}

const root = join(import.meta.dirname, '..');

export type Pages = 'none' | 'huge';

/** Frames and sampled time of all workers. */
function totals(stats: Stats): { frames: number; ns: number } {
  return stats.workers.reduce(
    (sum, w) => ({ frames: sum.frames + w.frames, ns: sum.ns + w.frames * w.nsPerFrame }),
    { frames: 0, ns: 0 },
  );
}

/** vhop of this checkout, or of the one in `folder`. */
export function vhop(how: 'wire' | 'switch', folder = root): Contender {
  return {
    name: folder === root ? `vhop ${how}` : `${how} of ${basename(folder)}`,
    async start(sockets, cpu) {
      const control = `${sockets[0]}.control`;
      const args = [how, ...sockets, '--control', control];
      const child = new Child(join(folder, 'bin/vhop'), args, { cpus: `${cpu}` });
      await waitFor(
        () => child.stdout.includes('runs (pid'),
        20_000,
        'vhop',
        () => child.tail(),
      );
      const client = connectTo(control);
      let last = { frames: 0, ns: 0 };
      return {
        commands: [`taskset -c ${cpu} bin/vhop ${args.join(' ')}`],
        async cost() {
          const now = totals(await client.get('/stats'));
          const frames = now.frames - last.frames;
          const ns = (now.ns - last.ns) / frames;
          last = now;
          return frames > 0 ? ns : undefined;
        },
        async stop() {
          child.kill('SIGTERM');
          await child.finish(10_000);
        },
      };
    },
  };
}

/** DPDK's vhost PMD, forwarding between two ports in a busy loop; its packets in huge pages or not. */
export function vhostPmd(options: { tso?: boolean; pages?: Pages } = {}): Contender {
  const { tso, pages = 'none' } = options;
  return {
    name: tso ? 'testpmd vhost PMD tso=1' : 'testpmd vhost PMD',
    async start(sockets, cpu) {
      const how: TestpmdOptions = {
        name: `dut${process.pid}`,
        ports: sockets.map((vhost) => ({ vhost, tso })),
        pages,
        memory: pages === 'huge' ? 512 : 256,
        mainCpu: 1 - cpu,
        cpu,
        // A start would throw away what waits in the rings.
        extraArgs: ['--record-core-cycles', '--no-flush-rx'],
      };
      const testpmd = await Testpmd.start(how);
      await testpmd.start();
      return {
        commands: [`dpdk-testpmd ${testpmdArguments(how).join(' ')}`, 'testpmd> start'],
        async cost() {
          // Cycles of the polls that found frames, over frames, since it started.
          const text = await testpmd.cmd('stop');
          await testpmd.start();
          const found = /cycles\/packet=([\d.]+).*at (\d+) MHz/s.exec(text);
          return found ? (Number(found[1]) / Number(found[2])) * 1000 : undefined;
        },
        stop: () => testpmd.quit(),
      };
    },
  };
}

/** OVS-DPDK with a rule for each direction: from one port straight to the other. */
export function ovsDpdk(pages: Pages): Contender {
  return {
    name: 'OVS-DPDK',
    async start(sockets, cpu) {
      const ovs = await startOvs({
        folder: dirname(sockets[0]),
        sockets,
        pmdCpu: cpu,
        mainCpu: 1 - cpu,
        hugePages: pages === 'huge',
      });
      return {
        commands: ovs.commands,
        async cost() {
          const { frames, ns } = await ovs.busy();
          return frames > 0 ? ns / frames : undefined;
        },
        stop: () => ovs.stop(),
      };
    },
  };
}
