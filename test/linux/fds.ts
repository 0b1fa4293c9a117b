// Counting this process's open descriptors, for leak tests.

import { readdirSync } from 'node:fs';

/** Open fds of this process, the one that lists them not counted. */
export function openFds(): number {
  return readdirSync('/proc/self/fd').length - 1;
}
