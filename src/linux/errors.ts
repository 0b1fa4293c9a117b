// errno to typed errors: every failed system call becomes one SystemError.

import { constants } from 'node:os';
import { getSystemErrorMessage, getSystemErrorName } from 'node:util';

/** errno numbers of this machine, by name (`ERRNO.EAGAIN`). */
export const ERRNO = constants.errno;

/**
 * A system call that failed. The message reads
 * "bind /run/a.sock: address already in use (EADDRINUSE)".
 */
export class SystemError extends Error {
  override name = 'SystemError';
  /** What was attempted: the system call and what it was attempted on. */
  readonly call: string;
  /** The system call alone, as `bind`. */
  readonly syscall: string;
  /** Positive, as in errno.h. */
  readonly errno: number;
  /** As `EADDRINUSE`. */
  readonly code: string;

  constructor(syscall: string, errno: number, subject = '') {
    const call = subject === '' ? syscall : `${syscall} ${subject}`;
    const code = getSystemErrorName(-errno);
    super(`${call}: ${getSystemErrorMessage(-errno)} (${code})`);
    this.call = call;
    this.syscall = syscall;
    this.errno = errno;
    this.code = code;
  }
}
