// One port's memory table: guest-physical and front-end virtual addresses, and where they are.

import {
  MAX_REGIONS,
  PORT_BASE,
  PORT_REGIONS,
  PORT_STRIDE,
  REGION_BASE,
  REGION_GPA,
  REGION_LINEAR,
  REGION_SIZE,
  REGION_STRIDE,
} from '../abi/layout.ts';
import { fileShape } from '../linux/index.ts';
import type { Control } from './control.ts';
import { type Mapping, type Window, WindowFull } from './window.ts';

/** Where a region lies for the guest (gpa), for its front end (uva), and in the file; bytes. */
export interface Region {
  gpa: bigint;
  size: bigint;
  uva: bigint;
  mmapOffset: bigint;
}

interface Mapped extends Region {
  mapping: Mapping;
}

const PAGE_MASK = 0xfffn;
const LIMIT = 1n << 64n;

/** A region that cannot be; the message is a clause that names it. */
export class BadRegion extends Error {}

function describe({ gpa, size }: Region): string {
  return `memory region at GPA 0x${gpa.toString(16)} (${size} bytes)`;
}

function overlaps(a: bigint, aSize: bigint, b: bigint, bSize: bigint): boolean {
  return a < b + bSize && b < a + aSize;
}

export function sameRegion(a: Region, b: Region): boolean {
  return a.gpa === b.gpa && a.uva === b.uva && a.size === b.size;
}

export class RegionTable {
  readonly #control: Control;
  readonly #window: Window;
  readonly #port: number;
  #regions: Mapped[] = [];

  constructor(control: Control, window: Window, port: number) {
    this.#control = control;
    this.#window = window;
    this.#port = port;
  }

  /** Bytes mapped. */
  get bytes(): number {
    return this.#regions.reduce((sum, { size }) => sum + Number(size), 0);
  }

  has(region: Region): boolean {
    return this.#regions.some((other) => sameRegion(other, region));
  }

  /**
   * Maps a region of `fd` (which stays the caller's). Throws BadRegion, with nothing changed, when
   * it is empty, wraps, is not page aligned, overlaps another, or exceeds the file or the window.
   */
  add(region: Region, fd: number): void {
    const name = describe(region);
    const { gpa, size, uva, mmapOffset } = region;
    if (this.#regions.length >= MAX_REGIONS) {
      throw new BadRegion(`${name} is one more than the ${MAX_REGIONS} a port may have`);
    }
    if (size === 0n) throw new BadRegion(`${name} is empty`);
    if (gpa + size > LIMIT || uva + size > LIMIT || mmapOffset + size > LIMIT) {
      throw new BadRegion(`${name} wraps around the end of the address space`);
    }
    if ((gpa | uva | size | mmapOffset) & PAGE_MASK) {
      throw new BadRegion(`${name} is not aligned to 4096 bytes`);
    }
    const other = this.#regions.find(
      (r) => overlaps(r.gpa, r.size, gpa, size) || overlaps(r.uva, r.size, uva, size),
    );
    if (other) throw new BadRegion(`${name} overlaps the ${describe(other)}`);
    const file = fileShape(fd);
    if (mmapOffset + size > BigInt(file.size)) {
      throw new BadRegion(`${name} ends past its file of ${file.size} bytes`);
    }
    try {
      const mapping = this.#window.map(fd, Number(mmapOffset), Number(size), file.blockSize);
      this.#regions.push({ gpa, size, uva, mmapOffset, mapping });
    } catch (error) {
      if (!(error instanceof WindowFull)) {
        throw new BadRegion(`${name} cannot be mapped: ${(error as Error).message}`);
      }
      const left = Math.floor(error.largest / 2 ** 20);
      throw new BadRegion(
        `${name} does not fit: ${left} MiB of the window are free in one piece; ` +
          'give the guests of this switch less memory, or start a second switch',
      );
    }
  }

  /** Unmaps the region with the same gpa, uva and size; false when there is none. Quiesced. */
  remove(region: Region): boolean {
    const i = this.#regions.findIndex((other) => sameRegion(other, region));
    if (i < 0) return false;
    this.#regions.splice(i, 1)[0]!.mapping.unmap();
    return true;
  }

  /** Unmaps all. Quiesced. */
  clear(): void {
    for (const { mapping } of this.#regions.splice(0)) mapping.unmap();
  }

  /** Writes the table to where the datapath reads it. Quiesced. */
  publish(): void {
    const base = REGION_BASE + this.#port * MAX_REGIONS * REGION_STRIDE;
    // The largest region first: it answers nearly every look-up.
    const sorted = [...this.#regions].sort((a, b) => (a.size < b.size ? 1 : -1));
    for (const [i, { gpa, size, mapping }] of sorted.entries()) {
      const at = base + i * REGION_STRIDE;
      this.#control.set64(at + REGION_GPA, gpa);
      this.#control.set64(at + REGION_SIZE, size);
      this.#control.set(at + REGION_LINEAR, mapping.linear);
    }
    this.#control.set(PORT_BASE + this.#port * PORT_STRIDE + PORT_REGIONS, sorted.length);
  }

  /** Linear address of `length` bytes at front-end address `uva`, all in one region, or 0. */
  fromUva(uva: bigint, length: number): number {
    const found = this.#regions.find((r) => uva >= r.uva && uva + BigInt(length) <= r.uva + r.size);
    return found ? found.mapping.linear + Number(uva - found.uva) : 0;
  }
}
