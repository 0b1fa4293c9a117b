// The dirty log that a front end shares while its guest migrates (vhost-user SET_LOG_BASE), as it is mapped into
// the window. Workers mark pages in it (datapath/log.ts); what main itself writes into a guest is
// marked here.

import { PAGE } from '../abi/layout.ts';
import { fileShape, sealAgainstShrinking } from '../linux/index.ts';
import type { Control } from './control.ts';
import { covers, type Mapping, type Window } from './window.ts';

/** A log that cannot be; the message is one sentence. */
export class BadLog extends Error {}

/** Bytes of the bitmap, and where it starts in its file. */
export interface LogArea {
  size: bigint;
  offset: bigint;
}

const LIMIT = 1n << 64n;
const PAGE_BITS = 12n;
/** A bitmap larger than this stands for more than 4 TiB of guest: it would take most of the window. */
const MOST = 128n << 20n;

export class DirtyLog {
  /** What PORT_LOG says of it. */
  readonly word: bigint;
  readonly #bits: Uint8Array<ArrayBufferLike>;
  readonly #mapping: Mapping;

  /**
   * Maps `area` of `fd` (which stays the caller's). Throws BadLog, with nothing mapped, when it is empty, wraps, is
   * larger than its file, or cannot be mapped.
   */
  constructor(control: Control, window: Window, area: LogArea, fd: number) {
    const { size, offset } = area;
    const name = `a dirty log of ${size} bytes at offset ${offset}`;
    if (size === 0n) throw new BadLog('the dirty log is empty');
    if (offset + size > LIMIT)
      throw new BadLog(`${name} wraps around the end of the address space`);
    if (size > MOST)
      throw new BadLog(`${name} is more than the ${MOST} bytes that 4 TiB of guest need`);
    sealAgainstShrinking(fd);
    const file = fileShape(fd);
    if (offset + size > BigInt(file.size)) {
      throw new BadLog(`${name} ends past its file of ${file.size} bytes`);
    }
    const block = Math.max(file.blockSize, PAGE);
    try {
      this.#mapping = window.pin(fd, Number(offset), Number(size), block);
    } catch (error) {
      throw new BadLog(`${name} cannot be mapped: ${(error as Error).message}`);
    }
    const { linear } = this.#mapping;
    this.#bits = control.bytes.subarray(linear, linear + Number(size));
    this.word = BigInt(linear) | ((size * 8n) << 32n);
  }

  /** Whether there is a bit for each page of `size` bytes from `gpa` on. */
  covers(gpa: bigint, size: number | bigint): boolean {
    const pages = BigInt(this.#bits.length) * 8n;
    return (gpa + BigInt(size) + BigInt(PAGE - 1)) >> PAGE_BITS <= pages;
  }

  /** Marks `size` bytes, at least 1, from `gpa` on, which it covers. */
  mark(gpa: bigint, size: number): void {
    const last = Number((gpa + BigInt(size - 1)) >> PAGE_BITS);
    for (let page = Number(gpa >> PAGE_BITS); page <= last; page++) {
      Atomics.or(this.#bits, page >>> 3, 1 << (page & 7));
    }
  }

  /** Whether the page of linear memory at `at` is one of its own. */
  shows(at: number): boolean {
    return covers(this.#mapping, at);
  }

  /** Quiesced. */
  unmap(): void {
    this.#mapping.unmap();
  }
}
