// Split virtqueues, device side (virtio 1.2 §2.7).
//
//   descriptor  {addr u64, len u32, flags u16, next u16}                          driver writes
//   avail       {flags u16, idx u16, ring[size] u16, used_event u16}              driver writes
//   used        {flags u16, idx u16, ring[size] {id u32, len u32}, avail_event}   device writes
//
// Nothing a guest wrote is read twice: a descriptor is loaded into locals, an indirect table into
// scratch, and only those are looked at.

import {
  DROP_RX_BAD_CHAIN,
  DROP_TX_BAD_ADDRESS,
  DROP_TX_BAD_CHAIN,
  DROP_TX_BAD_INDIRECT,
  DROP_TX_WRITABLE,
} from '../abi/drops';
import {
  BROKEN_NONE,
  MAX_SEGMENTS,
  RING_ARMED,
  RING_AVAIL,
  RING_BROKEN,
  RING_CALLS,
  RING_DESC,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_PORT,
  RING_REASON,
  RING_SIGNALLED,
  RING_SIZE,
  RING_STATE,
  RING_USED,
  RING_USED_IDX,
  RINGF_EVENT_IDX,
  RINGF_INDIRECT,
  SCRATCH_TABLE,
} from '../abi/layout';
import {
  AVAIL_F_NO_INTERRUPT,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  USED_F_NO_NOTIFY,
} from '../abi/virtio';
import { signalCall, signalLatched } from './host';
import { acquire, count, indexOf, publish, scratch } from './layout';
import { locate, room, translate } from './memory';

/** Buffers posted and not yet taken; more than the ring holds means the driver is broken. */
export function ready(ring: u32): u32 {
  const idx = acquire(load<u32>(ring, RING_AVAIL) + 2);
  return (idx - load<u32>(ring, RING_LAST_AVAIL)) & 0xffff;
}

// Loops over a burst keep these two in locals: a load after a store cannot be hoisted for them.

export function availRing(ring: u32): u32 {
  return load<u32>(ring, RING_AVAIL) + 4;
}

export function usedRing(ring: u32): u32 {
  return load<u32>(ring, RING_USED) + 4;
}

export function slotMask(ring: u32): u32 {
  return load<u32>(ring, RING_SIZE) - 1;
}

/** The descriptor number in avail slot `position`; the caller checks it against the size. */
export function headAt(avail: u32, mask: u32, position: u32): u32 {
  return load<u16>(avail + (position & mask) * 2);
}

/** Writes used entry `position` (not yet visible: `publishUsed`). */
export function putUsed(used: u32, mask: u32, position: u32, head: u32, len: u32): void {
  store<u64>(used + (position & mask) * 8, <u64>head | ((<u64>len) << 32));
}

/** Takes `taken` buffers and makes `used` entries visible: one index store. */
export function publishUsed(ring: u32, taken: u32, used: u32): void {
  const idx = (load<u32>(ring, RING_USED_IDX) + used) & 0xffff;
  store<u32>(ring, (load<u32>(ring, RING_LAST_AVAIL) + taken) & 0xffff, RING_LAST_AVAIL);
  store<u32>(ring, idx, RING_USED_IDX);
  publish(load<u32>(ring, RING_USED) + 2, idx);
}

/** Calls the guest if it asked for it; follows `publishUsed`, whose store is the fence. */
export function notify(ring: u32): void {
  const avail = load<u32>(ring, RING_AVAIL);
  const idx = load<u32>(ring, RING_USED_IDX);
  const old = load<u32>(ring, RING_SIGNALLED);
  store<u32>(ring, idx, RING_SIGNALLED);
  if (load<u32>(ring, RING_FLAGS) & RINGF_EVENT_IDX) {
    const event = acquire(avail + 4 + load<u32>(ring, RING_SIZE) * 2);
    // need_event (virtio 1.2 §2.7.10); an `old` above 0xffff is "never checked": signal.
    if (old <= 0xffff && ((idx - event - 1) & 0xffff) >= ((idx - old) & 0xffff)) return;
  } else if (acquire(avail) & AVAIL_F_NO_INTERRUPT) {
    return;
  }
  count(ring + RING_CALLS, 1);
  signalCall(indexOf(ring));
}

/** Asks the guest to kick, then looks once more: false when it already added a buffer. */
export function arm(ring: u32): bool {
  const last = load<u32>(ring, RING_LAST_AVAIL);
  const used = load<u32>(ring, RING_USED);
  if (load<u32>(ring, RING_FLAGS) & RINGF_EVENT_IDX) {
    publish(used + 4 + load<u32>(ring, RING_SIZE) * 8, last);
  } else {
    publish(used, 0);
  }
  // Dekker's half: our store above is ordered before this load; the driver stores avail.idx
  // before it reads the event. One of the two sees the other.
  if (acquire(load<u32>(ring, RING_AVAIL) + 2) != last) {
    disarm(ring);
    return false;
  }
  store<u32>(ring, 1, RING_ARMED);
  return true;
}

