// The window: the part of linear memory onto which guest RAM is mapped, in slots of 2 MiB.

import { MEMORY_PAGES, SLOT, WINDOW_BASE } from '../abi/layout.ts';
import { addressOf, mmapAnonymousFixed, mmapFixed } from '../linux/index.ts';
import type { Control } from './control.ts';
import { roundUp, Spans } from './spans.ts';

export const WINDOW_END = MEMORY_PAGES * 65536;

/** Guest memory in the window. `linear` is where file offset `offset` is seen. */
export interface Mapping {
  readonly linear: number;
  readonly size: number;
  unmap(): void;
}

/** There is no room for a mapping; sizes in bytes. */
export class WindowFull extends Error {
  readonly wanted: number;
  readonly largest: number;

  constructor(wanted: number, largest: number) {
    super(`${wanted} bytes of guest memory do not fit into the window`);
    this.wanted = wanted;
    this.largest = largest;
  }
}

export class Window {
  readonly #base: number;
  readonly #spans = new Spans(WINDOW_BASE, WINDOW_END);

  constructor(control: Control) {
    this.#base = addressOf(control.bytes.subarray(0, 65536));
  }

  /** Bytes in the largest free span. */
  largestFree(): number {
    return this.#spans.largest();
  }

  /**
   * Maps `size` bytes of `fd` from `offset` on, shared. `block` is the file's page size (st_blksize
   * for huge pages): offset, length and address of the mapping are multiples of it, as mmap wants.
   * Throws WindowFull or SystemError; then nothing is mapped.
   */
  map(fd: number, offset: number, size: number, block: number): Mapping {
    const slack = offset % block;
    const length = roundUp(size + slack, block);
    const held = roundUp(length, SLOT);
    // Slots stand where the *address* is aligned; linear memory itself need not be.
    const start = this.#spans.take(held, Math.max(block, SLOT), this.#base);
    if (start === undefined) throw new WindowFull(length, this.largestFree());
    try {
      mmapFixed(this.#base + start, length, fd, offset - slack);
    } catch (error) {
      this.#spans.give(start, held);
      throw error;
    }
    return {
      linear: start + slack,
      size,
      unmap: () => {
        mmapAnonymousFixed(this.#base + start, length);
        this.#spans.give(start, held);
      },
    };
  }
}
