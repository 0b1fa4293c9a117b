// Whole frames read from or written to a character device, many at a call: a TAP has no call of its own
// for more than one (readv and writev scatter a single frame).
//
// Kernel AIO does it: on a non-blocking device each request is carried out within io_submit(2), one
// that would have to wait ends with EAGAIN, and io_getevents(2) has all the results at once.

import {
  EVENT_SIZE,
  IO_DESTROY,
  IO_GET_EVENTS,
  IO_SUBMIT,
  IOCB_SIZE,
  setupContext,
} from './aio-context.ts';
import { ERRNO } from './errors.ts';
import {
  allocateScratch,
  cSyscall,
  interrupted,
  lastErrno,
  lastError,
  libc,
  type Scratch,
} from './ffi.ts';

/** Most frames a call may move. */
export const MAX_BATCH = 64;

const cRead = libc.func('intptr_t read(int fd, uintptr_t buffer, size_t length)');
const cWrite = libc.func('intptr_t write(int fd, uintptr_t buffer, size_t length)');

// struct iocb and struct io_event (linux/aio_abi.h), in 32-bit words; the rest stays zero.
const IOCB_WORDS = IOCB_SIZE / 4;
const IOCB_DATA = 0; // u64: number of the request
const IOCB_OPCODE = 4; // u16, and 16 bits of priority
const IOCB_FILE = 5;
const IOCB_BUFFER = 6; // u64
const IOCB_LENGTH = 8; // u64
const EVENT_WORDS = EVENT_SIZE / 4;
const EVENT_DATA = 0; // u64: as in the iocb
const EVENT_RESULT = 4; // i64

const READ = 0;
const WRITE = 1;

const AGAIN = -ERRNO.EAGAIN;

/** Requests of the first io_submit of a read; the next ones are twice as many each. */
const FIRST_READS = 4;

/**
 * Reads or writes of whole frames, many at a call, on a non-blocking character device. A frame longer
 * than its buffer is cut off without a word by the device. For the thread that made it; close() it, or
 * what the kernel keeps for it stays until the process ends.
 */
export class Batch {
  /** Whether kernel AIO is used: else frames cost a call each. */
  readonly aio: boolean;
  readonly #base: number;
  readonly #most: number;
  #context = 0;
  // Scratch: iocbs, pointers to them, events.
  readonly #scratch: Scratch;
  readonly #words: Uint32Array;
  readonly #pointers: number;
  readonly #events: number;
  readonly #addresses: Float64Array;
  readonly #results: Int32Array;
  // What the first `prepared` iocbs are made for.
  #fd = -1;
  #opcode = READ;
  #prepared = 0;

  /**
   * For up to `most` (1-64) frames a call, in the memory at address `base` (addressOf), which must stay
   * where it is. Without `aio`, or where the kernel has none to give, it is read(2) and write(2).
   */
  constructor(base: number, most = MAX_BATCH, { aio = true } = {}) {
    if (!(Number.isInteger(most) && most >= 1 && most <= MAX_BATCH)) {
      throw new RangeError(`a batch of ${most} frames: it may be 1 to ${MAX_BATCH}`);
    }
    this.#base = base;
    this.#most = most;
    this.#scratch = allocateScratch(most * (IOCB_SIZE + 8 + EVENT_SIZE));
    const { bytes, view, address } = this.#scratch;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
    this.#pointers = address + most * IOCB_SIZE;
    this.#events = this.#pointers + most * 8;
    this.#addresses = new Float64Array(most);
    this.#results = new Int32Array(most);
    for (let i = 0; i < most; i++) {
      this.#words[i * IOCB_WORDS + IOCB_DATA] = i;
      view.setBigUint64(most * IOCB_SIZE + i * 8, BigInt(address + i * IOCB_SIZE), true);
    }
    try {
      if (aio) this.#context = setupContext(most);
    } catch {
      // A seccomp filter (ENOSYS, EPERM), or fs.aio-max-nr.
    }
    this.aio = this.#context !== 0;
  }

