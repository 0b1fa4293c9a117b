// Room in one RX ring: the buffers a guest posted, gathered ahead, and taken frame by frame.
//
// Buffers are gathered in stages, like frames, into 16 B records in scratch: {LINEAR u32, LEN u32,
// HEAD u32, DESCRIPTOR u32}, the last two as ring.ts names chains. LINEAR 0 marks a buffer of
// several descriptors (or a bad one, or one whose page is not mapped), walked when it is used.
//
// A buffer taken keeps its record, LEN now what was written, until its used entry is: all of a burst
// in one go, line after line, and visible with one store after the last copy (`closeRoom`). The
// driver looks at those lines meanwhile; writing them frame by frame would fetch each back and forth.

import {
  DROP_RX_BAD_CHAIN,
  DROP_RX_DOWN,
  DROP_RX_FULL,
  DROP_RX_PAGING,
  DROP_RX_SCATTERED,
  DROP_RX_TOO_SMALL,
} from '../abi/drops';
import {
  AHEAD,
  MAX_SEGMENTS,
  REGION_GPA,
  REGION_LINEAR,
  REGION_SIZE,
  RING_BROKEN,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_PORT,
  RING_SIZE,
  RING_STATE,
  RING_USED_IDX,
  RINGF_MRG,
  SCRATCH_BUFFERS,
  SCRATCH_RX_CHAINS,
  SCRATCH_RX_SEGMENTS,
  SCRATCH_RX_SEGMENTS_END,
  SCRATCH_TOUCHED,
} from '../abi/layout';
import { DESC_F_WRITE } from '../abi/virtio';
import { segmentsEnd, walk, walkedBytes, walkedDescriptors } from './chain';
import { countDrop, scratch } from './layout';
import { fence, logBytes, logSegments, logs } from './log';
import { firstRegion, foundIn, translate, within } from './memory';
import {
  MISSING_NOTHING,
  MISSING_SLOT,
  missing,
  pagesAhead,
  pagesForFrame,
  pagesForReceiving,
  tooManyPages,
} from './pager';
import {
  CHAIN,
  heads,
  headsCut,
  headsEnd,
  isPacked,
  notify,
  publishUsed,
  putUsed,
  ready,
  tellingFlags,
} from './ring';
import { charge, DESCRIPTOR_WORK } from './work';

/**
 * Buffers and descriptors that a burst may look at, and for each of its frames. A burst of 64 KiB frames,
 * four of them, needs 43 buffers of 1.5 KiB each, or one a segment that is cut for it. With both used up it
 * took 40 us.
 */
const BURST_LOOKS: u32 = MAX_SEGMENTS;
const FRAME_LOOKS: u32 = 32;

const BUFFER: u32 = 16;
export const BUF_LEN: u32 = 4;
const BUF_HEAD: u32 = 8;
const BUF_DESCRIPTOR: u32 = 12;

// The ring being filled. Buffers are counted from RING_LAST_AVAIL as it stands in memory.
let written: u32 = 0; // buffers whose used entries are written
export let taken: u32 = 0; // buffers taken
export let gathered: u32 = 0; // buffers gathered, at most AHEAD past `written`
let available: u32 = 0; // buffers there are at most
let position: u32 = 0; // ring position behind the last gathered
let used: u32 = 0; // ring position behind the last written
let packed: bool = false;
let logging: bool = false; // what is written is marked (log.ts)
let cutShort: bool = false; // more is posted than `available`, in too many pieces
let looksLeft: u32 = 0; // buffers and descriptors that may still be looked at for this burst

export function bufferAt(i: u32): u32 {
  return scratch + SCRATCH_BUFFERS + (i & (AHEAD - 1)) * BUFFER;
}

/** Turns to a ring of which about `n` buffers are needed. It may get latched, here and later. */
export function openRoom(ring: u32, n: u32): void {
  packed = isPacked(ring);
  logging = logs(ring);
  cutShort = false;
  looksLeft = BURST_LOOKS + n * FRAME_LOOKS;
  written = 0;
  taken = 0;
  gathered = 0;
  // What a packed ring holds is seen as it is taken; a guest that keeps refilling it, against the
  // rules, does not keep us.
  available = packed ? load<u32>(ring, RING_SIZE) : ready(ring, 1);
  position = load<u32>(ring, RING_LAST_AVAIL);
  used = load<u32>(ring, RING_USED_IDX);
  gatherBuffers(ring, n);
}

