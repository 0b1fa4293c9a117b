// From frame records into one RX ring: the copying half of a burst.
//
// Receive buffers are gathered ahead in stages, like frames: {LINEAR u32, LEN u32, HEAD u32}, 16 B
// each in scratch. LINEAR 0 marks a buffer of several descriptors (or a bad one), walked when used.
// The used entries of all frames become visible with one index store, after the last copy.
// Long, because gathering, making room and filling share the state of one ring's burst.

import {
  DROP_RX_BAD_CHAIN,
  DROP_RX_DOWN,
  DROP_RX_FULL,
  DROP_RX_MTU,
  DROP_RX_NO_CSUM,
  DROP_RX_NO_TSO,
  DROP_RX_TOO_SMALL,
} from '../abi/drops';
import {
  BROKEN_AVAIL_JUMP,
  BROKEN_HEAD,
  NO_RING,
  PORT_FEATURES,
  PORT_HDR_LEN,
  PORT_MAX_FRAME,
  RING_BROKEN,
  RING_BURSTS,
  RING_BYTES,
  RING_DESC,
  RING_FLAGS,
  RING_FRAMES,
  RING_LAST_AVAIL,
  RING_LOCK,
  RING_PORT,
  RING_RUNNING,
  RING_SIZE,
  RING_STATE,
  RING_USED_IDX,
  RINGF_MRG,
  SCRATCH_BUFFERS,
  SCRATCH_OUT,
  SCRATCH_RX_SEGMENTS,
  SCRATCH_RX_SEGMENTS_END,
  SWITCH_WORKERS,
  WORKER_CURRENT,
  WORKER_LOCKED,
} from '../abi/layout';
import {
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  F_GUEST_CSUM,
  F_GUEST_ECN,
  F_GUEST_TSO4,
  F_GUEST_TSO6,
  GSO_ECN,
  GSO_NONE,
  GSO_TCPV4,
  HDR_F_NEEDS_CSUM,
  HDR_GSO_TYPE,
  HDR_LEN,
  HDR_NUM_BUFFERS,
} from '../abi/virtio';
import { copy, openRead, readInto } from './copy';
import { COUNT, ETH, HDR, KEPT, LEN, PARTS } from './frame';
import { count, countDrop, indexOf, portAt, scratch, worker } from './layout';
import { translate } from './memory';
import {
  availRing,
  headAt,
  latch,
  notify,
  publishUsed,
  putUsed,
  ready,
  segmentsEnd,
  slotMask,
  usedRing,
  walk,
  walkedBytes,
} from './split';

const BUFFER: u32 = 16;
/** Buffers gathered ahead at most, and buffers one frame may take; 4 KiB of scratch. */
const AHEAD: u32 = 256;

// The ring being filled. Positions count from RING_LAST_AVAIL as it stands in memory.
let taken: u32 = 0; // buffers taken
let gathered: u32 = 0; // buffers gathered, at most AHEAD past `taken`
let available: u32 = 0; // buffers posted

function bufferAt(position: u32): u32 {
  return scratch + SCRATCH_BUFFERS + (position & (AHEAD - 1)) * BUFFER;
}

/** Gathers buffers up to position `to`, no further than posted and AHEAD; false: ring latched. */
function gatherBuffers(ring: u32, to: u32): bool {
  to = min(min(to, available), taken + AHEAD);
  const size = load<u32>(ring, RING_SIZE);
  const table = load<u32>(ring, RING_DESC);
  const port = load<u32>(ring, RING_PORT);
  const last = load<u32>(ring, RING_LAST_AVAIL);
  const avail = availRing(ring);
  const mask = slotMask(ring);
  for (let i = gathered; i < to; i++) {
    const head = headAt(avail, mask, last + i);
    if (head >= size) {
      latch(ring, BROKEN_HEAD);
      return false;
    }
    store<u32>(bufferAt(i), head, 8);
  }
  for (let i = gathered; i < to; i++) {
    const buffer = bufferAt(i);
    const descriptor = table + load<u32>(buffer, 8) * 16;
    const addr = load<u64>(descriptor);
    const rest = load<u64>(descriptor, 8);
    const flags = <u32>(rest >> 32) & (DESC_F_NEXT | DESC_F_WRITE | DESC_F_INDIRECT);
    const linear = flags == DESC_F_WRITE ? translate(port, addr, <u32>rest) : 0;
    store<u64>(buffer, <u64>linear | (rest << 32));
  }
  if (to > gathered) gathered = to;
  return true;
}

