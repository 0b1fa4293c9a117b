// The library handle and the scratch memory of the FFI. Nothing outside this folder imports it.
//
// A Node Buffer of 64 bytes or less lives in the JavaScript heap and moves with it, so its address
// is never handed to a system call. Every structure with pointers in it is written by hand into one
// large buffer per thread, whose address is taken once and which is never released.

import koffi from 'koffi';
import { ERRNO, SystemError } from './errors.ts';

export const libc = koffi.load(null);

/** For calls that libc has no function for, with up to five arguments. */
export const cSyscall = libc.func(
  'intptr_t syscall(intptr_t n, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e)',
);
/** All ones (MAP_FAILED) when it fails. */
export const cMmap = libc.func(
  'uintptr_t mmap(uintptr_t address, size_t length, int prot, int flags, int fd, int64_t offset)',
);

const memmove = libc.func('uintptr_t memmove(void *to, const void *from, size_t length)');

/**
 * Address of a view's first byte. It stays true for as long as the view's buffer is referenced, if
 * that buffer lies outside the JavaScript heap: longer than 64 bytes, or WebAssembly memory.
 */
export function addressOf(view: Uint8Array): number {
  return memmove(view, view, 0);
}

/** A buffer that does not move, with its address. Bytes: at least 128. */
export interface Scratch {
  readonly bytes: Buffer;
  readonly view: DataView;
  readonly address: number;
}

/** Allocates FFI memory; keep `bytes` or `view` referenced while the kernel may use the address. */
export function allocateScratch(length: number): Scratch {
  const bytes = Buffer.allocUnsafeSlow(Math.max(length, 128)).fill(0);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { bytes, view, address: addressOf(bytes) };
}

// A module's variable keeps its value alive only if a function of that module mentions it; one of
// which only the address is used later would be collected, and the address written to all the same.
const kept: Scratch[] = [];

/** As allocateScratch, for as long as the thread lives. */
export function permanentScratch(length: number): Scratch {
  const scratch = allocateScratch(length);
  kept.push(scratch);
  return scratch;
}

/** errno of the FFI call just made on this thread. */
export function lastErrno(): number {
  return koffi.errno();
}

/** The error for the FFI call just made on this thread. */
export function lastError(syscall: string, subject = ''): SystemError {
  return new SystemError(syscall, koffi.errno(), subject);
}

/** The result of a call that returns -1 on failure; throws SystemError. */
export function checked(result: number, syscall: string, subject = ''): number {
  if (result < 0) throw lastError(syscall, subject);
  return result;
}

/** True when the call just made should be repeated (EINTR). */
export function interrupted(): boolean {
  return koffi.errno() === ERRNO.EINTR;
}