/** Gathers buffers up to number `to`, no further than posted and AHEAD. */
function gatherBuffers(ring: u32, to: u32): void {
  if (to > written + AHEAD) writeUsed(ring);
  to = min(min(to, available), written + AHEAD);
  if (to <= gathered) return;
  const chains = scratch + SCRATCH_RX_CHAINS;
  const n = heads(ring, position, to - gathered, chains);
  position = headsEnd;
  if (n < to - gathered) {
    available = gathered + n;
    cutShort = headsCut;
  }
  const port = load<u32>(ring, RING_PORT);
  const telling = tellingFlags(packed);
  const single: u64 = (<u64>DESC_F_WRITE) << (packed ? 48 : 32);
  let region = firstRegion(port);
  let gpa = load<u64>(region, REGION_GPA);
  let size = load<u64>(region, REGION_SIZE);
  let base = load<u32>(region, REGION_LINEAR);
  pagesAhead();
  for (let i: u32 = 0; i < n; i++) {
    const chain = load<u64>(chains + i * CHAIN);
    const descriptor = <u32>(chain >> 32);
    const addr = load<u64>(descriptor);
    const rest = load<u64>(descriptor, 8);
    let linear: u32 = 0;
    if (<u32>chain >> 16 == 1 && (rest & telling) == single) {
      linear = within(gpa, size, base, addr, <u32>rest);
      if (linear == 0) {
        linear = translate(port, addr, <u32>rest);
        // The next one probably lies in the same.
        if (linear != 0 && foundIn != 0) {
          region = foundIn;
          gpa = load<u64>(region, REGION_GPA);
          size = load<u64>(region, REGION_SIZE);
          base = load<u32>(region, REGION_LINEAR);
        }
      }
    }
    const buffer = bufferAt(gathered + i);
    store<u64>(buffer, <u64>linear | (rest << 32));
    store<u64>(buffer, chain, BUF_HEAD);
  }
  pagesForReceiving();
  gathered += n;
}

/**
 * Looks at the line that each buffer's header goes to. Fetched side by side here, they would be waited for
 * one by one while frames are written (plain.ts): 8 ns a frame. The lines behind are not worth it, they
 * are written without being read.
 */
export function touchRoom(): void {
  let sum: u32 = 0;
  for (let i = taken; i < gathered; i++) {
    const linear = load<u32>(bufferAt(i));
    if (linear == 0) continue;
    sum += <u32>load<u8>(linear);
  }
  // Or the compiler would leave the loads out.
  store<u32>(scratch, sum, SCRATCH_TOUCHED);
}

/**
 * The common case: the next buffer is one descriptor with room for `need` bytes. Returns where it
 * is, or 0; `more` buffers at most are likely needed from here on.
 */
export function nextBuffer(ring: u32, need: u32, more: u32): u32 {
  if (taken == gathered) {
    if (taken >= available) return 0;
    gatherBuffers(ring, taken + more);
    if (taken == gathered) return 0;
  }
  const buffer = bufferAt(taken);
  return load<u32>(buffer, BUF_LEN) >= need ? load<u32>(buffer) : 0;
}

/** Takes the buffers up to number `to`, whose records say already what was written. */
export function takeBuffersTo(to: u32): void {
  taken = to;
}

/** Takes the next buffer, `len` bytes of it written. */
export function takeBuffer(len: u32): void {
  store<u32>(bufferAt(taken), len, BUF_LEN);
  taken++;
}

/** Marks what was written into buffers of one descriptor; those of several were marked when they were taken. */
function logTaken(ring: u32): void {
  fence();
  for (let i = written; i < taken; i++) {
    const buffer = bufferAt(i);
    const len = load<u32>(buffer, BUF_LEN);
    if (load<u32>(buffer) != 0 && len > 0) logBytes(ring, load<u32>(buffer), len);
  }
}

/** Of a ring that was latched: what was written will never be used, and was written. */
export function abandonRoom(ring: u32): void {
  if (logging) logTaken(ring);
}

/** Writes the used entries of all buffers taken; records lie in a ring: two runs at most. */
function writeUsed(ring: u32): void {
  if (logging) logTaken(ring);
  while (written < taken) {
    const run = min(taken - written, AHEAD - (written & (AHEAD - 1)));
    used = putUsed(ring, used, bufferAt(written) + BUF_HEAD, BUFFER, run, true);
    written += run;
  }
}

