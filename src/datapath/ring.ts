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
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_NEXT,
  RING_SIGNALLED,
  RING_SIZE,
  RING_USED_IDX,
  RINGF_PACKED,
} from '../abi/layout';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../abi/virtio';
import { signalCall } from './host';
import { count, indexOf } from './layout';
import { fence, logEntries, logNotification, logPublished, logsRing } from './log';
import {
  advance,
  packedArm,
  packedCut,
  packedDisarm,
  packedEnd,
  packedHeads,
  packedPublish,
  packedPut,
  packedReady,
  packedWanted,
} from './packed';
import {
  splitArm,
  splitDisarm,
  splitHeads,
  splitPublish,
  splitPut,
  splitReady,
  splitWanted,
} from './split';
import { CALL_WORK, charge } from './work';

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

/** Of a descriptor's second word, what tells whether it is its whole chain, and which way it goes. */
export function tellingFlags(packed: bool): u64 {
  // A packed chain's NEXT flags have been counted in its head word.
  return packed
    ? (<u64>(DESC_F_WRITE | DESC_F_INDIRECT)) << 48
    : (<u64>(DESC_F_WRITE | DESC_F_INDIRECT | DESC_F_NEXT)) << 32;
}

/** Bytes of a listed chain. */
export const CHAIN: u32 = 8;

/** Position behind the chains last found by `heads`. */
export let headsEnd: u32 = 0;
/** Whether more were posted, in so many pieces that they were not looked at. */
export let headsCut: bool = false;

/**
 * Finds up to `n` chains from `position` on and lists them, {head u32, descriptor u32} each. A split
 * ring holds `n` of them (`ready`), a packed one tells here. Returns how many; 0 also when it latched
 * the ring.
 */
export function heads(ring: u32, position: u32, n: u32, list: u32): u32 {
  if (isPacked(ring)) {
    n = packedHeads(ring, position, n, list);
    headsEnd = packedEnd;
    headsCut = packedCut;
  } else {
    n = splitHeads(ring, position, n, list);
    headsEnd = position + n;
    headsCut = false;
  }
  return n;
}

// --- used entries -------------------------------------------------------------------------------

/**
 * Writes the used entries of `n` chains from `position` on; returns the position behind them. Their
 * head words are the u32 at `heads` and every `stride` bytes from there; with `written` the u32 before
 * each is the length written, otherwise that is 0.
 */
export function putUsed(
  ring: u32,
  position: u32,
  heads: u32,
  stride: u32,
  n: u32,
  written: bool,
): u32 {
  const behind = isPacked(ring)
    ? packedPut(ring, position, heads, stride, n, written)
    : splitPut(ring, position, heads, stride, n, written);
  if (logsRing(ring)) {
    fence();
    logEntries(ring, position, behind, heads, stride, n);
  }
  return behind;
}

/** The position behind `n` chains from `position` on, their heads as for putUsed. */
export function behind(ring: u32, position: u32, heads: u32, stride: u32, n: u32): u32 {
  if (!isPacked(ring)) return position + n;
  const size = load<u32>(ring, RING_SIZE);
  for (let i: u32 = 0; i < n; i++) {
    position = advance(position, load<u32>(heads + i * stride) >> 16, size);
  }
  return position;
}

/** Makes the burst's used entries, up to `position`, visible: one store. */
export function publishUsed(ring: u32, position: u32): void {
  const first = load<u32>(ring, RING_USED_IDX);
  if (isPacked(ring)) {
    // Noted before: whoever is killed between the two leaves a ring that tells which (virtio/resume.ts).
    store<u32>(ring, position & 0xffff, RING_NEXT);
    packedPublish(ring);
  } else {
    splitPublish(ring, position);
  }
  store<u32>(ring, position & 0xffff, RING_LAST_AVAIL);
  store<u32>(ring, position & 0xffff, RING_USED_IDX);
  // The store that published is the fence.
  if (logsRing(ring)) logPublished(ring, first);
}

/** Calls the guest if it asked for it; follows `publishUsed`, whose store is the fence. */
export function notify(ring: u32): void {
  const old = load<u32>(ring, RING_SIGNALLED);
  store<u32>(ring, load<u32>(ring, RING_USED_IDX), RING_SIGNALLED);
  if (isPacked(ring) ? packedWanted(ring, old) : splitWanted(ring, old)) {
    count(ring + RING_CALLS, 1);
    charge(CALL_WORK);
    signalCall(indexOf(ring));
  }
}

// --- kicks --------------------------------------------------------------------------------------

/** Asks the guest to kick, then looks once more: false when it already added a buffer. */
export function arm(ring: u32): bool {
  // Dekker's half: the format stores the request, then loads the ring; the driver stores to the ring
  // before it loads the request. One of the two sees the other.
  const empty = isPacked(ring) ? packedArm(ring) : splitArm(ring);
  if (logsRing(ring)) logNotification(ring);
  if (!empty) {
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
  if (logsRing(ring)) logNotification(ring);
}
