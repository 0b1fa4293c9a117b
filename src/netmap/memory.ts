// Memory for netmap ports: one memfd with rings and buffers, which the devices at the other ends map too.
//
//   0       rings     virtqueues with their indirect tables, shared headers; given out in pages
//   rings   buffers   bufferSize bytes each
//
// Devices see it from BASE on, as guest-physical and as front-end address. It is sparse: what is not
// used costs nothing.

import { PAGE } from '../abi/layout.ts';
import { close, memfd } from '../linux/index.ts';
import { roundUp, Spans } from '../memory/spans.ts';
import type { Mapping } from '../memory/window.ts';
import type { MemoryRegionFd } from '../vhost-user/index.ts';
import type { Home } from './home.ts';
import { NetmapError, type NetmapMemory } from './types.ts';

/** GPA and front-end address of its first byte. Not 0: DPDK takes that for none. */
export const BASE = 0x1_0000_0000n;

export interface MemoryShape {
  /** Bytes of a buffer. */
  bufferSize: number;
  buffers: number;
  /** Bytes for rings. */
  rings: number;
}

const BUFFER_SIZE = 2048;

/** For ports opened one by one: 32768 buffers, and rings for 8 pairs of 1024 entries and more. */
export function defaultShape(bufferSize = BUFFER_SIZE): MemoryShape {
  const buffers = Math.min(32768, Math.floor((256 * 2 ** 20) / bufferSize));
  return { bufferSize, buffers, rings: 64 * 2 ** 20 };
}

export class BufferMemory implements NetmapMemory {
  readonly home: Home;
  readonly bufferSize: number;
  readonly buffers: number;
  /** Linear address of the memfd's first byte, and of buffer 0. */
  readonly linear: number;
  readonly first: number;
  readonly #size: number;
  readonly #fd: number;
  readonly #mapping: Mapping;
  readonly #rings: Spans;
  /** Buffers that nobody has; the last is given out first. */
  readonly #free: number[];
  /** By buffer: 1 while somebody has it. */
  readonly #taken: Uint8Array;
  #open = true;

  /** Throws NetmapError `memory` when the process has no room for it. */
  constructor(home: Home, shape: MemoryShape = defaultShape()) {
    const { bufferSize, buffers } = shape;
    if (!(bufferSize % 64 === 0 && bufferSize >= 128 && bufferSize <= 131072)) {
      throw new NetmapError(
        'option',
        `bufferSize is ${bufferSize}; it must be a multiple of 64 from 128 to 131072 bytes`,
      );
    }
    const most = Math.floor(2 ** 31 / bufferSize);
    if (!(Number.isInteger(buffers) && buffers >= 1 && buffers <= most)) {
      throw new NetmapError('option', `buffers is ${buffers}; it must be 1 to ${most}`);
    }
    const rings = roundUp(shape.rings, PAGE);
    this.home = home;
    this.bufferSize = bufferSize;
    this.buffers = buffers;
    this.#size = roundUp(rings + buffers * bufferSize, PAGE);
    this.#fd = memfd('vhop-netmap', this.#size, { seal: true });
    try {
      this.#mapping = home.window.map(this.#fd, 0, this.#size, PAGE);
    } catch (error) {
      close(this.#fd);
      throw new NetmapError(
        'memory',
        `${this.#size >> 20} MiB of buffers do not fit: ${(error as Error).message}`,
      );
    }
    this.linear = this.#mapping.linear;
    this.first = this.linear + rings;
    this.#rings = new Spans(0, rings);
    this.#free = Array.from({ length: buffers }, (_, i) => buffers - 1 - i);
    this.#taken = new Uint8Array(buffers);
  }

  get bytes(): Uint8Array {
    return this.home.control.bytes;
  }

  addressOf(index: number): number {
    return this.first + index * this.bufferSize;
  }

  /** Buffers that nobody has. */
  get free(): number {
    return this.#free.length;
  }

  takeBuffers(count: number): number[] {
    if (count > this.#free.length) {
      throw new NetmapError(
        'memory',
        `${count} buffers are wanted and ${this.#free.length} of ${this.buffers} are free: ` +
          'close a port, or use smaller rings',
      );
    }
    const given = this.#free.splice(this.#free.length - count).reverse();
    for (const index of given) this.#taken[index] = 1;
    return given;
  }

  giveBuffers(indices: readonly number[]): void {
    const wrong = indices.find((index) => this.#taken[index] !== 1);
    if (wrong !== undefined || new Set(indices).size < indices.length) {
      throw new NetmapError('memory', `buffer ${wrong ?? indices} was not taken, or given twice`);
    }
    this.reclaim(indices);
  }

  /** As giveBuffers, of slots that an application wrote: what names no buffer of anybody's is passed over. */
  reclaim(indices: readonly number[]): void {
    for (const index of indices) {
      if (this.#taken[index] !== 1) continue;
      this.#taken[index] = 0;
      this.#free.push(index);
    }
  }

  /** Bytes for a queue, page aligned; from the memory's first byte. */
  takeRing(length: number): number {
    const at = this.#rings.take(roundUp(length, PAGE), PAGE);
    if (at === undefined) {
      throw new NetmapError(
        'memory',
        'no room is left for rings: close a port, or use smaller rings',
      );
    }
    return at;
  }

  giveRing(at: number, length: number): void {
    this.#rings.give(at, roundUp(length, PAGE));
  }

  /** What a device is to map; the fd stays ours. */
  region(): MemoryRegionFd {
    return { gpa: BASE, uva: BASE, size: BigInt(this.#size), mmapOffset: 0n, fd: this.#fd };
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#mapping.unmap();
    close(this.#fd);
  }
}