// makeRoom's answers besides a number of buffers.
/** Not posted yet, or the ring was latched. */
export const ROOM_NONE: i32 = 0;
/** A malformed chain, or one that can never be mapped; the last of those looked at. */
export const ROOM_BAD: i32 = -1;
export const ROOM_SMALL: i32 = -2;
/** A page of a buffer is not mapped, and no slot is free for it. */
export const ROOM_UNMAPPED: i32 = -3;
/** The burst has looked at so many pieces that it may look at no more. */
export const ROOM_SCATTERED: i32 = -4;

/** Buffers looked at by the last `makeRoom`. */
let looked: u32 = 0;

/**
 * Makes room for `need` bytes from the next buffer on, as segments in SCRATCH_RX_SEGMENTS. Returns
 * how many buffers that takes, or one of the answers above.
 */
export function makeRoom(ring: u32, need: u32): i32 {
  const mergeable = load<u32>(ring, RING_FLAGS) & RINGF_MRG;
  const limit = scratch + SCRATCH_RX_SEGMENTS_END;
  let at = scratch + SCRATCH_RX_SEGMENTS;
  let capacity: u64 = 0;
  looked = 0;
  pagesForFrame();
  while (capacity < need) {
    if (looked == AHEAD || (looked > 0 && !mergeable)) return ROOM_SMALL;
    const i = taken + looked;
    if (i >= available) return cutShort ? ROOM_SCATTERED : ROOM_NONE;
    if (looksLeft == 0) return ROOM_SCATTERED;
    if (i >= gathered) {
      gatherBuffers(ring, i + 16);
      if (i >= gathered) return cutShort ? ROOM_SCATTERED : ROOM_NONE;
    }
    const buffer = bufferAt(i);
    looked++;
    looksLeft--;
    if (load<u32>(buffer) != 0 && load<u32>(buffer, BUF_LEN) != 0 && at < limit) {
      store<u64>(at, load<u64>(buffer));
      at += 8;
      capacity += load<u32>(buffer, BUF_LEN);
    } else {
      const head = load<u32>(buffer, BUF_HEAD);
      const bad = walk(ring, head, load<u32>(buffer, BUF_DESCRIPTOR), true, at, limit) != 0;
      looksLeft -= min(looksLeft, walkedDescriptors);
      charge(walkedDescriptors * DESCRIPTOR_WORK);
      // One without a byte of room would stay, and be looked at, for ever.
      if (bad || walkedBytes == 0) {
        if (missing != MISSING_SLOT) return ROOM_BAD;
        tooManyPages();
        return ROOM_UNMAPPED;
      }
      at = segmentsEnd;
      // A buffer longer than any frame is as good as one just long enough.
      store<u32>(buffer, <u32>min<u64>(walkedBytes, 0x10_0000), BUF_LEN);
      capacity += walkedBytes;
    }
  }
  return looked;
}

/** Takes the `buffers` that makeRoom found, `len` bytes of them written. */
export function takeRoom(ring: u32, buffers: u32, len: u32): void {
  if (logging) {
    fence();
    logSegments(ring, scratch + SCRATCH_RX_SEGMENTS, len);
  }
  for (let k: u32 = 0; k < buffers; k++) {
    const part = min(len, load<u32>(bufferAt(taken), BUF_LEN));
    takeBuffer(part);
    len -= part;
  }
}

/**
 * Gives what makeRoom looked at back empty: nothing else would ever take a bad chain away. It costs
 * the frame; one walk a frame bounds what a ring full of bad chains can cost us.
 */
function returnRoom(): void {
  for (let k: u32 = 0; k < looked; k++) takeBuffer(0);
}

/** Counts `n` frames that makeRoom's `answer`, not a number of buffers, keeps from the guest. */
export function refuse(ring: u32, answer: i32, n: u32): void {
  let reason: u32 = DROP_RX_FULL;
  if (answer == ROOM_BAD) {
    returnRoom();
    reason = missing == MISSING_NOTHING ? DROP_RX_BAD_CHAIN : DROP_RX_PAGING;
  } else if (answer == ROOM_UNMAPPED) {
    reason = DROP_RX_PAGING;
  } else if (answer == ROOM_SCATTERED) {
    reason = DROP_RX_SCATTERED;
  } else if (answer == ROOM_SMALL) {
    reason = DROP_RX_TOO_SMALL;
  } else if (load<u32>(ring, RING_STATE) == RING_BROKEN) {
    reason = DROP_RX_DOWN;
  }
  countDrop(ring, reason, n);
}

/** Publishes the burst and calls the guest; without a buffer taken it does nothing. */
export function closeRoom(ring: u32): void {
  if (taken == 0) return;
  writeUsed(ring);
  publishUsed(ring, used);
  notify(ring);
}