/** What keeps this frame from this port: a drop reason + 1, or 0. */
function unacceptable(frame: u32, at: u32): u32 {
  const limit = load<u32>(at, PORT_MAX_FRAME);
  const gso = <u32>load<u8>(frame, HDR + HDR_GSO_TYPE);
  if (limit != 0 && gso == GSO_NONE && load<u32>(frame, LEN) > limit) return DROP_RX_MTU + 1;
  if (load<u16>(frame, HDR) == 0) return 0;
  const features = load<u64>(at, PORT_FEATURES);
  if (load<u8>(frame, HDR) & HDR_F_NEEDS_CSUM && !(features & (1 << F_GUEST_CSUM))) {
    return DROP_RX_NO_CSUM + 1;
  }
  if (gso != GSO_NONE) {
    const bit = (gso & ~GSO_ECN) == GSO_TCPV4 ? F_GUEST_TSO4 : F_GUEST_TSO6;
    if (!((features >> bit) & 1)) return DROP_RX_NO_TSO + 1;
    if (gso & GSO_ECN && !(features & (1 << F_GUEST_ECN))) return DROP_RX_NO_TSO + 1;
  }
  return 0;
}

/** Writes the frame over the segments in scratch that make room for it. */
function scatter(frame: u32, hdrLen: u32): void {
  // What is left to read: header and first bytes from SCRATCH_OUT, then the frame's own segments.
  const out = scratch + SCRATCH_OUT;
  const len = load<u32>(frame, LEN);
  let front = hdrLen + min(KEPT, len);
  let from = out;
  let left = hdrLen + len;
  openRead(load<u32>(frame, PARTS));
  for (let to = scratch + SCRATCH_RX_SEGMENTS; left > 0; to += 8) {
    let at = load<u32>(to);
    let room = min(load<u32>(to, 4), left);
    left -= room;
    if (front > 0) {
      const part = min(front, room);
      copy(at, from, part);
      from += part;
      at += part;
      front -= part;
      room -= part;
    }
    readInto(at, room);
  }
}

const ROOM_NONE: i32 = 0;
const ROOM_BAD: i32 = -1;
const ROOM_SMALL: i32 = -2;
const ROOM_LATCHED: i32 = -3;

/** Buffers looked at by the last `makeRoom`. */
let looked: u32 = 0;

/**
 * Makes room for `need` bytes from buffer `taken` on, as segments in SCRATCH_RX_SEGMENTS. Returns
 * how many buffers that takes, or ROOM_NONE (not posted yet), ROOM_BAD (a malformed chain, the
 * last of `looked`), ROOM_SMALL, ROOM_LATCHED.
 */
function makeRoom(ring: u32, need: u32): i32 {
  const mergeable = load<u32>(ring, RING_FLAGS) & RINGF_MRG;
  const limit = scratch + SCRATCH_RX_SEGMENTS_END;
  let at = scratch + SCRATCH_RX_SEGMENTS;
  let capacity: u64 = 0;
  looked = 0;
  while (capacity < need) {
    if (looked == AHEAD || (looked > 0 && !mergeable)) return ROOM_SMALL;
    const position = taken + looked;
    if (position >= available) return ROOM_NONE;
    if (position >= gathered && !gatherBuffers(ring, position + 16)) return ROOM_LATCHED;
    const buffer = bufferAt(position);
    looked++;
    if (load<u32>(buffer) != 0 && at < limit) {
      store<u64>(at, load<u64>(buffer));
      at += 8;
      capacity += load<u32>(buffer, 4);
    } else {
      if (walk(ring, load<u32>(buffer, 8), true, at, limit) != 0) return ROOM_BAD;
      at = segmentsEnd;
      // A buffer longer than any frame is as good as one just long enough.
      store<u32>(buffer, <u32>min<u64>(walkedBytes, 0x10_0000), 4);
      capacity += walkedBytes;
    }
  }
  return looked;
}

/** Composes the header as this receiver gets it, and the frame's first bytes behind it. */
function compose(frame: u32, hdrLen: u32, buffers: u32): void {
  const out = scratch + SCRATCH_OUT;
  v128.store(out, v128.load(frame, HDR));
  if (hdrLen == HDR_LEN) store<u16>(out, <u16>buffers, HDR_NUM_BUFFERS);
  v128.store(out + hdrLen, v128.load(frame, ETH));
}

/**
 * Delivers the `n` frames whose records `list` names to RX ring `ring` of `port`; each one whole,
 * or dropped under a reason of this ring.
 */
export function deliver(port: u32, ring: u32, list: u32, n: u32): void {
  lock(ring);
  if (load<u32>(ring, RING_STATE) == RING_RUNNING) fill(port, ring, list, n);
  else countDrop(ring, DROP_RX_DOWN, n);
  unlock(ring);
}

