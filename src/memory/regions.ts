// One port's memory table: guest-physical and front-end virtual addresses, and where they are.

import {
  MAX_REGIONS,
  PAGE,
  PORT_BASE,
  PORT_PAGED,
  PORT_REGIONS,
  PORT_STRIDE,
  REGION_BASE,
  REGION_FD,
  REGION_GPA,
  REGION_LINEAR,
  REGION_PAGE,
  REGION_SIZE,
  REGION_SKEW,
  REGION_STRIDE,
  REGION_TABLE,
  SLOT,
} from '../abi/layout.ts';
import { close, dup, fileShape, sealAgainstShrinking } from '../linux/index.ts';
import type { Control } from './control.ts';
import type { Pages } from './pager.ts';
import {
  BadRegion,
  describe,
  type Held,
  loss,
  overlaps,
  type Region,
  sameRegion,
  tooLarge,
} from './region.ts';
import { covers, type Mapping, type Window, WindowFull } from './window.ts';

export { BadRegion, type Region } from './region.ts';

/** Mapped whole. */
interface Whole extends Held {
  mapping: Mapping;
  /** Its file, for a process that takes the port over. */
  fd: number;
}

/** Mapped page by page. */
interface Paged extends Held {
  pages: Pages;
}

/** A part of a ring in a paged region, mapped for as long as the ring has it there. */
interface View {
  region: Paged;
  uva: bigint;
  length: number;
  mapping: Mapping;
}

const PAGE_MASK = 0xfffn;
const LIMIT = 1n << 64n;

export interface RegionOptions {
  /** False: a region is mapped whole or refused. Default true. */
  paging?: boolean;
  /** A region whose file can shrink is refused. Default false. */
  requireSealed?: boolean;
}

export class RegionTable {
  readonly #control: Control;
  readonly #window: Window;
  readonly #port: number;
  readonly #paging: boolean;
  readonly #requireSealed: boolean;
  #regions: (Whole | Paged)[] = [];
  /** By ring part. */
  readonly #views = new Map<string, View>();

  constructor(control: Control, window: Window, port: number, options: RegionOptions = {}) {
    this.#control = control;
    this.#window = window;
    this.#port = port;
    this.#paging = options.paging ?? true;
    this.#requireSealed = options.requireSealed ?? false;
  }

