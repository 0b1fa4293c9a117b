// From guest-physical to linear: the wall between guests, and the only place it stands.
//
// Every address a guest names comes through here, with its length, and is checked to the byte
// against the regions of that guest's own port. Region tables change only under quiesce.
//
// Regions that are mapped whole come first and are all that most ports have. Those that are paged
// follow them, and are looked at when no whole one answers; what they answer holds until the end of
// the round (pager.ts).

import {
  MAX_REGIONS,
  PAGER_FIRST,
  PORT_PAGED,
  PORT_REGIONS,
  REGION_BASE,
  REGION_GPA,
  REGION_LINEAR,
  REGION_SIZE,
  REGION_SKEW,
  REGION_STRIDE,
  REGION_TABLE,
  SLOT,
} from '../abi/layout';
import { portAt } from './layout';
import { resident } from './pager';
import { entryOf } from './slots';

/** Zeroes below the control area: a region of no bytes. */
const NO_REGION: u32 = 0;

function regionsOf(port: u32): u32 {
  return REGION_BASE + port * (MAX_REGIONS * REGION_STRIDE);
}

/** The region of `port` that is looked at first: the largest that is mapped whole, or one of size 0. */
export function firstRegion(port: u32): u32 {
  return load<u32>(portAt(port), PORT_REGIONS) > 0 ? regionsOf(port) : NO_REGION;
}

/**
 * The test itself: linear address of `len` bytes at `addr` in a region of `size` bytes from `gpa` on,
 * which is seen at `linear`; 0 unless all of them lie in it. Loops over bursts keep the region they
 * look at first in locals, and ask `translate` only when it does not answer: 2 ns a frame.
 */
export function within(gpa: u64, size: u64, linear: u32, addr: u64, len: u32): u32 {
  const offset = addr - gpa;
  // offset wraps far above size when addr lies below the region; then the first test fails.
  return offset < size && <u64>len <= size - offset ? linear + <u32>offset : 0;
}

/** The region mapped whole in which the last `translate` found its bytes, or 0. */
export let foundIn: u32 = NO_REGION;

/**
 * Linear address of `len` bytes at guest-physical `addr`, or 0 unless all of them lie in one region
 * of `port`, and in one 2 MiB page where that is paged. A length of 0 is inside wherever its address
 * is. Also 0 when their page cannot be mapped now
 * (`missing`, pager.ts).
 */
export function translate(port: u32, addr: u64, len: u32): u32 {
  let region = regionsOf(port);
  const end = region + load<u32>(portAt(port), PORT_REGIONS) * REGION_STRIDE;
  for (; region < end; region += REGION_STRIDE) {
    const gpa = load<u64>(region, REGION_GPA);
    const found = within(
      gpa,
      load<u64>(region, REGION_SIZE),
      load<u32>(region, REGION_LINEAR),
      addr,
      len,
    );
    if (found != 0) {
      foundIn = region;
      return found;
    }
  }
  foundIn = NO_REGION;
  if (load<u32>(portAt(port), PORT_PAGED) == 0) return 0;
  const linear = locatePaged(port, addr);
  return linear != 0 && <u64>len <= room ? linear : 0;
}

/**
 * Bytes mapped from the address last given to `locate` to the end of its region, or of its page
 * where that is paged.
 */
export let room: u64 = 0;

/** Linear address of guest-physical `addr`, or 0; `room` says how far it reaches. */
export function locate(port: u32, addr: u64): u32 {
  let region = regionsOf(port);
  const end = region + load<u32>(portAt(port), PORT_REGIONS) * REGION_STRIDE;
  for (; region < end; region += REGION_STRIDE) {
    const offset = addr - load<u64>(region, REGION_GPA);
    const size = load<u64>(region, REGION_SIZE);
    if (offset < size) {
      room = size - offset;
      return load<u32>(region, REGION_LINEAR) + <u32>offset;
    }
  }
  return load<u32>(portAt(port), PORT_PAGED) != 0 ? locatePaged(port, addr) : 0;
}

function locatePaged(port: u32, addr: u64): u32 {
  let region = regionsOf(port) + load<u32>(portAt(port), PORT_REGIONS) * REGION_STRIDE;
  const end = region + load<u32>(portAt(port), PORT_PAGED) * REGION_STRIDE;
  for (; region < end; region += REGION_STRIDE) {
    const offset = addr - load<u64>(region, REGION_GPA);
    const size = load<u64>(region, REGION_SIZE);
    if (offset < size) {
      // Pages are those of the file, so that huge ones are mapped as they are.
      const at = offset + load<u32>(region, REGION_SKEW);
      const inPage = <u32>at & (<u32>SLOT - 1);
      const linear = resident(region, <u32>(at / SLOT));
      if (linear == 0) return 0;
      room = min<u64>(size - offset, <u32>SLOT - inPage);
      return linear + inPage;
    }
  }
  return 0;
}

/** No guest-physical address. */
export const NO_GPA: u64 = u64.MAX_VALUE;

/**
 * The way back: the guest-physical address of what `port` has at linear address `at`, which one of the
 * above gave in this round.
 */
export function gpaOf(port: u32, at: u32): u64 {
  let region = regionsOf(port);
  let end = region + load<u32>(portAt(port), PORT_REGIONS) * REGION_STRIDE;
  for (; region < end; region += REGION_STRIDE) {
    const offset = at - load<u32>(region, REGION_LINEAR);
    if (offset < load<u64>(region, REGION_SIZE)) return load<u64>(region, REGION_GPA) + offset;
  }
  const paged = load<u32>(portAt(port), PORT_PAGED);
  if (paged == 0) return NO_GPA;
  const entry = entryOf(at);
  const inPage = (at - load<u32>(PAGER_FIRST)) & (<u32>SLOT - 1);
  end = region + paged * REGION_STRIDE;
  for (; region < end; region += REGION_STRIDE) {
    const table = load<u32>(region, REGION_TABLE);
    if (entry < table) continue;
    const page = (entry - table) >> 2;
    const offset = <u64>page * SLOT + inPage - load<u32>(region, REGION_SKEW);
    if (offset < load<u64>(region, REGION_SIZE)) return load<u64>(region, REGION_GPA) + offset;
  }
  return NO_GPA;
}
