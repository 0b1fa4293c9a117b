// A virtqueue's driver side, whatever its format: the other half of every ring.
//
// Buffers are named by the caller's token. Chains are written completely before drvPublish shows
// them: the device can never see half of one. What the device wrote is checked as a guest checks: an
// id that names no outstanding chain counts in DRV_ERRORS. driver-split.ts and driver-packed.ts know
// the formats; DRV_FLAGS picks one.

import {
  DRV_AVAIL_IDX,
  DRV_BATCH,
  DRV_BATCH_LEN,
  DRV_FLAGS,
  DRV_LEN,
  DRV_OLDEST,
  DRV_PUBLISHED,
  DRV_SIZE,
  DRV_TABLE,
  NO_BATCH,
  SEG_WRITE,
} from '../abi/driver';
import { RINGF_IN_ORDER, RINGF_PACKED } from '../abi/layout';
import { DESC_F_WRITE } from '../abi/virtio';
import {
  packedAdd,
  packedAddOne,
  packedAdvance,
  packedArm,
  packedDisarm,
  packedElement,
  packedPop,
  packedPopMany,
  packedPublish,
  packedReset,
  packedUsed,
} from './driver-packed';
import { countError, forget, IDLE, isPacked, outstanding, resetRecords } from './driver-records';
import {
  splitAdd,
  splitAddOne,
  splitAdvance,
  splitArm,
  splitDisarm,
  splitElement,
  splitPop,
  splitPopMany,
  splitPublish,
  splitReset,
  splitUsed,
} from './driver-split';

/** Fresh ring: clears its parts and the driver's state. DRV_DESC to DRV_FLAGS are set already. */
export function drvReset(drv: u32): void {
  resetRecords(drv);
  if (isPacked(drv)) packedReset(drv);
  else splitReset(drv);
}

/**
 * Adds one chain of `n` segments {linear u32, length u32 | SEG_WRITE} from `segments` on. With
 * `indirect` it takes one descriptor, of up to DRV_TABLE segments. Not visible before drvPublish.
 * Returns what the device will name it by (split: the head; packed: the buffer id), or -1 when there
 * are not enough descriptors.
 */
export function drvAdd(drv: u32, segments: u32, n: u32, token: u32, indirect: bool): i32 {
  if (n == 0 || (indirect && n > <u32>DRV_TABLE)) return -1;
  return isPacked(drv)
    ? packedAdd(drv, segments, n, token, indirect)
    : splitAdd(drv, segments, n, token, indirect);
}

/**
 * As drvAdd, for one segment in a descriptor of its own: `len` bytes, | SEG_WRITE, at `linear`. False when
 * there is no descriptor.
 */
export function drvAddOne(drv: u32, linear: u32, len: u32, token: u32): bool {
  const flags: u32 = len & SEG_WRITE ? DESC_F_WRITE : 0;
  return isPacked(drv)
    ? packedAddOne(drv, linear, len & ~SEG_WRITE, flags, token)
    : splitAddOne(drv, linear, len & ~SEG_WRITE, flags, token);
}

/** Makes all added chains visible; true when the device wants a kick. */
export function drvPublish(drv: u32): bool {
  if (load<u32>(drv, DRV_AVAIL_IDX) == load<u32>(drv, DRV_PUBLISHED)) return false;
  return isPacked(drv) ? packedPublish(drv) : splitPublish(drv);
}

/** Whether the device has used a chain that drvPop has not returned. */
export function drvUsed(drv: u32): bool {
  if (!isPacked(drv)) return splitUsed(drv);
  return load<u32>(drv, DRV_BATCH) != NO_BATCH || packedUsed(drv);
}

/**
 * Takes one used chain back, freeing its descriptors; DRV_LEN then holds what the device wrote.
 * Returns its token, or -1 when there is none.
 */
export function drvPop(drv: u32): i32 {
  const flags = load<u32>(drv, DRV_FLAGS);
  if ((flags & (RINGF_PACKED | RINGF_IN_ORDER)) == 0) return splitPop(drv);
  return flags & RINGF_IN_ORDER ? popInOrder(drv) : packedPop(drv);
}

/**
 * Takes back up to `most` used chains: {token u32, length written u32} each, at `list`. Returns how many; less
 * than there are where an element names no chain, which counts as an error.
 */
export function drvPopMany(drv: u32, list: u32, most: u32): u32 {
  let n: u32 = 0;
  if ((load<u32>(drv, DRV_FLAGS) & RINGF_IN_ORDER) == 0) {
    n = isPacked(drv) ? packedPopMany(drv, list, most) : splitPopMany(drv, list, most);
    if (n > 0) return n;
    // None, or one that is not common: one by one.
  }
  for (; n < most; n++) {
    const token = drvPop(drv);
    if (token < 0) break;
    store<u32>(list + n * 8, <u32>token);
    store<u32>(list + n * 8, load<u32>(drv, DRV_LEN), 4);
  }
  return n;
}

/**
 * With IN_ORDER one used element may stand for all chains up to the one it names (virtio 1.2
 * §2.7.9, §2.8.8): they come back one by one, oldest first. What the device wrote into those it
 * passed over it did not say: DRV_LEN is 0.
 */
function popInOrder(drv: u32): i32 {
  const packed = isPacked(drv);
  let last = load<u32>(drv, DRV_BATCH);
  // A split ring's index counts every chain, also in the middle of a batch.
  if (packed ? last == NO_BATCH && !packedUsed(drv) : !splitUsed(drv)) {
    if (last != NO_BATCH) dropBatch(drv);
    return -1;
  }
  if (last == NO_BATCH) {
    const element = packed ? packedElement(drv) : splitElement(drv);
    last = <u32>element;
    if (outstanding(drv, last) == IDLE) {
      countError(drv);
      if (packed) packedAdvance(drv, 1);
      else splitAdvance(drv);
      return -1;
    }
    store<u32>(drv, last, DRV_BATCH);
    store<u32>(drv, <u32>(element >> 32), DRV_BATCH_LEN);
  }
  const oldest = load<u32>(drv, DRV_OLDEST);
  const takes = outstanding(drv, oldest);
  const size = load<u32>(drv, DRV_SIZE);
  const next = oldest + (packed ? 1 : takes);
  store<u32>(drv, next < size ? next : next - size, DRV_OLDEST);
  if (packed) packedAdvance(drv, takes);
  else splitAdvance(drv);
  const ends = oldest == last;
  if (ends) store<u32>(drv, NO_BATCH, DRV_BATCH);
  store<u32>(drv, ends ? load<u32>(drv, DRV_BATCH_LEN) : 0, DRV_LEN);
  return forget(drv, oldest, takes);
}

/** The batch named a chain further on than the used index went. */
function dropBatch(drv: u32): void {
  store<u32>(drv, NO_BATCH, DRV_BATCH);
  countError(drv);
}

/** Asks for a call at the next used buffer; true when one is there already. */
export function drvArm(drv: u32): bool {
  if (isPacked(drv)) packedArm(drv);
  else splitArm(drv);
  return drvUsed(drv);
}

/** No calls, please. */
export function drvDisarm(drv: u32): void {
  if (isPacked(drv)) packedDisarm(drv);
  else splitDisarm(drv);
}
