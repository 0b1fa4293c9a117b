// Descriptor chains: from what a guest wrote to segments of linear memory.
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
  MAX_SEGMENTS,
  RING_DESC,
  RING_FLAGS,
  RING_PORT,
  RING_SIZE,
  RINGF_INDIRECT,
  SCRATCH_TABLE,
} from '../abi/layout';
import { DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE } from '../abi/virtio';
import { scratch } from './layout';
import { locate, room, translate } from './memory';
import { clearMissing } from './pager';
import { isPacked } from './ring';

/** Bytes in the chain last walked. */
export let walkedBytes: u64 = 0;

/** Descriptors looked at in the chain last walked. */
export let walkedDescriptors: u32 = 0;

/** End of the segments written by the last `walk`. */
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
  // It straddles regions or pages (adjacent in GPA, apart in linear): one segment each. Past 2^64
  // there is nothing, not even for a guest with memory at 0.
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

/** Copies an indirect table to scratch, region by region, page by page; 0 when not all of it is mapped. */
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
 * Walks the chain that `heads` named by `head` and `descriptor`, and writes its segments {linear,
 * len} from `segments` on, `limit` at most. Sets `segmentsEnd` and `walkedBytes`. Returns a drop
 * reason + 1, or 0 when all is well. Zero-length descriptors are skipped. Ends after MAX_SEGMENTS
 * direct and as many indirect descriptors at the latest, whatever they say: a hostile ring may not
 * hold the worker up. What failed for want of a page is told by `missing` (pager.ts).
 *
 * A split chain goes where `next` points while NEXT is set. A packed one, and its indirect table,
 * is so many descriptors in a row: NEXT has been counted before, or means nothing (virtio 1.2
 * §2.8.7).
 */
export function walk(
  ring: u32,
  head: u32,
  descriptor: u32,
  writable: bool,
  segments: u32,
  limit: u32,
): u32 {
  const port = load<u32>(ring, RING_PORT);
  const packed = isPacked(ring);
  const span = head >> 16;
  let table = load<u32>(ring, RING_DESC);
  let entries = load<u32>(ring, RING_SIZE);
  let indirect = false;
  let left = packed ? span : min<u32>(entries, MAX_SEGMENTS);
  let i = (descriptor - table) >> 4;
  segmentsEnd = segments;
  walkedBytes = 0;
  walkedDescriptors = 0;
  clearMissing();
  while (left > 0) {
    left--;
    walkedDescriptors++;
    const at = table + i * 16;
    const addr = load<u64>(at);
    const rest = load<u64>(at, 8);
    const len = <u32>rest;
    const flags = <u32>(rest >> (packed ? 48 : 32)) & 0xffff;
    if (flags & DESC_F_INDIRECT) {
      if (
        indirect ||
        (packed ? span > 1 : (flags & DESC_F_NEXT) != 0) ||
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
    if (packed) {
      // Its flags were looked at before, to find where it ends: what they said then must still stand.
      if (!indirect && ((flags & DESC_F_NEXT) != 0) != left > 0) break;
      if (left == 0) return 0;
      i++;
      if (i == entries) i = 0;
    } else {
      if (!(flags & DESC_F_NEXT)) return 0;
      i = <u32>(rest >> 48);
      if (i >= entries) break;
    }
  }
  return bad(writable, DROP_TX_BAD_CHAIN);
}

function bad(writable: bool, reason: u32): u32 {
  return (writable ? <u32>DROP_RX_BAD_CHAIN : reason) + 1;
}
