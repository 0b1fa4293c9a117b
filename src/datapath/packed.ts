// Packed virtqueues, device side (virtio 1.2 §2.8).
//
//   descriptor    {addr u64, len u32, id u16, flags u16} x size     driver writes it available, the
//                                                                   device writes it used, in place
//   driver event  {off_wrap u16, flags u16}, at RING_AVAIL          driver writes: when to call
//   device event  {off_wrap u16, flags u16}, at RING_USED           device writes: when to kick
//
// A position is a slot and a wrap counter (WRAP). A descriptor is available when its AVAIL flag is
// the wrap counter and its USED flag is not; used when both are. The functions are what ring.ts
// asks of a format; its docstrings say what they do.

import {
  BROKEN_CHAIN,
  BROKEN_ID,
  BURST,
  MAX_SEGMENTS,
  RING_AVAIL,
  RING_DESC,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_SIZE,
  RING_USED,
  RING_USED_IDX,
  RINGF_EVENT_IDX,
} from '../abi/layout';
import {
  DESC_F_AVAIL,
  DESC_F_NEXT,
  DESC_F_USED,
  DESC_F_WRITE,
  EVENT_F_DESC,
  EVENT_F_DISABLE,
  EVENT_F_ENABLE,
  WRAP,
} from '../abi/virtio';
import { latch } from './latch';
import { acquire, publish } from './layout';

const ID: u32 = 12;
const FLAGS: u32 = 14;
const SLOT_BITS: u32 = WRAP - 1;
/** Slots of chains of several that are counted at a time, or one chain more. */
const MAX_SLOTS_COUNTED: u32 = 4 * MAX_SEGMENTS;

/** Position `by` slots, at most `size`, after `position`. */
export function advance(position: u32, by: u32, size: u32): u32 {
  const slot = (position & SLOT_BITS) + by;
  const wrap = position & WRAP;
  return slot < size ? slot | wrap : (slot - size) | (wrap ^ WRAP);
}

function descriptorAt(ring: u32, position: u32): u32 {
  return load<u32>(ring, RING_DESC) + (position & SLOT_BITS) * 16;
}

/** AVAIL and USED flags of a descriptor that is available at a position with this wrap counter. */
function availableFlags(position: u32): u32 {
  return position & WRAP ? DESC_F_AVAIL : DESC_F_USED;
}

function readyAt(ring: u32, position: u32): bool {
  const flags = acquire(descriptorAt(ring, position) + FLAGS);
  return (flags & (DESC_F_AVAIL | DESC_F_USED)) == availableFlags(position);
}

/** How full a ring is shows only by looking: 0, 1 (some), or a burst when the slot `enough` is. */
export function packedReady(ring: u32, enough: u32): u32 {
  const position = load<u32>(ring, RING_LAST_AVAIL);
  if (!readyAt(ring, position)) return 0;
  const size = load<u32>(ring, RING_SIZE);
  return readyAt(ring, advance(position, min(enough, size) - 1, size)) ? BURST : 1;
}

/** Position behind the chains last found. */
export let packedEnd: u32 = 0;
/** Whether there may be more, and counting their slots would take too long. */
export let packedCut: bool = false;

/**
 * A chain's slots are counted here, by its NEXT flags, and nowhere again; whoever walks it later
 * goes by the count. The buffer id is the last descriptor's (virtio 1.2 §2.8.8).
 */
export function packedHeads(ring: u32, position: u32, n: u32, list: u32): u32 {
  const size = load<u32>(ring, RING_SIZE);
  const table = load<u32>(ring, RING_DESC);
  const end = table + size * 16;
  let head = table + (position & SLOT_BITS) * 16;
  let wanted = availableFlags(position);
  let slots: u32 = 0;
  let largest: u32 = 0;
  packedCut = false;
  for (let i: u32 = 0; i < n; i++) {
    // {len, id, flags}: acquires the flags, and what is before them.
    const rest = atomic.load<u64>(head, 8);
    const flags = <u32>(rest >> 48);
    if ((flags & (DESC_F_AVAIL | DESC_F_USED)) != wanted) {
      n = i;
      break;
    }
    let span: u32 = 1;
    let id = <u32>(rest >> 32) & 0xffff;
    if (flags & DESC_F_NEXT) {
      const slot = (head - table) >> 4;
      span = spanOf(table, size, slot);
      if (span == 0) {
        latch(ring, BROKEN_CHAIN);
        return 0;
      }
      id = <u32>load<u16>(table + (advance(slot, span - 1, size) & SLOT_BITS) * 16, ID);
      slots += span;
      // Counting ends somewhere, however long a guest makes its chains.
      if (slots > MAX_SLOTS_COUNTED && i + 1 < n) {
        n = i + 1;
        packedCut = true;
      }
    }
    largest = max(largest, id);
    store<u64>(list + i * 8, <u64>(id | (span << 16)) | ((<u64>head) << 32));
    head += span * 16;
    if (head >= end) {
      head -= size * 16;
      wanted ^= DESC_F_AVAIL | DESC_F_USED;
    }
  }
  // Once a burst, not once a chain: 3 ns a frame less.
  if (largest >= size) {
    latch(ring, BROKEN_ID);
    return 0;
  }
  packedEnd = ((head - table) >> 4) | (wanted == DESC_F_AVAIL ? WRAP : 0);
  return n;
}

