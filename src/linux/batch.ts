// Whole frames read from or written to a character device such as a TAP, which has no call for more than
// one (readv and writev scatter a single frame).
//
// A call each, on purpose. By kernel AIO, two calls a batch, 32 frames of a TAP take 461 ns each to read,
// by read(2) 386; to write, 494 and 513. A system call takes 140 ns from here, and io_submit(2) and
// io_uring 210 to 230 for each request that finds nothing.

import { ERRNO } from './errors.ts';
import { lastErrno, libc } from './ffi.ts';

/** Most frames a call may move. */
export const MAX_BATCH = 64;

const cRead = libc.func('intptr_t read(int fd, uintptr_t buffer, size_t length)');
const cWrite = libc.func('intptr_t write(int fd, uintptr_t buffer, size_t length)');

/**
 * Reads or writes of whole frames, many at a call, on a non-blocking character device. The device cuts
 * off, without a word, what is longer than its buffer.
 */
export class Batch {
  readonly #base: number;
  readonly #most: number;
  readonly #addresses: Float64Array;
  readonly #lengths: Uint32Array;
  readonly #results: Int32Array;

  /**
   * For up to `most` (1-64) frames a call, in the memory at address `base` (addressOf), which must stay
   * where it is. Throws RangeError.
   */
  constructor(base: number, most = MAX_BATCH) {
    if (!(Number.isInteger(most) && most >= 1 && most <= MAX_BATCH)) {
      throw new RangeError(`a batch of ${most} frames: it may be 1 to ${MAX_BATCH}`);
    }
    this.#base = base;
    this.#most = most;
    this.#addresses = new Float64Array(most);
    this.#lengths = new Uint32Array(most);
    this.#results = new Int32Array(most);
  }

  /** The i-th buffer of the calls to come: offset from base, bytes. Throws RangeError for no such i. */
  set(i: number, offset: number, length: number): void {
    if (!(i >= 0 && i < this.#most)) throw new RangeError(`buffer ${i} of ${this.#most}`);
    this.#addresses[i] = this.#base + offset;
    this.#lengths[i] = length;
  }

  /**
   * Reads a frame into each of the first n buffers. Returns how many have a result; nothing was done
   * with those behind. Where it is less than n, there was no more to read.
   */
  read(fd: number, n: number): number {
    return this.#each(cRead, fd, n);
  }

  /**
   * Writes the first n buffers, a frame each. Returns how many have a result; nothing was done with those
   * behind. Where it is less than n, the device had no more room.
   */
  write(fd: number, n: number): number {
    return this.#each(cWrite, fd, n);
  }

  /** Of the i-th buffer, after a call: bytes, or -errno (never -EAGAIN: there the call has ended). */
  result(i: number): number {
    return this.#results[i]!;
  }

  #each(call: typeof cRead, fd: number, n: number): number {
    const most = Math.min(n, this.#most);
    for (let i = 0; i < most; i++) {
      let result = call(fd, this.#addresses[i], this.#lengths[i]);
      if (result < 0) {
        result = -lastErrno();
        if (result === -ERRNO.EAGAIN) return i;
      }
      this.#results[i] = result;
    }
    return Math.max(most, 0);
  }
}
