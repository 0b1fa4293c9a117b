// The window: the part of linear memory onto which guest RAM is mapped.
//
//   WINDOW_BASE  whole   regions that fit, mapped once; from 2 MiB boundary to 2 MiB boundary
//                pinned  views of the rings of paged regions: those must stay where they are
//                slots   2 MiB each: pages of paged regions come and go (pager.ts)
//   WINDOW_END
//
// Boundaries are those of the *address*: linear memory itself is only 64 KiB aligned.

import { MEMORY_PAGES, PAGE, SLOT, WINDOW_BASE } from '../abi/layout.ts';
import { addressOf, mmapAnonymousFixed, mmapFixed } from '../linux/index.ts';
import type { Control } from './control.ts';
import { Pager } from './pager.ts';
import { roundUp, Spans } from './spans.ts';

export const WINDOW_END = MEMORY_PAGES * 65536;

const PINNED = 32 * SLOT;
const SLOTS = 512;

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

/** For tests: a window that is soon full. */
export interface WindowOptions {
  /** Bytes for regions that are mapped whole, at most what is left. Default: that. */
  whole?: number;
  /** Slots for pages, 8-1024. Default 512: 1 GiB. */
  slots?: number;
}

export class Window {
  /** Pages of what does not fit. */
  readonly pager: Pager;
  readonly #base: number;
  readonly #whole: Spans;
  readonly #pinned: Spans;

  constructor(control: Control, options: WindowOptions = {}) {
    this.#base = addressOf(control.bytes.subarray(0, 65536));
    const { slots = SLOTS } = options;
    if (!(Number.isInteger(slots) && slots >= 8 && slots <= 1024)) {
      throw new RangeError(`window: ${slots} slots; there must be 8 to 1024`);
    }
    const end = WINDOW_END - ((this.#base + WINDOW_END) % SLOT);
    const first = end - slots * SLOT;
    const pinned = first - PINNED;
    const start = roundUp(this.#base + WINDOW_BASE, SLOT) - this.#base;
    const whole = Math.min(options.whole ?? pinned - start, pinned - start);
    this.pager = new Pager(control, this.#base, first, slots);
    this.#pinned = new Spans(pinned, first);
    this.#whole = new Spans(start, start + whole);
  }

  /** Bytes in the largest free span for a whole region. */
  largestFree(): number {
    return this.#whole.largest();
  }

  /** Bytes in the largest free span for rings of paged regions. */
  largestPinned(): number {
    return this.#pinned.largest();
  }

  /**
   * Maps `size` bytes of `fd` from `offset` on, shared. `block` is the file's page size (st_blksize
   * for huge pages): offset, length and address of the mapping are multiples of it, as mmap wants.
   * Throws WindowFull or SystemError; then nothing is mapped.
   */
  map(fd: number, offset: number, size: number, block: number): Mapping {
    return this.#map([this.#whole], fd, offset, size, block, SLOT);
  }

  /**
   * As `map`, for the few pages of a ring: they have room of their own, so that a window full of
   * guests does not keep another's rings from running.
   */
  pin(fd: number, offset: number, size: number, block: number): Mapping {
    return this.#map([this.#pinned, this.#whole], fd, offset, size, block, PAGE);
  }

  /** Takes the room from the first of `places` that has it, in pieces of `piece` bytes. */
  #map(
    places: Spans[],
    fd: number,
    offset: number,
    size: number,
    block: number,
    piece: number,
  ): Mapping {
    const slack = offset % block;
    const length = roundUp(size + slack, block);
    const held = roundUp(length, piece);
    for (const spans of places) {
      const start = spans.take(held, Math.max(block, piece), this.#base);
      if (start === undefined) continue;
      const clear = () => {
        mmapAnonymousFixed(this.#base + start, length);
        spans.give(start, held);
      };
      try {
        mmapFixed(this.#base + start, length, fd, offset - slack);
      } catch (error) {
        // The kernel may have unmapped first: leave no hole for others to settle in.
        clear();
        throw error;
      }
      return { linear: start + slack, size, unmap: clear };
    }
    throw new WindowFull(length, Math.max(...places.map((spans) => spans.largest())));
  }
}