/** Slots of the chain at `position`, whose head has NEXT; 0 when it does not end. */
function spanOf(table: u32, size: u32, position: u32): u32 {
  const longest = min<u32>(size, MAX_SEGMENTS);
  for (let span: u32 = 1; span < longest; span++) {
    const at = table + (advance(position, span, size) & SLOT_BITS) * 16;
    if (!(load<u16>(at, FLAGS) & DESC_F_NEXT)) return span + 1;
  }
  return 0;
}

/** Flags of a burst's first used descriptor: they are shown last. */
let firstFlags: u32 = 0;

export function packedPut(
  ring: u32,
  position: u32,
  heads: u32,
  stride: u32,
  n: u32,
  written: bool,
): u32 {
  const size = load<u32>(ring, RING_SIZE);
  const bytes = size * 16;
  const end = load<u32>(ring, RING_DESC) + bytes;
  const first = position == load<u32>(ring, RING_USED_IDX);
  let at = descriptorAt(ring, position);
  let lap: u32 = position & WRAP ? DESC_F_AVAIL | DESC_F_USED : 0;
  for (let i: u32 = 0; i < n; i++) {
    const word = heads + i * stride;
    const head = load<u32>(word);
    const len = written ? load<u32>(word - 4) : 0;
    const flags = len > 0 ? lap | DESC_F_WRITE : lap;
    if (i == 0 && first) {
      firstFlags = flags;
      store<u32>(at, len, 8);
      store<u16>(at, <u16>head, ID);
    } else {
      store<u64>(at, <u64>len | ((<u64>(head & 0xffff)) << 32) | ((<u64>flags) << 48), 8);
    }
    at += (head >> 16) * 16;
    if (at >= end) {
      at -= bytes;
      lap ^= DESC_F_AVAIL | DESC_F_USED;
    }
  }
  return ((at + bytes - end) >> 4) | (lap != 0 ? WRAP : 0);
}

/** The descriptor at the burst's start becomes used last, and with it all behind it. */
export function packedPublish(ring: u32): void {
  publish(descriptorAt(ring, load<u32>(ring, RING_USED_IDX)) + FLAGS, firstFlags);
}

export function packedWanted(ring: u32, old: u32): bool {
  const area = load<u32>(ring, RING_AVAIL);
  const flags = acquire(area + 2);
  if (flags != EVENT_F_DESC) return flags != EVENT_F_DISABLE;
  if (old > 0xffff) return true;
  // need_event over slots (virtio 1.2 §2.8.10): both ends counted back into the new lap.
  const event = acquire(area);
  const position = load<u32>(ring, RING_USED_IDX);
  const size = load<u32>(ring, RING_SIZE);
  const now = position & SLOT_BITS;
  let from = old & SLOT_BITS;
  let at = event & SLOT_BITS;
  if (now <= from) from -= size;
  if ((event ^ position) & WRAP) at -= size;
  return ((now - at - 1) & 0xffff) < ((now - from) & 0xffff);
}

export function packedArm(ring: u32): bool {
  const area = load<u32>(ring, RING_USED);
  const position = load<u32>(ring, RING_LAST_AVAIL);
  const desc = load<u32>(ring, RING_FLAGS) & RINGF_EVENT_IDX;
  if (desc) store<u16>(area, <u16>position);
  publish(area + 2, desc ? EVENT_F_DESC : EVENT_F_ENABLE);
  return !readyAt(ring, position);
}

export function packedDisarm(ring: u32): void {
  publish(load<u32>(ring, RING_USED) + 2, EVENT_F_DISABLE);
}