/** No kicks, please: with EVENT_IDX a stale event is enough. */
export function disarm(ring: u32): void {
  store<u32>(ring, 0, RING_ARMED);
  if (!(load<u32>(ring, RING_FLAGS) & RINGF_EVENT_IDX)) {
    publish(load<u32>(ring, RING_USED), USED_F_NO_NOTIFY);
  }
}

/** The ring cannot be trusted any more: nothing touches it before its next start. */
export function latch(ring: u32, reason: u32): void {
  if (load<u32>(ring, RING_REASON) != BROKEN_NONE) return;
  store<u32>(ring, reason, RING_REASON);
  atomic.store<u32>(ring + RING_STATE, RING_BROKEN);
  signalLatched(indexOf(ring));
}

// --- chains -------------------------------------------------------------------------------------

/** Bytes in the chain last walked. */
export let walkedBytes: u64 = 0;

/** End of the segments written by the last `walk` or `addSegments`. */
export let segmentsEnd: u32 = 0;

/** Appends the linear segments of one buffer; false when a byte of it is not mapped. */
function addSegments(port: u32, addr: u64, len: u32, limit: u32): bool {
  const whole = translate(port, addr, len);
  if (whole) {
    if (segmentsEnd >= limit) return false;
    store<u32>(segmentsEnd, whole);
    store<u32>(segmentsEnd, len, 4);
    segmentsEnd += 8;
    return true;
  }
  // It straddles regions (adjacent in GPA, apart in linear): one segment each. Past 2^64 there is
  // nothing, not even for a guest with memory at 0.
  if (addr + (len - 1) < addr) return false;
  while (len > 0) {
    const linear = locate(port, addr);
    if (linear == 0 || segmentsEnd >= limit) return false;
    const part = room < <u64>len ? <u32>room : len;
    store<u32>(segmentsEnd, linear);
    store<u32>(segmentsEnd, part, 4);
    segmentsEnd += 8;
    addr += part;
    len -= part;
  }
  return true;
}

/** Copies an indirect table to scratch, region by region; 0 when not all of it is mapped. */
function snapshotTable(port: u32, addr: u64, len: u32): u32 {
  const copy = scratch + SCRATCH_TABLE;
  let done: u32 = 0;
  if (addr + (len - 1) < addr) return 0;
  while (done < len) {
    const linear = locate(port, addr + done);
    if (linear == 0) return 0;
    const part = room < <u64>(len - done) ? <u32>room : len - done;
    memory.copy(copy + done, linear, part);
    done += part;
  }
  return copy;
}

/**
 * Walks the chain at `head` and writes its segments {linear, len} from `segments` on, `limit` at
 * most. Sets `segmentsEnd` and `walkedBytes`. Returns a drop reason + 1, or 0 when all is well.
 * Zero-length descriptors are skipped. Ends after MAX_SEGMENTS direct and as many indirect
 * descriptors at the latest, whatever they say: a hostile ring may not hold the worker up.
 */
export function walk(ring: u32, head: u32, writable: bool, segments: u32, limit: u32): u32 {
  const port = load<u32>(ring, RING_PORT);
  let table = load<u32>(ring, RING_DESC);
  let entries = load<u32>(ring, RING_SIZE);
  let indirect = false;
  let left = min<u32>(entries, MAX_SEGMENTS);
  let i = head;
  segmentsEnd = segments;
  walkedBytes = 0;
  while (true) {
    if (left == 0) break;
    left--;
    const descriptor = table + i * 16;
    const addr = load<u64>(descriptor);
    const rest = load<u64>(descriptor, 8);
    const len = <u32>rest;
    const flags = <u32>(rest >> 32) & 0xffff;
    if (flags & DESC_F_INDIRECT) {
      if (
        indirect ||
        flags & DESC_F_NEXT ||
        !(load<u32>(ring, RING_FLAGS) & RINGF_INDIRECT) ||
        len == 0 ||
        len & 15 ||
        len > <u32>MAX_SEGMENTS * 16
      ) {
        return bad(writable, DROP_TX_BAD_INDIRECT);
      }
      table = snapshotTable(port, addr, len);
      if (table == 0) return bad(writable, DROP_TX_BAD_ADDRESS);
      indirect = true;
      entries = len >> 4;
      left = entries;
      i = 0;
      continue;
    }
    if (((flags & DESC_F_WRITE) != 0) != writable) return bad(writable, DROP_TX_WRITABLE);
    if (len > 0) {
      if (!addSegments(port, addr, len, limit)) return bad(writable, DROP_TX_BAD_ADDRESS);
      walkedBytes += len;
    }
    if (!(flags & DESC_F_NEXT)) return 0;
    i = <u32>(rest >> 48);
    if (i >= entries) break;
  }
  return bad(writable, DROP_TX_BAD_CHAIN);
}

function bad(writable: bool, reason: u32): u32 {
  return (writable ? <u32>DROP_RX_BAD_CHAIN : reason) + 1;
}
