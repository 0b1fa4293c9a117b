// The window: the part of linear memory onto which guest RAM is mapped.
//
//   WINDOW_BASE  whole   regions that fit, mapped once; from 2 MiB boundary to 2 MiB boundary
//                pinned  views of the rings of paged regions: those must stay where they are
//                slots   2 MiB each: pages of paged regions come and go (pager.ts)
//   WINDOW_END
//
// Boundaries are those of the *address*: linear memory itself is only 64 KiB aligned.

import { FAULTS_BASE, MEMORY_PAGES, PAGE, SLOT, WINDOW_BASE } from '../abi/layout.ts';
import { addressOf, guardFaults, mmapAnonymousFixed, mmapFixed } from '../linux/index.ts';
import type { Control } from './control.ts';
import { Faults } from './faults.ts';
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

/** Whether the page at `at` is one that the mapping is seen in. */
export function covers({ linear, size }: Mapping, at: number): boolean {
  return at + PAGE > linear && at < linear + size;
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

/** Where mappings may lie, and the unit in which they take up room. */
interface Place {
  spans: Spans;
  /** Bytes. What is whole has its 2 MiB to itself: a fault replaces as much (`guard`). */
  piece: number;
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
  /** Pages that went away. */
  readonly faults: Faults;
  readonly #base: number;
  readonly #whole: Place;
  readonly #pinned: Place;
  /** Linear addresses: where `whole` begins, and the two ends of what is pinned. */
  readonly #bounds: { start: number; pinned: number; slots: number; end: number };

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
    this.faults = new Faults(control);
    this.pager = new Pager(control, this.#base, first, slots, this.faults);
    this.#pinned = { spans: new Spans(pinned, first), piece: PAGE };
    this.#whole = { spans: new Spans(start, start + whole), piece: SLOT };
    this.#bounds = { start, pinned, slots: first, end };
  }

  /**
   * From here on memory that goes away is zeros, `faults` names its pages, and eventfd `fd` is signalled.
   * Returns what ends that, to be called while nothing is mapped. Throws as guardFaults does.
   */
  guard(fd: number): () => void {
    const { start, pinned, slots, end } = this.#bounds;
    return guardFaults({
      start: this.#base + start,
      length: end - start,
      fine: { start: this.#base + pinned, length: slots - pinned },
      origin: this.#base,
      faults: this.#base + FAULTS_BASE,
      fd,
    });
  }

  /** Bytes in the largest free span for a whole region. */
  largestFree(): number {
    return this.#whole.spans.largest();
  }

  /** Bytes in the largest free span for rings of paged regions. */
  largestPinned(): number {
    return this.#pinned.spans.largest();
  }

  /**
   * Maps `size` bytes of `fd` from `offset` on, shared. `block` is the file's page size (st_blksize
   * for huge pages): offset, length and address of the mapping are multiples of it, as mmap wants.
   * Throws WindowFull or SystemError; then nothing is mapped.
   */
  map(fd: number, offset: number, size: number, block: number): Mapping {
    return this.#map([this.#whole], fd, offset, size, block);
  }

  /**
   * As `map`, for the few pages of a ring: they have room of their own, so that a window full of
   * guests does not keep another's rings from running.
   */
  pin(fd: number, offset: number, size: number, block: number): Mapping {
    return this.#map([this.#pinned, this.#whole], fd, offset, size, block);
  }

  /** Takes the room from the first of `places` that has it. */
  #map(places: Place[], fd: number, offset: number, size: number, block: number): Mapping {
    const slack = offset % block;
    const length = roundUp(size + slack, block);
    for (const { spans, piece } of places) {
      const held = roundUp(length, piece);
      const start = spans.take(held, Math.max(block, piece), this.#base);
      if (start === undefined) continue;
      const clear = () => {
        mmapAnonymousFixed(this.#base + start, held);
        this.faults.clear(start, held);
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
    throw new WindowFull(length, Math.max(...places.map(({ spans }) => spans.largest())));
  }
}
