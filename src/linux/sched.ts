// Thread identity and placement, for the calling thread.

import { checked, libc, permanentScratch } from './ffi.ts';

/** CPUs a mask here can name: 0 .. MAX_CPUS-1. */
export const MAX_CPUS = 1024;

const cSetAffinity = libc.func('int sched_setaffinity(int tid, size_t length, uintptr_t mask)');
const cGettid = libc.func('int gettid()');
const scratch = permanentScratch(MAX_CPUS / 8);

/**
 * Keeps the calling thread on these CPUs. Throws RangeError for an empty list or a number outside
 * 0..1023, SystemError (EINVAL) where no CPU named is present and allowed.
 */
export function setAffinity(cpus: number[]): void {
  if (cpus.length === 0) throw new RangeError('setAffinity: the list of CPUs is empty');
  scratch.bytes.fill(0);
  for (const cpu of cpus) {
    if (!Number.isInteger(cpu) || cpu < 0 || cpu >= MAX_CPUS) {
      throw new RangeError(`setAffinity: ${cpu} is not a CPU number (0-${MAX_CPUS - 1})`);
    }
    // x86-64 and arm64 are little endian: bit n of the mask is bit n%8 of byte n/8.
    scratch.bytes[cpu >> 3]! |= 1 << (cpu & 7);
  }
  checked(cSetAffinity(0, MAX_CPUS / 8, scratch.address), 'sched_setaffinity', cpus.join(','));
}

/** Kernel thread id of the calling thread. */
export function gettid(): number {
  return cGettid();
}
