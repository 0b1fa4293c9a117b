// Contexts of kernel AIO, for who signals (aio.ts) and who moves frames (batch.ts). libc has no
// functions for these calls.

import { checked, cSyscall, permanentScratch } from './ffi.ts';

/** io_setup, io_destroy, io_getevents, io_submit (asm/unistd.h). */
export const [IO_SETUP, IO_DESTROY, IO_GET_EVENTS, IO_SUBMIT] =
  process.arch === 'arm64' ? [0, 1, 4, 2] : [206, 207, 208, 209];

/** Bytes of struct iocb and struct io_event (linux/aio_abi.h). */
export const IOCB_SIZE = 64;
export const EVENT_SIZE = 32;

const { view, address } = permanentScratch(128);

/**
 * A context for `events` completions; it is the process's, and stays until IO_DESTROY. Throws
 * SystemError: ENOSYS or EPERM where AIO is not to be had, EAGAIN where fs.aio-max-nr is used up.
 */
export function setupContext(events: number): number {
  // io_setup takes nothing but zero for "none yet".
  view.setBigUint64(0, 0n, true);
  checked(Number(cSyscall(IO_SETUP, events, address, 0, 0, 0)), 'io_setup');
  return Number(view.getBigUint64(0, true));
}
