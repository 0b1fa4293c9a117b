// testpmd with a virtio-user port on each of the switch's ports a and b, handing every frame from
// one to the other: what it sends comes back, and circles until it stops.

import assert from 'node:assert/strict';
import { waitFor } from '../peers/process.ts';
import { Testpmd } from '../peers/testpmd.ts';
import type { TestpmdOptions, VirtioUserPort } from '../peers/testpmd-options.ts';
import type { Lab } from '../qemu/lab.ts';

/** testpmd's two ports, in the order of its own numbers. */
const NAMES = ['a', 'b'] as const;

export type CircleOptions = Partial<Omit<VirtioUserPort, 'virtioUser'>>;

/** What one of the two ports has besides `options`. */
export type CirclePorts = Partial<Record<(typeof NAMES)[number], CircleOptions>>;

export function circleOptions(
  lab: Lab,
  options: CircleOptions = {},
  of: CirclePorts = {},
): TestpmdOptions {
  return {
    name: `vhop-${process.pid}`,
    ports: NAMES.map((name) => ({ ...options, ...of[name], virtioUser: lab.path(name) })),
    memory: 128,
    cpu: 1,
    mainCpu: 1,
  };
}

/** Starts testpmd on ports a and b, and waits until both are up. */
export async function startCircle(
  lab: Lab,
  options: CircleOptions = {},
  of: CirclePorts = {},
): Promise<Testpmd> {
  const testpmd = await Testpmd.start(circleOptions(lab, options, of));
  lab.closing(() => testpmd.quit());
  await ready(lab, testpmd);
  return testpmd;
}

export async function ready(lab: Lab, testpmd: Testpmd): Promise<void> {
  await testpmd.waitLinkUp();
  for (const name of NAMES) await lab.state(name, 'up');
}

export interface Lap {
  /** Bytes of every frame, Ethernet header included, FCS not. */
  size: number;
  /** Bursts of 32 frames that each port begins with. */
  bursts?: number;
  /** Frames to see delivered, at least. */
  frames?: number;
}

/**
 * Lets frames circle, stops, collects what still lies in the rings, and compares testpmd's counters
 * with the switch's: frame by frame and byte by byte.
 */
export async function circle(lab: Lab, testpmd: Testpmd, lap: Lap): Promise<void> {
  const { size, bursts = 2, frames = 20_000 } = lap;
  const before = NAMES.map((name) => lab.stats(name));
  await testpmd.clearStats();
  await testpmd.cmd('set fwd io');
  await testpmd.cmd(`set txpkts ${size}`);
  await testpmd.start(`tx_first ${bursts}`);
  const delivered = () =>
    NAMES.reduce((sum, name, i) => sum + lab.stats(name).rxFrames - before[i]!.rxFrames, 0);
  await waitFor(
    () => delivered() >= frames,
    30_000,
    `${frames} frames of ${size} bytes`,
    () => `${delivered()} so far`,
  );
  await testpmd.stop();
  await testpmd.cmd('set fwd rxonly');
  await testpmd.start();
  let seen = '';
  const equal = async (): Promise<boolean> => {
    const theirs = (await testpmd.stats()).map((port) => ({
      sent: port.txPackets,
      sentBytes: port.txBytes,
      received: port.rxPackets,
      receivedBytes: port.rxBytes,
    }));
    const ours = NAMES.map((name, i) => {
      const { txFrames, txBytes, rxFrames, rxBytes } = lab.stats(name);
      return {
        sent: txFrames - before[i]!.txFrames,
        sentBytes: txBytes - before[i]!.txBytes,
        received: rxFrames - before[i]!.rxFrames,
        receivedBytes: rxBytes - before[i]!.rxBytes,
      };
    });
    seen = `testpmd ${JSON.stringify(theirs)}\nswitch  ${JSON.stringify(ours)}`;
    return JSON.stringify(theirs) === JSON.stringify(ours);
  };
  await waitFor(equal, 10_000, 'equal counters', () => seen);
  await testpmd.stop();
  for (const [i, name] of NAMES.entries()) {
    const { rxFrames, rxBytes } = lab.stats(name);
    const got = rxFrames - before[i]!.rxFrames;
    assert.ok(got > 0, `port ${name} received nothing`);
    assert.equal(rxBytes - before[i]!.rxBytes, got * size, `bytes of frames of ${size}`);
  }
}
