// A guest whose memory is a sparse memfd that the test reads and writes through the file, never
// through the window: what arrives must have gone through the switch's own mappings.
//
// Rings are split, and lie at the start of the memory. Buffers are taken from a set of 2 MiB pages
// spread over all of it; some lie across the edge of two.

import { readSync, writeSync } from 'node:fs';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../../src/abi/virtio.ts';
import { close, dup, memfd } from '../../src/linux/index.ts';
import type { MemoryRegionFd } from '../../src/vhost-user/backend.ts';
import { random } from '../datapath/frames.ts';

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
const PAGE = 2 * MIB;
/** Bytes in which one buffer lies. */
const CELL = 8192;
/** Cells of a page that are given out; the last one reaches over its end. */
const CELLS = 8;
export const UVA = 0x7e00_0000_0000n;
/** Bytes of rings at the start of memory. */
const RINGS = 4 * MIB;

export interface SparseOptions {
  size: number;
  /** Pages over which buffers are spread. Default 64. */
  pages?: number;
  seed?: number;
  ringSize?: number;
  /** Whether one buffer in eight lies across the edge of two pages. Default true. */
  edges?: boolean;
  /** Bytes of the file that belong to no region. */
  skip?: number;
}

/** A piece of a buffer in file offsets. */
export interface Piece {
  offset: number;
  length: number;
}

export class SparseGuest {
  readonly fd: number;
  readonly size: number;
  readonly random: () => number;
  readonly ringSize: number;
  readonly #skip: number;
  readonly #free: number[] = [];

  constructor(options: SparseOptions) {
    const { size, pages = 64, seed = 1, ringSize = 64, edges = true, skip = 0 } = options;
    this.size = size;
    this.ringSize = ringSize;
    this.#skip = skip;
    this.fd = memfd('sparse', size + skip, { seal: true });
    this.random = random(seed);
    const first = Math.ceil((skip + RINGS) / PAGE);
    const count = Math.floor((skip + size) / PAGE) - first - 1;
    const chosen = new Set<number>();
    while (chosen.size < Math.min(pages, count)) chosen.add(first + (this.random() % count));
    for (const page of chosen) {
      for (let cell = 1; cell < CELLS; cell++) this.#free.push(page * PAGE + cell * CELL);
      if (edges) this.#free.push((page + 1) * PAGE - CELL / 2);
    }
  }

