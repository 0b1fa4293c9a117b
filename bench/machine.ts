// What the figures were measured on: hardware and versions, for the report.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { VERSION } from '../src/version.ts';
import { exec, have, root } from '../test/peers/process.ts';
import { lacksOvs, ovsVersion } from './peers/ovs.ts';

/** Of 2 MiB, that two DPDK programs want. */
export const HUGE_PAGES = 512;

/** Where DPDK's packets can lie. */
export function pagesHere(): 'huge' | 'none' {
  const free = Number(/HugePages_Free:\s+(\d+)/.exec(meminfo())?.[1] ?? 0);
  return free >= HUGE_PAGES ? 'huge' : 'none';
}

const meminfo = (): string => readFileSync('/proc/meminfo', 'utf8');

const PRESSURE = '/proc/pressure/cpu';

/**
 * Milliseconds, since it started, in which some thread of the machine was ready and waited for a CPU;
 * undefined where the kernel does not tell.
 */
export function cpuPressure(): number | undefined {
  if (!existsSync(PRESSURE)) return undefined;
  const found = /some .*total=(\d+)/.exec(readFileSync(PRESSURE, 'utf8'));
  return found ? Number(found[1]) / 1000 : undefined;
}

/** Name and value, for people. */
export async function machine(): Promise<[name: string, value: string][]> {
  const [cpu] = cpus();
  const huge = /HugePages_Total:\s+(\d+)/.exec(meminfo())?.[1] ?? '0';
  return [
    ['CPU', `${availableParallelism()} x ${cpu?.model.trim()}`],
    ['memory', `${(totalmem() / 2 ** 30).toFixed(0)} GiB, ${huge} huge pages of 2 MiB`],
    ['kernel', `Linux ${release()}`],
    ['vhop', commit() === '' ? VERSION : `${VERSION}, ${commit()}`],
    ['Node', `${process.version}, V8 ${process.versions.v8}`],
    ['DPDK', await dpdkVersion()],
    ['OVS', lacksOvs() ?? (await ovsVersion())],
    ['QEMU', await qemuVersion()],
  ];
}

/** Such as `commit 1a2b3c4, with changes`; empty outside of a repository. */
function commit(): string {
  try {
    const git = (...args: string[]): string =>
      execFileSync('git', ['-C', root, ...args], { encoding: 'utf8', stdio: 'pipe' }).trim();
    const changed = git('status', '--porcelain', '--untracked-files=no') !== '';
    return `commit ${git('rev-parse', '--short=10', 'HEAD')}${changed ? ', with changes' : ''}`;
  } catch {
    return '';
  }
}

async function dpdkVersion(): Promise<string> {
  if (!have('dpdk-testpmd')) return 'none: run script/peers';
  // It has no option that only says so.
  const text = await exec('sh', ['-c', 'dpdk-testpmd -v --help 2>&1 || true']);
  return /RTE Version: '(?:DPDK )?([^']+)'/.exec(text)?.[1] ?? 'unknown';
}

async function qemuVersion(): Promise<string> {
  if (!have('qemu-system-x86_64')) return 'none: run script/peers';
  const text = await exec('qemu-system-x86_64', ['--version']);
  return /version (\S+)/.exec(text)?.[1] ?? 'unknown';
}
