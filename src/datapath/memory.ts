// From guest-physical to linear: the wall between guests, and the only place it stands.
//
// Every address a guest names comes through here, with its length, and is checked to the byte
// against the regions of that guest's own port. Region tables change only under quiesce.

import {
  MAX_REGIONS,
  PORT_REGIONS,
  REGION_BASE,
  REGION_GPA,
  REGION_LINEAR,
  REGION_SIZE,
  REGION_STRIDE,
} from '../abi/layout';
import { portAt } from './layout';

function regionsOf(port: u32): u32 {
  return REGION_BASE + port * (MAX_REGIONS * REGION_STRIDE);
}

/**
 * Linear address of `len` bytes at guest-physical `addr`, or 0 unless all of them lie in one region
 * of `port`. A length of 0 is inside wherever its address is.
 */
export function translate(port: u32, addr: u64, len: u32): u32 {
  let region = regionsOf(port);
  const end = region + load<u32>(portAt(port), PORT_REGIONS) * REGION_STRIDE;
  for (; region < end; region += REGION_STRIDE) {
    const offset = addr - load<u64>(region, REGION_GPA);
    const size = load<u64>(region, REGION_SIZE);
    // offset wraps far above size when addr lies below the region; then the first test fails.
    if (offset < size && <u64>len <= size - offset) {
      return load<u32>(region, REGION_LINEAR) + <u32>offset;
    }
  }
  return 0;
}

/** Bytes mapped from the address last given to `locate` to the end of its region. */
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
  return 0;
}
