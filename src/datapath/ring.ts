// A virtqueue's device side, whatever its format: what gather, deliver and poll ask of a ring.
//
// split.ts and packed.ts know the formats; this file picks one, and owns what is common: positions,
// the used entries of a burst, calls. A burst's chains are named by two words:
//
//   head        bits 0-15 what the driver knows the chain by (descriptor, or buffer id),
//               bits 16-31 slots it takes in the ring (split: 1)
//   descriptor  linear address of the chain's first descriptor
//
// Used entries are written as the burst goes and become visible with one store, `publishUsed`.

import {
  RING_ARMED,
  RING_CALLS,
  RING_DESC,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_SIGNALLED,
  RING_USED,
  RING_USED_IDX,
  RINGF_PACKED,
  SCRATCH_CHAINS,
} from '../abi/layout';
import { DESC_F_AVAIL, DESC_F_USED, DESC_F_WRITE, WRAP } from '../abi/virtio';
import { signalCall } from './host';
import { count, indexOf, scratch } from './layout';
import {
  advance,
  packedArm,
  packedDisarm,
  packedEnd,
  packedHeads,
  packedPublish,
  packedReady,
  packedWanted,
} from './packed';
import { splitArm, splitDisarm, splitHeads, splitPublish, splitReady, splitWanted } from './split';

export function isPacked(ring: u32): bool {
  return (load<u32>(ring, RING_FLAGS) & RINGF_PACKED) != 0;
}

/**
 * Chains posted and not yet taken: 0 is none, `enough` or more is a burst worth taking. A packed
 * ring says no more than that. Latches a ring that claims more than it can hold.
 */
export function ready(ring: u32, enough: u32): u32 {
  return isPacked(ring) ? packedReady(ring, enough) : splitReady(ring);
}

/** Position behind the chains last found by `heads`. */
export let headsEnd: u32 = 0;

/**
 * Finds up to `n` chains from `position` on; `chainAt(0)` and so on name them. A split ring holds
 * `n` of them (`ready`), a packed one tells here. Returns how many; 0 also when it latched the ring.
 */
export function heads(ring: u32, position: u32, n: u32): u32 {
  const list = scratch + SCRATCH_CHAINS;
  if (isPacked(ring)) {
    n = packedHeads(ring, position, n, list);
    headsEnd = packedEnd;
  } else {
    n = splitHeads(ring, position, n, list);
    headsEnd = position + n;
  }
  return n;
}

/** {head u32, descriptor u32} number `i` of those `heads` found. */
export function chainAt(i: u32): u32 {
  return scratch + SCRATCH_CHAINS + i * 8;
}

// --- used entries -------------------------------------------------------------------------------

/** Flags of the burst's first used descriptor: a packed ring shows them last. */
let firstFlags: u32 = 0;

/** Where used entries of this ring are written: kept in a local through a burst. */
export function usedBase(ring: u32): u32 {
  return isPacked(ring) ? load<u32>(ring, RING_DESC) : load<u32>(ring, RING_USED) + 4;
}

/**
 * Writes the used entry at `position` of a burst that began at `first`; returns the next position.
 * `packed`, `base` and `size` are isPacked, usedBase and RING_SIZE of the ring, in locals: loads
 * after a store cannot be hoisted for the caller.
 */
export function putUsed(
  packed: bool,
  base: u32,
  size: u32,
  first: u32,
  position: u32,
  head: u32,
  len: u32,
): u32 {
  if (!packed) {
    store<u64>(base + (position & (size - 1)) * 8, <u64>(head & 0xffff) | ((<u64>len) << 32));
    return behind(packed, size, position, head);
  }
  const at = base + (position & (WRAP - 1)) * 16;
  const lap: u32 = position & WRAP ? DESC_F_AVAIL | DESC_F_USED : 0;
  const flags = lap | (len > 0 ? DESC_F_WRITE : 0);
  if (position == first) {
    firstFlags = flags;
    store<u32>(at, len, 8);
    store<u16>(at, <u16>head, 12);
  } else {
    store<u64>(at, <u64>len | ((<u64>(head & 0xffff)) << 32) | ((<u64>flags) << 48), 8);
  }
  return behind(packed, size, position, head);
}

/** The position behind a chain that begins at `position`. */
export function behind(packed: bool, size: u32, position: u32, head: u32): u32 {
  return packed ? advance(position, head >> 16, size) : position + 1;
}

/** Makes the burst's used entries, up to `position`, visible: one store. */
export function publishUsed(ring: u32, position: u32): void {
  if (isPacked(ring)) packedPublish(ring, firstFlags);
  else splitPublish(ring, position);
  store<u32>(ring, position & 0xffff, RING_LAST_AVAIL);
  store<u32>(ring, position & 0xffff, RING_USED_IDX);
}

/** Calls the guest if it asked for it; follows `publishUsed`, whose store is the fence. */
export function notify(ring: u32): void {
  const old = load<u32>(ring, RING_SIGNALLED);
  store<u32>(ring, load<u32>(ring, RING_USED_IDX), RING_SIGNALLED);
  if (isPacked(ring) ? packedWanted(ring, old) : splitWanted(ring, old)) {
    count(ring + RING_CALLS, 1);
    signalCall(indexOf(ring));
  }
}

// --- kicks --------------------------------------------------------------------------------------

/** Asks the guest to kick, then looks once more: false when it already added a buffer. */
export function arm(ring: u32): bool {
  // Dekker's half: the format stores the request, then loads the ring; the driver stores to the ring
  // before it loads the request. One of the two sees the other.
  if (!(isPacked(ring) ? packedArm(ring) : splitArm(ring))) {
    disarm(ring);
    return false;
  }
  store<u32>(ring, 1, RING_ARMED);
  return true;
}

/** No kicks, please. */
export function disarm(ring: u32): void {
  store<u32>(ring, 0, RING_ARMED);
  if (isPacked(ring)) packedDisarm(ring);
  else splitDisarm(ring);
}