function fill(port: u32, ring: u32, list: u32, n: u32): void {
  const at = portAt(port);
  const hdrLen = load<u32>(at, PORT_HDR_LEN);
  const plain = load<u32>(at, PORT_MAX_FRAME) == 0;
  let used: u32 = load<u32>(ring, RING_USED_IDX);
  const usedStart = used;
  const entries = usedRing(ring);
  const mask = slotMask(ring);
  let bytes: u64 = 0;
  let frames: u32 = 0;
  taken = 0;
  gathered = 0;
  available = ready(ring);
  if (available > load<u32>(ring, RING_SIZE)) {
    latch(ring, BROKEN_AVAIL_JUMP);
    countDrop(ring, DROP_RX_DOWN, n);
    return;
  }
  gatherBuffers(ring, n);

  for (let i: u32 = 0; i < n; i++) {
    if (load<u32>(ring, RING_STATE) == RING_BROKEN) {
      countDrop(ring, DROP_RX_DOWN, n - i);
      break;
    }
    const frame = load<u32>(list + i * 4);
    if (!plain || load<u16>(frame, HDR) != 0) {
      const reason = unacceptable(frame, at);
      if (reason != 0) {
        countDrop(ring, reason - 1, 1);
        continue;
      }
    }
    const len = load<u32>(frame, LEN);
    const need = hdrLen + len;
    if (taken == gathered && taken < available) gatherBuffers(ring, taken + n - i);
    // The common case: one buffer, one descriptor, room for all.
    if (taken < gathered && len >= KEPT) {
      const buffer = bufferAt(taken);
      const linear = load<u32>(buffer);
      if (linear != 0 && load<u32>(buffer, 4) >= need) {
        v128.store(linear, v128.load(frame, HDR));
        if (hdrLen == HDR_LEN) store<u16>(linear, 1, HDR_NUM_BUFFERS);
        v128.store(linear + hdrLen, v128.load(frame, ETH));
        let to = linear + hdrLen + KEPT;
        const parts = load<u32>(frame, PARTS);
        const end = parts + load<u32>(frame, COUNT) * 8;
        for (let part = parts; part < end; part += 8) {
          const size = load<u32>(part, 4);
          copy(to, load<u32>(part), size);
          to += size;
        }
        putUsed(entries, mask, used++, load<u32>(buffer, 8), need);
        taken++;
        frames++;
        bytes += len;
        continue;
      }
    }
    const buffers = makeRoom(ring, need);
    if (buffers == ROOM_BAD) {
      // The chain goes back empty, with those before it: nothing else would ever take them away.
      // It costs the frame; one walk a frame bounds what a ring full of bad chains can cost us.
      for (let k: u32 = 0; k < looked; k++) {
        putUsed(entries, mask, used++, load<u32>(bufferAt(taken + k), 8), 0);
      }
      taken += looked;
      countDrop(ring, DROP_RX_BAD_CHAIN, 1);
      continue;
    }
    if (buffers <= 0) {
      if (buffers == ROOM_SMALL) countDrop(ring, DROP_RX_TOO_SMALL, 1);
      else if (buffers == ROOM_LATCHED) countDrop(ring, DROP_RX_DOWN, 1);
      else countDrop(ring, DROP_RX_FULL, 1);
      continue;
    }
    compose(frame, hdrLen, buffers);
    scatter(frame, hdrLen);
    let left = need;
    for (let k: i32 = 0; k < buffers; k++) {
      const buffer = bufferAt(taken + k);
      const part = min(left, load<u32>(buffer, 4));
      putUsed(entries, mask, used++, load<u32>(buffer, 8), part);
      left -= part;
    }
    taken += buffers;
    frames++;
    bytes += len;
  }

  if (load<u32>(ring, RING_STATE) == RING_BROKEN) {
    // Latched on the way: what was written before will never be used.
    countDrop(ring, DROP_RX_DOWN, frames);
    return;
  }
  // Stopped on the way is no reason to hold back: main waits for this round to end.
  if (taken == 0) return;
  count(ring + RING_FRAMES, frames);
  count(ring + RING_BYTES, bytes);
  count(ring + RING_BURSTS, 1);
  publishUsed(ring, taken, used - usedStart);
  notify(ring);
}

// With several workers an RX ring may have several writers; each holds one lock at a time, for one
// bounded burst. A worker that traps gives its lock back (poll.ts, `recover`).

function lock(ring: u32): void {
  store<u32>(worker, indexOf(ring), WORKER_CURRENT);
  if (load<u32>(SWITCH_WORKERS) == 1) return;
  while (atomic.cmpxchg<u32>(ring + RING_LOCK, 0, 1) != 0) {}
  store<u32>(worker, indexOf(ring), WORKER_LOCKED);
}

function unlock(ring: u32): void {
  if (load<u32>(SWITCH_WORKERS) == 1) return;
  store<u32>(worker, NO_RING, WORKER_LOCKED);
  atomic.store<u32>(ring + RING_LOCK, 0);
}
