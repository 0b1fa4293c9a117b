// What a front end that sends reconfiguring requests in a tight loop costs an innocent pair of guests in
// process, on the same switch. The reference is the same front end at rest.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { WORKER_BASE, WORKER_GENERATION } from '../src/abi/layout.ts';
import { openSwitch, startTraffic, type TrafficPair } from '../src/api/index.ts';
import type { Kind } from './flood.ts';

/** Milliseconds of flood before the count begins: what a burst may use is used up. */
const WARM = 3000;
/** Milliseconds of each look, at rest and under the flood in turn. */
const LOOK = 300;

export interface FloodResult {
  kind: Kind;
  /** The pair's rate under the flood against that at rest, look by look. */
  ratios: number[];
  /** Share of one CPU that the switch's main thread used under the flood. */
  main: number;
  /** Requests carried out a second. */
  requests: number;
}

function received(traffic: TrafficPair): number {
  return traffic.counts().reduce((sum, guest) => sum + guest.received, 0);
}

/** What each flood of `kinds` costs the pair, over `looks` pairs of looks. */
export async function floods(kinds: readonly Kind[], looks: number): Promise<FloodResult[]> {
  const folder = mkdtempSync(join(tmpdir(), 'vhop-flood-'));
  const path = join(folder, 'flood.sock');
  const lab = await openSwitch();
  await lab.addPort({ type: 'vhost-user', path });
  const traffic = startTraffic(lab, { frames: Number.POSITIVE_INFINITY, length: 60, check: false });
  const results: FloodResult[] = [];
  const look = async () => {
    const [from, start, cpu] = [received(traffic), performance.now(), process.threadCpuUsage()];
    const generation = lab.control.get(WORKER_BASE + WORKER_GENERATION);
    await sleep(LOOK);
    const time = performance.now() - start;
    const { user, system } = process.threadCpuUsage(cpu);
    return {
      rate: (received(traffic) - from) / time,
      main: (user + system) / 1000 / time,
      quiesced: (lab.control.get(WORKER_BASE + WORKER_GENERATION) - generation) / (time / 1000),
    };
  };
  try {
    for (const kind of kinds) {
      const child = await flooder(path, kind);
      await sleep(WARM);
      const ratios: number[] = [];
      let [main, quiesced] = [0, 0];
      for (let i = 0; i < looks; i++) {
        child.kill('SIGSTOP');
        await sleep(20);
        const rest = await look();
        child.kill('SIGCONT');
        await sleep(20);
        const flood = await look();
        ratios.push(flood.rate / rest.rate);
        main += flood.main / looks;
        quiesced += flood.quiesced / looks;
      }
      child.kill('SIGKILL');
      await new Promise((done) => child.once('exit', done));
      while (lab.ports()[0]?.state !== 'listening') await sleep(5);
      results.push({ kind, ratios, main, requests: quiesced });
    }
  } finally {
    await traffic.stop();
    await lab.close();
    rmSync(folder, { recursive: true });
  }
  return results;
}

async function flooder(path: string, kind: Kind): Promise<ChildProcess> {
  const script = join(import.meta.dirname, 'flood.ts');
  const child = spawn(process.execPath, [script, path, kind], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((done) => child.stdout.once('data', done));
  return child;
}
