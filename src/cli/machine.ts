// Facts about this machine that arguments and the doctor depend on. Nothing here throws.

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/** The text of a file, or undefined when it cannot be read. */
export function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

/** Huge pages that are free now, of every size, bytes. */
export function freeHugePages(folder = '/sys/kernel/mm/hugepages'): number {
  let bytes = 0;
  try {
    for (const size of readdirSync(folder)) {
      const kib = Number(/^hugepages-(\d+)kB$/.exec(size)?.[1] ?? 0);
      bytes += kib * 1024 * Number(readText(`${folder}/${size}/free_hugepages`) ?? 0);
    }
  } catch {
    // A kernel without huge pages has none free.
  }
  return bytes;
}

/**
 * Whether DPDK could take `bytes` of huge pages: that many are free, and hugetlbfs is mounted, which
 * is where it looks for them.
 */
export function dpdkHasHugePages(bytes: number): boolean {
  return freeHugePages() >= bytes && / hugetlbfs /.test(readText('/proc/mounts') ?? '');
}

/** QEMU's program for this machine's own processor. */
export const QEMU = `qemu-system-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}`;

/** QEMU's version as [major, minor], or undefined when there is none on PATH. */
export function qemuVersion(): [major: number, minor: number] | undefined {
  const { stdout } = spawnSync(QEMU, ['--version'], { encoding: 'utf8', timeout: 10_000 });
  const match = /version (\d+)\.(\d+)/.exec(stdout ?? '');
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}
