// eventfd and the file descriptor chores that go with it. fds are plain numbers: Node's own fs
// functions warn about descriptors they did not open when called on a worker.

import { readlinkSync } from 'node:fs';
import { ERRNO } from './errors.ts';
import { checked, interrupted, lastErrno, lastError, libc, permanentScratch } from './ffi.ts';

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const F_GETFL = 3;
const F_SETFL = 4;
const F_DUPFD_CLOEXEC = 1030;

const cEventfd = libc.func('int eventfd(unsigned int initial, int flags)');
const cRead = libc.func('intptr_t read(int fd, uintptr_t buffer, size_t length)');
const cWrite = libc.func('intptr_t write(int fd, uintptr_t buffer, size_t length)');
const cClose = libc.func('int close(int fd)');
const cFcntl = libc.func('int fcntl(int fd, int command, ...)');

// Byte 0: the constant 1 that signal() writes. Byte 64: where drain() reads to.
const scratch = permanentScratch(128);
scratch.view.setBigUint64(0, 1n, true);
const one = scratch.address;
const counter = scratch.address + 64;

/** A new eventfd, counter 0, NONBLOCK and CLOEXEC. The caller owns it. Throws SystemError. */
export function eventfd(): number {
  return checked(cEventfd(0, O_NONBLOCK | O_CLOEXEC), 'eventfd');
}

/**
 * Adds 1 to an eventfd. A full counter is success: the reader has a wake-up pending.
 * The fd must be non-blocking. Throws SystemError on anything else (EBADF, EPIPE).
 */
export function signal(fd: number): void {
  if (cWrite(fd, one, 8) < 0) signalFailed(fd);
}

// Apart from signal() so that the latter stays small enough to be inlined.
function signalFailed(fd: number): void {
  while (interrupted()) {
    if (cWrite(fd, one, 8) >= 0) return;
  }
  if (lastErrno() !== ERRNO.EAGAIN) throw lastError('write', `eventfd ${fd}`);
}

/**
 * Takes an eventfd's count back to zero. Returns true if it was signalled, false if not.
 * The fd must be non-blocking. Throws SystemError.
 */
export function drain(fd: number): boolean {
  while (cRead(fd, counter, 8) < 0) {
    if (interrupted()) continue;
    if (lastErrno() === ERRNO.EAGAIN) return false;
    throw lastError('read', `eventfd ${fd}`);
  }
  return true;
}

/**
 * Whether an fd from a peer is an eventfd; true as well when /proc cannot tell. Anything else could
 * block the writer for ever (a FUSE file, for one, whatever O_NONBLOCK says).
 */
export function isEventfd(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
  } catch {
    return true;
  }
}

/** Sets O_NONBLOCK on the open file behind fd (shared with every duplicate). Throws SystemError. */
export function setNonblocking(fd: number): void {
  const flags = checked(cFcntl(fd, F_GETFL), 'fcntl', `fd ${fd}`);
  if ((flags & O_NONBLOCK) !== 0) return;
  checked(cFcntl(fd, F_SETFL, 'int', flags | O_NONBLOCK), 'fcntl', `fd ${fd}`);
}

/** Closes an fd; a second close of one number throws SystemError (EBADF). */
export function close(fd: number): void {
  if (cClose(fd) === 0) return;
  // On Linux the descriptor is gone whatever close() reports, except where there was none. What is
  // left (EINTR, EIO, ENOSPC) concerns data of files, and every fd here is a socket or memory.
  if (lastErrno() === ERRNO.EBADF) throw lastError('close', `fd ${fd}`);
}

/** A duplicate (CLOEXEC) of fd. The caller owns it. Throws SystemError. */
export function dup(fd: number): number {
  return checked(cFcntl(fd, F_DUPFD_CLOEXEC, 'int', 0), 'fcntl', `fd ${fd}`);
}
