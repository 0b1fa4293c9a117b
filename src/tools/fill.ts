// Frames into TX slots.

import type { NetmapMemory, NetmapRing } from '../netmap/types.ts';
import { MAX_FRAGS, NS_BUF_CHANGED, NS_MOREFRAG } from '../netmap/types.ts';
import type { Source } from './source.ts';

/** Bytes of a virtio-net header in front of a frame. */
export const HEADER = 12;

/** Fills slots from `head` on and moves head and cur past them. */
export interface Filler {
  /** Bytes of all frames so far. */
  bytes: number;
  /** Returns how many frames there was room for, at most `limit`. */
  fill(ring: NetmapRing, limit: number): number;
}

/**
 * The same frame over and over, one slot each: a buffer is written when a slot first has it, and again
 * only if it was swapped. One for each ring.
 */
export class ConstantFiller implements Filler {
  bytes = 0;
  readonly #memory: NetmapMemory;
  readonly #size: number;
  readonly #frame: Uint8Array | undefined;
  readonly #header: boolean;
  /** The buffer that each slot had when it was written. */
  readonly #written: Float64Array;

  /** Without a frame: `size` bytes of whatever the buffers hold. */
  constructor(
    memory: NetmapMemory,
    ring: NetmapRing,
    size: number,
    frame: Uint8Array | undefined,
    header: boolean,
  ) {
    this.#memory = memory;
    this.#size = size;
    this.#frame = frame;
    this.#header = header;
    this.#written = new Float64Array(ring.slots).fill(-1);
  }

  fill(ring: NetmapRing, limit: number): number {
    const size = this.#size;
    const written = this.#written;
    const slots = ring.slots;
    const count = Math.min(limit, ring.space);
    let i = ring.head;
    for (let left = count; left > 0; left--) {
      if (written[i] !== ring.buffer(i) || (ring.flags(i) & NS_BUF_CHANGED) !== 0) {
        this.#write(ring, i);
      }
      // Mostly as it was left: looking is cheaper than writing.
      if (ring.length(i) !== size) ring.setLength(i, size);
      if (ring.flags(i) !== 0) ring.setFlags(i, 0);
      if (++i === slots) i = 0;
    }
    ring.head = i;
    ring.cur = i;
    this.bytes += count * size;
    return count;
  }

  #write(ring: NetmapRing, i: number): void {
    const at = ring.address(i);
    const { bytes } = this.#memory;
    if (this.#header) bytes.fill(0, at - HEADER, at);
    if (this.#frame !== undefined) bytes.set(this.#frame, at);
    this.#written[i] = ring.buffer(i);
  }
}

/** How a frame is cut, as netmap's pkt-gen does: into so many, or into more where a piece is too long. */
export interface Cut {
  fragments: number;
  /** Bytes a slot may have. */
  longest: number;
}

export function pieceSize(size: number, cut: Cut): number {
  return Math.min(Math.max(Math.floor(size / cut.fragments), 1), cut.longest);
}

/** Slots that a frame takes. */
export function pieces(size: number, cut: Cut): number {
  const piece = pieceSize(size, cut);
  // Cut evenly, the last piece takes the remainder with it, unless that is too long.
  const even = cut.fragments * piece <= size && size - (cut.fragments - 1) * piece <= cut.longest;
  return even ? cut.fragments : Math.ceil(size / piece);
}

export function fits(size: number, cut: Cut): boolean {
  return pieces(size, cut) <= MAX_FRAGS;
}

/** Frames that change, or that take several slots: each is copied into its slots. */
export class CopyFiller implements Filler {
  bytes = 0;
  readonly #memory: NetmapMemory;
  readonly #source: Source;
  readonly #cut: Cut;
  readonly #header: boolean;

  constructor(memory: NetmapMemory, source: Source, cut: Cut, header: boolean) {
    this.#memory = memory;
    this.#source = source;
    this.#cut = cut;
    this.#header = header;
  }

  fill(ring: NetmapRing, limit: number): number {
    const source = this.#source;
    const { bytes } = this.#memory;
    let room = ring.space;
    let i = ring.head;
    let count = 0;
    while (count < limit) {
      const { view } = source;
      const slots = pieces(view.length, this.#cut);
      if (slots > room) break;
      room -= slots;
      if (this.#header) {
        const at = ring.address(i);
        bytes.fill(0, at - HEADER, at);
      }
      if (slots === 1) {
        bytes.set(view, ring.address(i));
        ring.setLength(i, view.length);
        ring.setFlags(i, 0);
        if (++i === ring.slots) i = 0;
      } else {
        i = this.#spread(ring, i, view, slots);
      }
      this.bytes += view.length;
      source.advance();
      count++;
    }
    ring.head = i;
    ring.cur = i;
    return count;
  }

  #spread(ring: NetmapRing, first: number, view: Uint8Array, slots: number): number {
    const { bytes } = this.#memory;
    const piece = pieceSize(view.length, this.#cut);
    let i = first;
    for (let n = 0; n < slots; n++) {
      const last = n === slots - 1;
      const part = view.subarray(n * piece, last ? view.length : (n + 1) * piece);
      bytes.set(part, ring.address(i));
      ring.setLength(i, part.length);
      ring.setFlags(i, last ? 0 : NS_MOREFRAG);
      i = ring.next(i);
    }
    return i;
  }
}
