// Signals an eventfd of somebody who is not trusted, without ever waiting.
//
// write(2) is not safe for that: O_NONBLOCK belongs to the open file, whose other holder can clear it and
// fill the counter, and then the writer sleeps for good. The kernel's own signal of an eventfd never
// waits; the one way to it that takes no more than an fd is a finished asynchronous operation that names
// the eventfd (io_submit(2), IOCB_FLAG_RESFD). Here the operation is a poll of the eventfd itself, which is
// always ready for one thing or the other.

import { signal } from './eventfd.ts';
import { libc, permanentScratch, type Scratch } from './ffi.ts';

// glibc has no wrappers for these.
const cSyscall = libc.func('long syscall(long number, uintptr_t a, uintptr_t b, uintptr_t c)');
const cReap = libc.func(
  'long syscall(long number, uintptr_t a, long least, long most, uintptr_t d, uintptr_t e)',
);
const X64 = process.arch === 'x64';
const IO_SETUP = X64 ? 206 : 0;
const IO_DESTROY = X64 ? 207 : 1;
const IO_GETEVENTS = X64 ? 208 : 4;
const IO_SUBMIT = X64 ? 209 : 2;

const IOCB_CMD_POLL = 5;
const IOCB_FLAG_RESFD = 1;
const POLLIN_OR_OUT = 1 | 4;
/** Operations whose results may lie unread; each result is 32 bytes. */
const DEPTH = 128;

// Scratch: the context at 0, the list of one iocb at 8, struct iocb at 64, results at 256.
const LIST = 8;
const IOCB = 64;
const FD = IOCB + 20;
const RESFD = IOCB + 60;
const RESULTS = 256;

interface Context {
  id: number;
  scratch: Scratch;
  list: number;
  unread: number;
}

/** One a thread, from its first signal on; null where the system has none to give. */
let context: Context | null | undefined;

function open(): Context | null {
  const scratch = permanentScratch(RESULTS + 32 * DEPTH);
  const { view, address } = scratch;
  if (cSyscall(IO_SETUP, DEPTH, address, 0) !== 0) return null;
  view.setBigUint64(LIST, BigInt(address + IOCB), true);
  view.setUint16(IOCB + 16, IOCB_CMD_POLL, true);
  view.setBigUint64(IOCB + 24, BigInt(POLLIN_OR_OUT), true);
  view.setUint32(IOCB + 56, IOCB_FLAG_RESFD, true);
  return { id: Number(view.getBigUint64(0, true)), scratch, list: address + LIST, unread: 0 };
}

/**
 * Adds 1 to an eventfd, unless it is full; never waits, never throws. What is no eventfd (any more) is
 * its owner's loss. Where the kernel has no asynchronous operations (a sandbox, fs.aio-max-nr used up)
 * it is written to, and then waits if its owner wants it to.
 */
export function signalPeer(fd: number): void {
  if (context === undefined) context = open();
  if (context === null) {
    try {
      signal(fd);
    } catch {
      // As above.
    }
    return;
  }
  const { view } = context.scratch;
  view.setUint32(FD, fd, true);
  view.setUint32(RESFD, fd, true);
  cSyscall(IO_SUBMIT, context.id, 1, context.list);
  if (++context.unread < DEPTH / 2) return;
  context.unread = 0;
  cReap(IO_GETEVENTS, context.id, 0, DEPTH, context.scratch.address + RESULTS, 0);
}

/** Gives back what this thread's signalPeer holds: at the end of a thread, which the kernel does not see. */
export function closePeerSignal(): void {
  if (context) cSyscall(IO_DESTROY, context.id, 0, 0);
  context = undefined;
}