  /** As QEMU lays it out: up to 2 GiB from 0, the rest from 4 GiB. */
  regions(): MemoryRegionFd[] {
    const low = Math.min(this.size, 2 * GIB);
    const at = (gpa: bigint, from: number, size: number) => ({
      gpa,
      size: BigInt(size),
      uva: UVA + BigInt(from),
      mmapOffset: BigInt(this.#skip + from),
      fd: dup(this.fd),
    });
    const regions = [at(0n, 0, low)];
    if (this.size > low) regions.push(at(0x1_0000_0000n, low, this.size - low));
    return regions;
  }

  gpa(offset: number): bigint {
    const at = offset - this.#skip;
    return at < 2 * GIB ? BigInt(at) : BigInt(at + 2 * GIB);
  }

  uva(offset: number): bigint {
    return UVA + BigInt(offset - this.#skip);
  }

  /** A buffer of `length` bytes, at most 4096, somewhere; `give` it back. */
  take(length: number): Piece {
    const i = this.random() % this.#free.length;
    const cell = this.#free[i]!;
    this.#free[i] = this.#free.at(-1)!;
    this.#free.pop();
    // A cell over the edge of two pages is used so that the buffer lies over it too.
    const edge = (cell + CELL / 2) % PAGE === 0;
    const shift = edge ? CELL / 2 - 1 - (this.random() % Math.max(1, length - 1)) : 16;
    return { offset: cell + shift, length };
  }

  give({ offset }: Piece): void {
    const edge = Math.ceil(offset / PAGE) * PAGE;
    this.#free.push(edge - offset <= CELL / 2 ? edge - CELL / 2 : Math.floor(offset / CELL) * CELL);
  }

  write(offset: number, bytes: Uint8Array): void {
    writeSync(this.fd, bytes, 0, bytes.length, offset);
  }

  read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    readSync(this.fd, bytes, 0, length, offset);
    return bytes;
  }

  queue(index: number): SparseQueue {
    return new SparseQueue(this, this.#skip + index * 0x4_0000);
  }

  close(): void {
    close(this.fd);
  }
}

interface Chain {
  pieces: Piece[];
  table?: Piece;
}

/** The driver of one split ring, with as many chains as entries: chain `i` begins at slot i * 4. */
export class SparseQueue {
  readonly guest: SparseGuest;
  readonly at: { desc: number; avail: number; used: number };
  readonly #free: number[];
  readonly #chains = new Map<number, Chain>();
  #avail = 0;
  #used = 0;

  constructor(guest: SparseGuest, at: number) {
    this.guest = guest;
    this.at = { desc: at, avail: at + 0x2_0000, used: at + 0x3_0000 };
    this.#free = Array.from({ length: guest.ringSize / 4 }, (_, i) => i * 4);
  }

  /** Ring addresses for SET_VRING_ADDR. */
  address() {
    const { desc, avail, used } = this.at;
    const uva = (offset: number) => this.guest.uva(offset);
    return { flags: 0, desc: uva(desc), avail: uva(avail), used: uva(used), logGpa: 0n };
  }

  get free(): number {
    return this.#free.length;
  }

  get outstanding(): number {
    return this.#chains.size;
  }

  /** Adds a chain of up to 4 pieces, in an indirect table somewhere if asked. */
  add(pieces: Piece[], write: boolean, indirect = false): void {
    const head = this.#free.pop()!;
    const { guest } = this;
    const chain: Chain = { pieces };
    let [at, first] = [this.at.desc + head * 16, head];
    if (indirect) {
      chain.table = guest.take(pieces.length * 16);
      const length = pieces.length * 16;
      guest.write(at, descriptor(guest.gpa(chain.table.offset), length, DESC_F_INDIRECT, 0));
      [at, first] = [chain.table.offset, 0];
    }
    const entries = pieces.map(({ offset, length }, i) => {
      const next = i + 1 < pieces.length ? DESC_F_NEXT : 0;
      const flags = next | (write ? DESC_F_WRITE : 0);
      return descriptor(guest.gpa(offset), length, flags, first + i + 1);
    });
    guest.write(at, Buffer.concat(entries));
    this.#chains.set(head, chain);
    guest.write(this.at.avail + 4 + (this.#avail % guest.ringSize) * 2, u16(head));
    this.#avail = (this.#avail + 1) & 0xffff;
  }

  publish(): void {
    this.guest.write(this.at.avail + 2, u16(this.#avail));
  }

  /** Chains that came back, with the bytes written to each; the pieces are the caller's again. */
  used(): { pieces: Piece[]; length: number }[] {
    const { guest } = this;
    const now = guest.read(this.at.used + 2, 2).readUInt16LE();
    const found: { pieces: Piece[]; length: number }[] = [];
    for (; this.#used !== now; this.#used = (this.#used + 1) & 0xffff) {
      const entry = guest.read(this.at.used + 4 + (this.#used % guest.ringSize) * 8, 8);
      const head = entry.readUInt32LE();
      const chain = this.#chains.get(head);
      if (!chain) throw new Error(`used id ${head} is not outstanding`);
      this.#chains.delete(head);
      this.#free.push(head);
      if (chain.table) guest.give(chain.table);
      found.push({ pieces: chain.pieces, length: entry.readUInt32LE(4) });
    }
    return found;
  }
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function descriptor(addr: bigint, length: number, flags: number, next: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64LE(addr);
  bytes.writeUInt32LE(length, 8);
  bytes.writeUInt16LE(flags, 12);
  bytes.writeUInt16LE(next, 14);
  return bytes;
}
