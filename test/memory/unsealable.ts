// Files that can shrink while they are mapped, and what is mapped of them.

import assert from 'node:assert/strict';
import { ftruncateSync, readFileSync } from 'node:fs';
import koffi from 'koffi';
import { addressOf } from '../../src/linux/index.ts';
import type { Control } from '../../src/memory/control.ts';

const cMemfd = koffi.load(null).func('int memfd_create(const char *name, unsigned int flags)');
const MFD_CLOEXEC = 1;
export const MFD_HUGE_2MB = 4 | (21 << 26);

/** A memfd named `vhop-shrinks` that takes no seals, as DPDK's and QEMU's with seal=off; sparse. */
export function unsealable(size: number, flags = 0): number {
  const fd: number = cMemfd('vhop-shrinks', MFD_CLOEXEC | flags);
  assert.ok(fd >= 0, 'memfd_create');
  ftruncateSync(fd, size);
  return fd;
}

/** Mappings of this process that lie in linear memory; those of `unsealable` files, if asked. */
export function mappings(control: Control, files = false): number {
  const base = addressOf(control.bytes.subarray(0, 65536));
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => {
      const at = Number.parseInt(line, 16) - base;
      return at >= 0 && at < 2 ** 32 && (!files || line.includes('vhop-shrinks'));
    }).length;
}
