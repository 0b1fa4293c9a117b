// epoll with a caller-chosen u32 per fd. An Epoll's buffer belongs to it: results of a wait are
// valid until its next wait, and a waitAsync must have returned before any other wait.

import { close } from './eventfd.ts';
import { allocateScratch, checked, interrupted, lastError, libc, permanentScratch } from './ffi.ts';

export const EPOLLIN = 0x001;
export const EPOLLOUT = 0x004;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;
export const EPOLLRDHUP = 0x2000;
/** Edge triggered: bit 31, so a number above 2^31. */
export const EPOLLET = 0x80000000;

const EPOLL_CLOEXEC = 0o2000000;
const CTL_ADD = 1;
const CTL_DEL = 2;
const CTL_MOD = 3;

// struct epoll_event is packed on x86-64 and nowhere else. In 32-bit words:
const STRIDE = process.arch === 'x64' ? 3 : 4;
const DATA = process.arch === 'x64' ? 1 : 2;

const cCreate = libc.func('int epoll_create1(int flags)');
const cCtl = libc.func('int epoll_ctl(int epfd, int op, int fd, uintptr_t event)');
const cWait = libc.func('int epoll_wait(int epfd, uintptr_t events, int max, int timeout)');

const ctlScratch = permanentScratch(128);

export class Epoll {
  readonly fd: number;
  readonly #address: number;
  readonly #words: Uint32Array;
  readonly #max: number;

  /** Throws SystemError. `maxEvents`: how many one wait can return. */
  constructor(maxEvents = 64, fd = checked(cCreate(EPOLL_CLOEXEC), 'epoll_create1')) {
    const { bytes, address } = allocateScratch(maxEvents * STRIDE * 4);
    this.fd = fd;
    this.#address = address;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    this.#max = maxEvents;
  }

  /** An Epoll over an fd made elsewhere, on another thread say; close() it on one side only. */
  static adopt(fd: number, maxEvents = 64): Epoll {
    return new Epoll(maxEvents, fd);
  }

  #control(op: number, fd: number, events: number, data: number): void {
    ctlScratch.view.setUint32(0, events >>> 0, true);
    ctlScratch.view.setUint32(DATA * 4, data >>> 0, true);
    ctlScratch.view.setUint32(DATA * 4 + 4, 0, true);
    checked(cCtl(this.fd, op, fd, ctlScratch.address), 'epoll_ctl', `fd ${fd}`);
  }

  /** Watches fd for EPOLL bits; `data` (u32) comes back with its events. Throws SystemError. */
  add(fd: number, events: number, data: number): void {
    this.#control(CTL_ADD, fd, events, data);
  }

  modify(fd: number, events: number, data: number): void {
    this.#control(CTL_MOD, fd, events, data);
  }

  /** Call it before the fd is closed: a duplicate elsewhere keeps a closed number watched. */
  remove(fd: number): void {
    this.#control(CTL_DEL, fd, 0, 0);
  }

  /**
   * Waits up to `timeoutMs` (0: not at all, -1: for ever) and returns the number of events, to be
   * read with data(i) and events(i). Zero also when a signal interrupted it. Allocates nothing.
   */
  wait(timeoutMs: number): number {
    const count = cWait(this.fd, this.#address, this.#max, timeoutMs);
    return count >= 0 ? count : this.#waitFailed();
  }

  #waitFailed(): number {
    if (interrupted()) return 0;
    throw lastError('epoll_wait', `fd ${this.fd}`);
  }

  /** The u32 given to add() for the i-th event of the last wait. */
  data(i: number): number {
    return this.#words[i * STRIDE + DATA]!;
  }

  /** EPOLL bits of the i-th event of the last wait. */
  events(i: number): number {
    return this.#words[i * STRIDE]!;
  }

  /**
   * As wait(), on a thread of libuv's pool, which it occupies until it returns (the pool has four;
   * the process does not end before it). Wake it through an eventfd that it watches.
   */
  waitAsync(timeoutMs: number): Promise<number> {
    return new Promise((resolve, reject) => {
      cWait.async(
        this.fd,
        this.#address,
        this.#max,
        timeoutMs,
        (error: Error | null, count: number) => {
          if (error) reject(error);
          else if (count >= 0) resolve(count);
          // errno belongs to the pool's thread: ask again on this one to learn it.
          else this.#retry(resolve, reject);
        },
      );
    });
  }

  #retry(resolve: (count: number) => void, reject: (error: unknown) => void): void {
    try {
      resolve(this.wait(0));
    } catch (error) {
      reject(error);
    }
  }

  /** Closes the epoll fd; no wait may be under way. */
  close(): void {
    close(this.fd);
  }
}
