// The hostile guest's memory: regions with gaps, adjacent ones, at 0 and at the top of 2^64, and one that
// is paged. Between any two lies a page that it did not share.
//
// What nobody may read or write holds SECRET; what the guest owns never does unless it read it.

import {
  PAGER_FIRST,
  PAGER_FREE,
  PAGER_FREE_FIRST,
  PAGER_REGIONS,
  PAGER_SLOTS,
  PORT_PAGED,
  REGION_BASE,
  REGION_GPA,
  REGION_PAGE,
  REGION_SIZE,
  REGION_SKEW,
  REGION_STRIDE,
  REGION_TABLE,
  SLOT,
  SLOT_NEXT,
  SLOT_RECORD,
  SLOT_RECORDS,
  TABLES_BASE,
} from '../../src/abi/layout.ts';
import type { Rig, TestPort, TestRegion } from '../../test/datapath/rig.ts';
import type { Memory } from '../memory.ts';

export const SECRET = 0xe7;
const PAGE = 0x1000;
const TOP = 1n << 64n;

/** A run of guest memory: GPA as two words, and where the fuzzer sees it. */
export interface Range {
  lo: number;
  hi: number;
  linear: number;
  size: number;
}

interface Region extends TestRegion {
  fill: number;
}

/** The rings', which the guest shares in some worlds only: there it can have frames written over them. */
export const RINGS: Region = { gpa: 0x1_0001_0000n, at: 0x1000, size: 0x1f000, fill: 0 };
/** Frames; the next one follows it in GPA, not in linear memory. */
export const FRAMES: Region = { gpa: 0x1_0004_0000n, at: 0x21000, size: 0x20000, fill: 0x11 };
export const TABLES: Region = { gpa: 0x1_0006_0000n, at: 0x42000, size: 0x10000, fill: 0x12 };
export const ODD: Region = { gpa: 0x1_0010_0800n, at: 0x53000, size: 0x2800, fill: 0x13 };
export const LAST: Region = { gpa: TOP - 0x4000n, at: 0x57000, size: 0x4000, fill: 0x14 };
export const FIRST: Region = { gpa: 0n, at: 0x5c000, size: 0x4000, fill: 0x15 };
/** Long frames, and the buffers to receive into. */
export const LARGE: Region = { gpa: 0x1_0100_0000n, at: 0x61000, size: 0x80000, fill: 0x16 };
const SHARED = [FRAMES, TABLES, ODD, LAST, FIRST, LARGE];
const END = LARGE.at + LARGE.size;

// The paged one: three pages of a file that nobody opens. Two are mapped, in swapped slots, the third
// the host refuses; its first file page begins SKEW bytes before the region.
const PAGED_GPA = 0x5_0000_0000n;
const SKEW = 0x1000;
const PAGED_SIZE = 3 * SLOT - SKEW - 0x800;
const SLOTS = 8;
/** Far above everything else of the rig. */
const SLOTS_AT = 0x4000_0000;

export class GuestMemory {
  readonly ranges: Range[] = [];
  /** The second page of the paged region, if there is one. */
  paged: Range | undefined;
  /** The page of it that the host refuses to map. */
  absent: Range | undefined;
  readonly #memory: Memory;
  readonly #walls: number[] = [];
  readonly #wall = Buffer.alloc(PAGE, SECRET);

  /** `order` rotates the region table; with `rings` the guest shares its rings as well. */
  constructor(
    rig: Rig,
    port: TestPort,
    memory: Memory,
    how: { order: number; rings: boolean; paged: boolean },
  ) {
    this.#memory = memory;
    const { base } = port;
    const all = how.rings ? [...SHARED, RINGS] : SHARED;
    const turned = [...all.slice(how.order % all.length), ...all.slice(0, how.order % all.length)];
    port.setRegions(turned);
    memory.u8.fill(SECRET, base, base + PAGE);
    for (const { at, size, fill } of [RINGS, ...SHARED]) {
      memory.u8.fill(fill, base + at, base + at + size);
      memory.u8.fill(SECRET, base + at + size, base + at + size + PAGE);
      this.#walls.push(base + at + size);
    }
    this.#walls.push(base);
    memory.u8.fill(SECRET, base + END, base + END + PAGE);
    for (const { gpa, at, size } of turned) this.#add(gpa, base + at, size);
    if (how.paged) this.#page(rig, port, turned.length);
  }

  #add(gpa: bigint, linear: number, size: number): void {
    this.ranges.push({
      lo: Number(gpa & 0xffff_ffffn),
      hi: Number(gpa >> 32n),
      linear,
      size,
    });
  }

  #page(rig: Rig, port: TestPort, whole: number): void {
    const { control } = rig;
    const region = REGION_BASE + port.index * 64 * REGION_STRIDE + whole * REGION_STRIDE;
    control.set64(region + REGION_GPA, PAGED_GPA);
    control.set64(region + REGION_SIZE, BigInt(PAGED_SIZE));
    control.set(region + REGION_SKEW, SKEW);
    control.set(region + REGION_TABLE, TABLES_BASE);
    control.set(region + REGION_PAGE, 0);
    port.set(PORT_PAGED, 1);
    control.set(TABLES_BASE, SLOTS_AT + SLOT);
    control.set(TABLES_BASE + 4, SLOTS_AT);
    control.set(TABLES_BASE + 8, 0);
    control.set(PAGER_REGIONS, 1);
    control.set(PAGER_FIRST, SLOTS_AT);
    control.set(PAGER_SLOTS, SLOTS);
    for (let slot = 2; slot < SLOTS; slot++) {
      const next = slot + 1 < SLOTS ? slot + 2 : 0;
      control.set(SLOT_RECORDS + slot * SLOT_RECORD + SLOT_NEXT, next);
    }
    control.set(PAGER_FREE_FIRST, 3);
    control.set(PAGER_FREE, SLOTS - 2);
    // Before the region in its first page, and behind the second.
    for (const at of [SLOTS_AT + SLOT, SLOTS_AT + 2 * SLOT]) {
      this.#memory.u8.fill(SECRET, at, at + PAGE);
      this.#walls.push(at);
    }
    this.#add(PAGED_GPA, SLOTS_AT + SLOT + SKEW, SLOT - SKEW);
    this.#add(PAGED_GPA + BigInt(SLOT - SKEW), SLOTS_AT, SLOT);
    this.paged = this.ranges[this.ranges.length - 1]!;
    const rest = 2 * SLOT - SKEW;
    const { hi } = this.paged;
    this.absent = { lo: rest, hi, linear: 0, size: PAGED_SIZE - rest };
  }

  /** The range in which a region of the list above begins. */
  range({ gpa }: TestRegion): Range {
    const lo = Number(gpa & 0xffff_ffffn);
    const hi = Number(gpa >> 32n);
    return this.ranges.find((range) => range.lo === lo && range.hi === hi)!;
  }

  /** Linear address of the first page that is not as it was, or 0. */
  breach(): number {
    return this.#walls.find((at) => !this.#memory.holds(at, this.#wall)) ?? 0;
  }
}