  get #whole(): Whole[] {
    return this.#regions.filter((region) => 'mapping' in region);
  }

  get #paged(): Paged[] {
    return this.#regions.filter((region) => 'pages' in region);
  }

  /** Bytes of all regions. */
  get bytes(): number {
    return bytesOf(this.#regions);
  }

  /** GPA behind the last byte of all. */
  get end(): bigint {
    return this.#regions.reduce((end, { gpa, size }) => (gpa + size > end ? gpa + size : end), 0n);
  }

  /** Bytes of those that are paged. */
  get pagedBytes(): number {
    return bytesOf(this.#paged);
  }

  /** Whether no file of a region can shrink. */
  get sealed(): boolean {
    return this.#regions.every(({ sealed }) => sealed);
  }

  /** All regions, each with its file; the descriptors stay the table's. */
  files(): (Region & { fd: number })[] {
    return this.#regions.map((region) => {
      const { gpa, size, uva, mmapOffset } = region;
      return { gpa, size, uva, mmapOffset, fd: 'fd' in region ? region.fd : region.pages.fd };
    });
  }

  has(region: Region): boolean {
    return this.#regions.some((other) => sameRegion(other, region));
  }

  /**
   * Maps a region of `fd` (which stays the caller's), its file sealed against shrinking if it takes that.
   * Throws BadRegion, with nothing mapped, when it is empty, wraps, is not page aligned, overlaps another,
   * or exceeds the file or the window.
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
    // Sealed before its size is read: after that it may not shrink, or a fault tells.
    const sealed = sealAgainstShrinking(fd);
    if (!sealed && this.#requireSealed) {
      throw new BadRegion(
        `${name} is in a file that can shrink while it is mapped, and this port requires sealed memory: ` +
          'give QEMU memory-backend-memfd, which seals unless seal=off; DPDK 22.11 and earlier cannot seal theirs',
      );
    }
    const file = fileShape(fd);
    if (mmapOffset + size > BigInt(file.size)) {
      throw new BadRegion(`${name} ends past its file of ${file.size} bytes`);
    }
    try {
      this.#regions.push(this.#map(region, fd, { block: file.blockSize, sealed }));
    } catch (error) {
      if (error instanceof BadRegion) throw error;
      throw new BadRegion(`${name} cannot be mapped: ${(error as Error).message}`);
    }
  }

  /** Whole where it fits, else page by page. */
  #map(region: Region, fd: number, file: Omit<Held, keyof Region>): Whole | Paged {
    const { gpa, size, uva, mmapOffset } = region;
    const own = { gpa, size, uva, mmapOffset, ...file };
    const { block } = file;
    const [offset, length] = [Number(mmapOffset), Number(size)];
    try {
      const mapping = this.#window.map(fd, offset, length, block);
      try {
        return { ...own, mapping, fd: dup(fd) };
      } catch (error) {
        mapping.unmap();
        throw error;
      }
    } catch (error) {
      if (!(error instanceof WindowFull)) throw error;
      if (!this.#paging || block > SLOT) throw tooLarge(region, block, error.largest);
    }
    const pages = this.#window.pager.open(fd, offset, length);
    if (pages) return { ...own, pages };
    throw new BadRegion(
      `${describe(region)} does not fit: page tables hold 8 TiB for all guests of a switch; ` +
        'start a second switch',
    );
  }

  /** Unmaps the region with the same gpa, uva and size; false when there is none. Quiesced. */
  remove(region: Region): boolean {
    const i = this.#regions.findIndex((other) => sameRegion(other, region));
    if (i < 0) return false;
    this.#drop(this.#regions.splice(i, 1)[0]!);
    return true;
  }

  /** Unmaps all. Quiesced. */
  clear(): void {
    for (const region of this.#regions.splice(0)) this.#drop(region);
  }

  #drop(region: Whole | Paged): void {
    if ('mapping' in region) {
      region.mapping.unmap();
      close(region.fd);
      return;
    }
    for (const [part, view] of this.#views) if (view.region === region) this.unpin(part);
    region.pages.release();
  }

  /** Writes the table to where the datapath reads it. Quiesced. */
  publish(): void {
    const block = PORT_BASE + this.#port * PORT_STRIDE;
    let at = REGION_BASE + this.#port * MAX_REGIONS * REGION_STRIDE;
    const place = ({ gpa, size }: Region) => {
      this.#control.set64(at + REGION_GPA, gpa);
      this.#control.set64(at + REGION_SIZE, size);
      at += REGION_STRIDE;
      return at - REGION_STRIDE;
    };
    // The largest region first: it answers nearly every look-up.
    const whole = this.#whole.sort(largestFirst);
    const paged = this.#paged.sort(largestFirst);
    for (const region of whole) {
      this.#control.set(place(region) + REGION_LINEAR, region.mapping.linear);
    }
    for (const region of paged) {
      const record = place(region);
      this.#control.set(record + REGION_SKEW, region.pages.skew);
      this.#control.set(record + REGION_TABLE, region.pages.table);
      this.#control.set(record + REGION_FD, region.pages.fd);
      this.#control.set(record + REGION_PAGE, region.pages.page);
    }
    this.#control.set(block + PORT_REGIONS, whole.length);
    this.#control.set(block + PORT_PAGED, paged.length);
  }

  /**
   * Linear address of `length` bytes at front-end address `uva`, all in one region, or 0. In a paged
   * region they are mapped for `part` (of a ring), until that asks for others or is unpinned; without
   * a part they have no address. Throws BadRegion when there is no room for that.
   */
  fromUva(uva: bigint, length: number, part?: string): number {
    const found = this.#at(uva, length);
    if (found && 'mapping' in found) return found.mapping.linear + Number(uva - found.uva);
    return found && part !== undefined ? this.#pin(found, uva, length, part) : 0;
  }

  #at(uva: bigint, length: number): Whole | Paged | undefined {
    return this.#regions.find((r) => uva >= r.uva && uva + BigInt(length) <= r.uva + r.size);
  }

  /** GPA of `length` bytes at front-end address `uva`, all in one region. */
  toGpa(uva: bigint, length: number): bigint | undefined {
    const found = this.#at(uva, length);
    return found && uva - found.uva + found.gpa;
  }

  #pin(region: Paged, uva: bigint, length: number, part: string): number {
    const held = this.#views.get(part);
    if (held?.region === region && held.uva === uva && held.length === length) {
      return held.mapping.linear;
    }
    this.unpin(part);
    const offset = Number(uva - region.uva + region.mmapOffset);
    const { pages, block } = region;
    try {
      const mapping = this.#window.pin(pages.fd, offset, length, Math.max(block, PAGE));
      this.#views.set(part, { region, uva, length, mapping });
      return mapping.linear;
    } catch (error) {
      throw new BadRegion(
        `${part} in the ${describe(region)} cannot be mapped: ${(error as Error).message}`,
      );
    }
  }

  /**
   * What became of memory that went away at linear address `at` (faults.ts), in one sentence with the
   * cure; undefined where that is not memory of this port.
   */
  lossAt(at: number): string | undefined {
    const lost = this.#regions.find((region) =>
      'mapping' in region
        ? covers(region.mapping, at)
        : this.#window.pager.shows(region.pages.table, at) || this.#viewed(region, at),
    );
    return lost && loss(lost);
  }

  #viewed(region: Paged, at: number): boolean {
    const views = [...this.#views.values()];
    return views.some((view) => view.region === region && covers(view.mapping, at));
  }

  /** Unmaps what was mapped for a part of a ring. Quiesced. */
  unpin(part: string): void {
    this.#views.get(part)?.mapping.unmap();
    this.#views.delete(part);
  }
}

function bytesOf(regions: readonly Region[]): number {
  return regions.reduce((sum, { size }) => sum + Number(size), 0);
}

function largestFirst(a: Region, b: Region): number {
  return a.size < b.size ? 1 : -1;
}