  /** The i-th buffer of the calls to come: offset from base, bytes. Throws RangeError for no such i. */
  set(i: number, offset: number, length: number): void {
    if (!(i >= 0 && i < this.#most)) throw new RangeError(`buffer ${i} of ${this.#most}`);
    const address = this.#base + offset;
    this.#addresses[i] = address;
    const at = i * IOCB_WORDS;
    this.#words[at + IOCB_BUFFER] = address;
    this.#words[at + IOCB_BUFFER + 1] = address / 2 ** 32;
    this.#words[at + IOCB_LENGTH] = length;
  }

  /**
   * Reads a frame into each of the first n buffers. Returns how many have a result; nothing was done
   * with those behind. Where it is less than n, there was no more to read.
   */
  read(fd: number, n: number): number {
    // Most looks find nothing: read(2) says so for half of what AIO takes.
    const most = Math.min(n, this.#most);
    if (most < 1 || !this.#one(cRead, fd, 0)) return 0;
    if (!this.aio) return this.#each(cRead, fd, 1, most);
    let done = 1;
    // Each empty request costs, too: so many at once as there may be, by what was there so far.
    for (let step = FIRST_READS; done < most && this.#results[done - 1]! >= 0; step *= 2) {
      done = this.#submit(READ, fd, done, Math.min(most, done + step));
    }
    return this.#trimmed(done);
  }

  /**
   * Writes the first n buffers, a frame each. Returns how many have a result; nothing was done with those
   * behind. Where it is less than n, the device took no more.
   */
  write(fd: number, n: number): number {
    const most = Math.min(n, this.#most);
    if (!this.aio || most < 2) return this.#each(cWrite, fd, 0, most);
    return this.#trimmed(this.#submit(WRITE, fd, 0, most));
  }

  /**
   * Of the i-th buffer, after a call: bytes, or -errno. -EAGAIN only before others that have a result: a
   * frame came (or found room) between the two.
   */
  result(i: number): number {
    return this.#results[i]!;
  }

  /** Gives back what the kernel keeps. Repeating it does nothing. */
  close(): void {
    if (this.#context !== 0) cSyscall(IO_DESTROY, this.#context, 0, 0, 0, 0);
    this.#context = 0;
  }

  /** The i-th request by itself; false where it would have to wait. */
  #one(call: typeof cRead, fd: number, i: number): boolean {
    const result = call(fd, this.#addresses[i], this.#words[i * IOCB_WORDS + IOCB_LENGTH]);
    this.#results[i] = result < 0 ? -lastErrno() : result;
    return this.#results[i] !== AGAIN;
  }

  #each(call: typeof cRead, fd: number, from: number, to: number): number {
    let i = from;
    while (i < to && this.#one(call, fd, i)) i++;
    return i;
  }

  /** Runs requests `from` to `to` - 1 by AIO; returns up to where there are results. */
  #submit(opcode: number, fd: number, from: number, to: number): number {
    this.#prepare(opcode, fd, to);
    const first = this.#pointers + from * 8;
    const taken = cSyscall(IO_SUBMIT, this.#context, to - from, first, 0, 0);
    if (taken <= 0) {
      this.#results[from] = -lastErrno();
      return from + 1;
    }
    // Without a timeout: they are all there, and the kernel would write to the buffers of any that were not.
    for (let left = taken; left > 0; ) {
      const got = cSyscall(IO_GET_EVENTS, this.#context, left, left, this.#events, 0);
      if (got < 0 && !interrupted()) throw lastError('io_getevents');
      for (let i = 0; i < got; i++) this.#takeEvent(i);
      left -= Math.max(got, 0);
    }
    return from + taken;
  }

  #takeEvent(i: number): void {
    const at = ((this.#events - this.#scratch.address) >> 2) + i * EVENT_WORDS;
    this.#results[this.#words[at + EVENT_DATA]!] = this.#words[at + EVENT_RESULT]!;
  }

  #prepare(opcode: number, fd: number, n: number): void {
    if (fd !== this.#fd || opcode !== this.#opcode) this.#prepared = 0;
    this.#fd = fd;
    this.#opcode = opcode;
    for (; this.#prepared < n; this.#prepared++) {
      const at = this.#prepared * IOCB_WORDS;
      this.#words[at + IOCB_OPCODE] = opcode;
      this.#words[at + IOCB_FILE] = fd;
    }
  }

  #trimmed(count: number): number {
    let n = count;
    while (n > 0 && this.#results[n - 1] === AGAIN) n--;
    return n;
  }
}
