// A hostile session as a list of steps: plain JSON, so that a failure can be kept and played again.

import { execFileSync } from 'node:child_process';
import { constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { close, Epoll, eventfd, memfd, socketPair } from '../src/linux/index.ts';

/** Kinds of descriptors to send. Of `ram` and `small` rings may be made; the rest is not memory. */
export const FD_KINDS = [
  'ram',
  'small',
  'event',
  'pipe',
  'socket',
  'file',
  'null',
  'epoll',
] as const;
export type FdKind = (typeof FD_KINDS)[number];

export const RAM_BYTES = 4 << 20;
export const SMALL_BYTES = 64 << 10;

export type Step =
  /** Bytes for the socket, in hex; `cut`: sent in two pieces. */
  | { do: 'send'; bytes: string; fds?: FdKind[]; cut?: number }
  /** Bytes for the guest's memory, where a ring may be. */
  | { do: 'write'; at: number; bytes: string }
  /** The datapath has a turn. */
  | { do: 'poll' };

/** One open descriptor of each kind; the socket's other end is closed. */
export function openKinds(): Record<FdKind, number> {
  const [socket, other] = socketPair();
  close(other);
  const folder = mkdtempSync(join(tmpdir(), 'vhop-fuzz-'));
  const fifo = join(folder, 'pipe');
  try {
    execFileSync('mkfifo', [fifo]);
    return {
      ram: memfd('ram', RAM_BYTES, { seal: true }),
      small: memfd('small', SMALL_BYTES),
      event: eventfd(),
      pipe: openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK),
      socket,
      file: openSync(import.meta.filename, 'r'),
      null: openSync('/dev/null', 'r+'),
      epoll: new Epoll(1).fd,
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
