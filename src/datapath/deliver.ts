// From frame records into one RX ring: the copying half of a burst.
//
// room.ts finds the buffers; here a frame is judged against what its receiver negotiated, and
// written whole into them or dropped whole.

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
  NO_RING,
  PORT_FEATURES,
  PORT_HDR_LEN,
  PORT_MAX_FRAME,
  RING_BROKEN,
  RING_BURSTS,
  RING_BYTES,
  RING_FRAMES,
  RING_LOCK,
  RING_RUNNING,
  RING_STATE,
  SCRATCH_OUT,
  SCRATCH_RX_SEGMENTS,
  SWITCH_WORKERS,
  WORKER_CURRENT,
  WORKER_LOCKED,
} from '../abi/layout';
import {
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
import {
  closeRoom,
  makeRoom,
  nextBuffer,
  openRoom,
  ROOM_BAD,
  ROOM_SMALL,
  returnRoom,
  takeBuffer,
  takeRoom,
} from './room';

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
  let bytes: u64 = 0;
  let frames: u32 = 0;
  openRoom(ring, n);
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
    const linear = nextBuffer(ring, need, n - i);
    if (linear != 0 && len >= KEPT) {
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
      takeBuffer(need);
    } else {
      const buffers = makeRoom(ring, need);
      if (buffers <= 0) {
        if (buffers == ROOM_BAD) {
          returnRoom();
          countDrop(ring, DROP_RX_BAD_CHAIN, 1);
        } else {
          const latched = load<u32>(ring, RING_STATE) == RING_BROKEN;
          const full = latched ? <u32>DROP_RX_DOWN : DROP_RX_FULL;
          countDrop(ring, buffers == ROOM_SMALL ? <u32>DROP_RX_TOO_SMALL : full, 1);
        }
        continue;
      }
      compose(frame, hdrLen, buffers);
      scatter(frame, hdrLen);
      takeRoom(buffers, need);
    }
    frames++;
    bytes += len;
  }

  if (load<u32>(ring, RING_STATE) == RING_BROKEN) {
    // Latched on the way: what was written before will never be used.
    countDrop(ring, DROP_RX_DOWN, frames);
    return;
  }
  // Stopped on the way is no reason to hold back: main waits for this round to end.
  if (frames > 0) {
    count(ring + RING_FRAMES, frames);
    count(ring + RING_BYTES, bytes);
    count(ring + RING_BURSTS, 1);
  }
  closeRoom(ring);
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
