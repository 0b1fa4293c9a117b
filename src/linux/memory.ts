// Mapping file descriptors at chosen addresses, and memfds.

import { fstatSync, ftruncateSync } from 'node:fs';
import { ERRNO } from './errors.ts';
import { checked, cMmap, lastErrno, lastError, libc } from './ffi.ts';

export { addressOf } from './ffi.ts';

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;

/** File seals (linux/fcntl.h), the bits of `seals()`. */
export const SEAL_SEAL = 1;
export const SEAL_SHRINK = 2;
export const SEAL_GROW = 4;
export const SEAL_WRITE = 8;

const cMemfd = libc.func('int memfd_create(const char *name, unsigned int flags)');
const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;

const cFlock = libc.func('int flock(int fd, int operation)');
const cFcntl = libc.func('int fcntl(int fd, int command, ...)');

function mapAt(address: number, length: number, flags: number, fd: number, offset: number): void {
  // Address 0 is refused here: MAP_FIXED with a mistaken address replaces whatever lies there.
  if (!(Number.isSafeInteger(address) && address > 0 && Number.isSafeInteger(length))) {
    throw new RangeError(`mmap: bad address ${address} or length ${length}`);
  }
  if (!(Number.isSafeInteger(offset) && offset >= 0 && length > 0)) {
    throw new RangeError(`mmap: bad offset ${offset} or length ${length}`);
  }
  const got = cMmap(address, length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, offset);
  if (got !== address) {
    const where = fd < 0 ? `${length} bytes` : `fd ${fd} offset ${offset} length ${length}`;
    throw lastError('mmap', where);
  }
}

/**
 * Maps `length` bytes of `fd` from `offset` (bytes) shared and read-write over `address`, replacing
 * what was there. Huge-page files need all three aligned to their block size (`fileShape`).
 * Throws SystemError (EACCES for an fd not open for writing); what was mapped may then be gone.
 */
export function mmapFixed(address: number, length: number, fd: number, offset: number): void {
  mapAt(address, length, MAP_SHARED, fd, offset);
}

/** Puts private zero memory (not reserved) back over `address`: the undo twin of mmapFixed. */
export function mmapAnonymousFixed(address: number, length: number): void {
  mapAt(address, length, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

/**
 * Anonymous shared memory of `size` bytes; the caller owns the fd. With `seal` it can neither
 * shrink nor grow any more, so no mapping of it can raise SIGBUS. Throws SystemError.
 */
export function memfd(name: string, size: number, options: { seal?: boolean } = {}): number {
  const fd = checked(cMemfd(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), 'memfd_create', name);
  ftruncateSync(fd, size);
  if (options.seal === true) {
    checked(cFcntl(fd, F_ADD_SEALS, 'int', SEAL_SHRINK | SEAL_GROW), 'fcntl', `memfd ${name}`);
  }
  return fd;
}

/** Seals of a file (SEAL_ bits); 0 for one that cannot carry any. Throws SystemError. */
export function seals(fd: number): number {
  const bits = cFcntl(fd, F_GET_SEALS);
  if (bits >= 0) return bits;
  if (lastErrno() === ERRNO.EINVAL) return 0;
  throw lastError('fcntl', `fd ${fd}`);
}

/**
 * Sees to it that the file behind fd cannot shrink any more (F_SEAL_SHRINK), adding the seal where the
 * file takes one: a memfd made with MFD_ALLOW_SEALING that nobody sealed against seals, and an fd open
 * for writing. False where it can still shrink. Throws SystemError.
 */
export function sealAgainstShrinking(fd: number): boolean {
  if ((seals(fd) & SEAL_SHRINK) !== 0) return true;
  if (cFcntl(fd, F_ADD_SEALS, 'int', SEAL_SHRINK) === 0) return true;
  // EPERM: sealed against seals, as every file on tmpfs is, or not open for writing. EINVAL: no memfd.
  if (lastErrno() === ERRNO.EPERM || lastErrno() === ERRNO.EINVAL) return false;
  throw lastError('fcntl', `fd ${fd}`);
}

/**
 * Takes the whole file for this open of it, until that is closed, also by the process's end (flock). False
 * when somebody else has it. Throws SystemError.
 */
export function lockFile(fd: number): boolean {
  if (cFlock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  if (lastErrno() === ERRNO.EAGAIN) return false;
  throw lastError('flock', `fd ${fd}`);
}

/** Lets go of it at once: mappings of the file would hold it on. */
export function unlockFile(fd: number): void {
  checked(cFlock(fd, LOCK_UN), 'flock', `fd ${fd}`);
}

/** Size in bytes and page size (huge pages: 2 MiB, 1 GiB) of the file behind fd. */
export function fileShape(fd: number): { size: number; blockSize: number } {
  const { size, blksize } = fstatSync(fd);
  return { size, blockSize: blksize };
}
