// The dirty log of a guest that is being migrated (vhost-user, "Migration"): a bitmap in memory of its front
// end, one bit for each 4 KiB of guest-physical memory, bit n % 8 of byte n / 8 for page n. Whatever is
// written into the guest's memory is marked: its bytes first, then their bit.
//
// The front end takes a bit away and then reads the page. So a bit that is there already is enough only if
// what was written can be seen before the bit is looked at: a fence stands between the two. With it most
// marks are loads, and several workers do not fetch the bitmap's lines from each other.

import {
  PORT_LOG,
  RING_FLAGS,
  RING_LOG_DESC,
  RING_LOG_USED,
  RING_PORT,
  RING_SIZE,
  RINGF_EVENT_IDX,
  RINGF_LOG,
  RINGF_LOG_RING,
  RINGF_PACKED,
  SCRATCH_FENCE,
} from '../abi/layout';
import { WRAP } from '../abi/virtio';
import { portAt, scratch } from './layout';
import { gpaOf, NO_GPA } from './memory';
import { advance } from './packed';

/** Whether what is written into this ring's buffers is logged. */
export function logs(ring: u32): bool {
  return (load<u32>(ring, RING_FLAGS) & RINGF_LOG) != 0;
}

/** Whether what is written into the ring itself is. */
export function logsRing(ring: u32): bool {
  return (load<u32>(ring, RING_FLAGS) & RINGF_LOG_RING) != 0;
}

/** What was stored before is visible before any mark that follows is looked for. */
export function fence(): void {
  atomic.store<u32>(scratch + SCRATCH_FENCE, 0);
}

function mark(port: u32, gpa: u64, len: u32): void {
  const log = atomic.load<u64>(portAt(port) + PORT_LOG);
  const bitmap = <u32>log;
  const pages = log >> 32;
  const last = (gpa + len - 1) >> 12;
  // Main has seen to it that all memory has its bits; this is so that nothing else is written to.
  for (let page = gpa >> 12; page <= last && page < pages; page++) {
    const byte = bitmap + <u32>(page >> 3);
    const bit: u8 = 1 << (<u8>page & 7);
    if ((atomic.load<u8>(byte) & bit) == 0) atomic.or<u8>(byte, bit);
  }
}

/** Marks `len` bytes, at least 1, at linear address `at`, all in one region of the ring's port. */
export function logBytes(ring: u32, at: u32, len: u32): void {
  const port = load<u32>(ring, RING_PORT);
  const gpa = gpaOf(port, at);
  if (gpa != NO_GPA) mark(port, gpa, len);
}

/** Marks the first `len` bytes of `segments` {linear u32, len u32}, which have them. */
export function logSegments(ring: u32, segments: u32, len: u32): void {
  for (; len > 0; segments += 8) {
    const part = min(len, load<u32>(segments, 4));
    if (part > 0) logBytes(ring, load<u32>(segments), part);
    len -= part;
  }
}

/** Marks `len` bytes, `offset` from where RING_USED is. */
function logUsed(ring: u32, offset: u32, len: u32): void {
  mark(load<u32>(ring, RING_PORT), load<u64>(ring, RING_LOG_USED) + offset, len);
}

/** Marks `n` entries from `slot` on that lie in a row: used elements, or descriptors of a packed ring. */
function logRow(ring: u32, slot: u32, n: u32): void {
  if (load<u32>(ring, RING_FLAGS) & RINGF_PACKED) {
    mark(load<u32>(ring, RING_PORT), load<u64>(ring, RING_LOG_DESC) + slot * 16, n * 16);
  } else {
    logUsed(ring, 4 + slot * 8, n * 8);
  }
}

/**
 * Marks the used entries of `n` chains, at least 1, from `position` to `behind`; their head words are as for
 * putUsed (ring.ts).
 */
export function logEntries(
  ring: u32,
  position: u32,
  behind: u32,
  heads: u32,
  stride: u32,
  n: u32,
): void {
  const packed = (load<u32>(ring, RING_FLAGS) & RINGF_PACKED) != 0;
  const size = load<u32>(ring, RING_SIZE);
  let slot = packed ? position & (WRAP - 1) : position & (size - 1);
  if (!packed || advance(position, n, size) == behind) {
    // One slot a chain: two rows at most.
    const row = min(n, size - slot);
    logRow(ring, slot, row);
    if (n > row) logRow(ring, 0, n - row);
    return;
  }
  for (let i: u32 = 0; i < n; i++) {
    logRow(ring, slot, 1);
    slot += load<u32>(heads + i * stride) >> 16;
    if (slot >= size) slot -= size;
  }
}

/** Marks what made a burst visible, which began at `position`. */
export function logPublished(ring: u32, position: u32): void {
  if (load<u32>(ring, RING_FLAGS) & RINGF_PACKED) logRow(ring, position & (WRAP - 1), 1);
  else logUsed(ring, 2, 2);
}

/** Marks where kicks are asked for. */
export function logNotification(ring: u32): void {
  const flags = load<u32>(ring, RING_FLAGS);
  if (flags & RINGF_PACKED) logUsed(ring, 0, 4);
  else if (flags & RINGF_EVENT_IDX) logUsed(ring, 4 + load<u32>(ring, RING_SIZE) * 8, 2);
  else logUsed(ring, 0, 2);
}
