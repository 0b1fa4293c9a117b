// Messages between two processes of ours, over a Unix socket: a JSON value each, and descriptors with it.
//
//   u32 length in bytes, little endian, then so much JSON; the descriptors come with the first byte

import { EPOLLIN } from './epoll.ts';
import { close } from './eventfd.ts';
import type { EventLoop } from './loop.ts';
import { MAX_MESSAGE_FDS, recvWithFds, sendWithFds } from './socket.ts';

const LENGTH = 4;
/** Bytes of one message: a switch with its FDB full has 2 MB to tell. */
const MOST = 64 << 20;
/** Milliseconds until a full socket is tried again. */
const RETRY = 1;

export interface ChannelMessage {
  value: unknown;
  /** The receiver's, to close too. */
  fds: number[];
}

export class Channel {
  readonly #fd: number;
  readonly #loop: EventLoop;
  #open = true;

  /** Owns `fd`, a connected non-blocking stream socket, from here on. */
  constructor(fd: number, loop: EventLoop) {
    this.#fd = fd;
    this.#loop = loop;
  }

  /** The fds stay the caller's. Rejects with SystemError where the other end is gone. */
  async send(value: unknown, fds: number[] = []): Promise<void> {
    const text = Buffer.from(JSON.stringify(value));
    const head = Buffer.alloc(LENGTH);
    head.writeUInt32LE(text.length);
    let rest: Uint8Array = Buffer.concat([head, text]);
    while (rest.length > 0) {
      const first = rest.length === text.length + LENGTH;
      const sent = sendWithFds(this.#fd, rest, first ? fds : []);
      if (sent === 'again') await new Promise((done) => setTimeout(done, RETRY));
      else rest = rest.subarray(sent);
    }
  }

  /**
   * The next message; undefined once the other end is closed. Rejects with Error after `ms` without one (default:
   * never), and for what is none.
   */
  async receive(ms = Number.POSITIVE_INFINITY): Promise<ChannelMessage | undefined> {
    const late = performance.now() + ms;
    const fds: number[] = [];
    try {
      const head = await this.#fill(Buffer.alloc(LENGTH), fds, late);
      if (head === undefined) return undefined;
      const length = head.readUInt32LE();
      if (length > MOST) throw new Error(`a message of ${length} bytes is none of ours`);
      const text = await this.#fill(Buffer.alloc(length), fds, late);
      if (text === undefined) return undefined;
      return { value: JSON.parse(text.toString()), fds: fds.splice(0) };
    } finally {
      for (const fd of fds) close(fd);
    }
  }

  async #fill(buffer: Buffer, fds: number[], late: number): Promise<Buffer | undefined> {
    for (let filled = 0; filled < buffer.length; ) {
      const got = recvWithFds(this.#fd, buffer.subarray(filled), MAX_MESSAGE_FDS - fds.length);
      if (got === 'again') {
        await this.#readable(late);
        continue;
      }
      fds.push(...got.fds);
      if (got.truncated) throw new Error('there are not enough descriptors: raise ulimit -n');
      if (got.bytes === 0) return undefined;
      filled += got.bytes;
    }
    return buffer;
  }

  #readable(late: number): Promise<void> {
    return new Promise((done, failed) => {
      const unwatch = this.#loop.watch(this.#fd, EPOLLIN, () => end(done));
      const left = Math.max(0, late - performance.now());
      const timer = Number.isFinite(left)
        ? setTimeout(() => end(() => failed(new Error('it does not answer'))), left)
        : undefined;
      const end = (next: () => void) => {
        clearTimeout(timer);
        unwatch();
        next();
      };
    });
  }

  /** Repeating it does nothing. */
  close(): void {
    if (this.#open) close(this.#fd);
    this.#open = false;
  }
}
