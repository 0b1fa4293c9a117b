// From frame records into one RX ring: the copying half of a burst.
//
// room.ts finds the buffers; here a frame is written whole into them, or dropped whole. offload.ts
// judges what its receiver did not negotiate, and does it.

import { DROP_RX_DOWN, DROP_RX_MTU } from '../abi/drops';
import {
  NO_RING,
  PORT_HDR_LEN,
  PORT_MTU,
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
import { HDR_LEN, HDR_NUM_BUFFERS } from '../abi/virtio';
import { copy } from './copy';
import { openRead, openWrite, pass, write } from './cursor';
import { COUNT, ETH, HDR, KEPT, LEN, PARTS } from './frame';
import { count, countDrop, indexOf, portAt, scratch, worker } from './layout';
import { complete, cut, cutBytes, SEGMENTED, SUMMED, TOO_LONG, treatment } from './offload';
import { deliverPlain, plainBytes, writeHeader } from './plain';
import {
  abandonRoom,
  closeRoom,
  makeRoom,
  nextBuffer,
  openRoom,
  refuse,
  takeBuffer,
  takeRoom,
  touchRoom,
} from './room';
import { charge, FRAME_WORK } from './work';

/** Writes the frame over the segments in scratch that make room for it, its header as they get it. */
function scatter(frame: u32, hdrLen: u32, buffers: u32): void {
  const out = scratch + SCRATCH_OUT;
  v128.store(out, v128.load(frame, HDR));
  if (hdrLen == HDR_LEN) store<u16>(out, <u16>buffers, HDR_NUM_BUFFERS);
  const len = load<u32>(frame, LEN);
  const kept = min(KEPT, len);
  openRead(load<u32>(frame, PARTS));
  openWrite(scratch + SCRATCH_RX_SEGMENTS);
  write(out, hdrLen);
  write(frame + ETH, kept);
  pass(len - kept);
}

/**
 * Delivers the `n` frames whose records `list` names to RX ring `ring` of `port`; each one whole,
 * or dropped under a reason of this ring.
 */
export function deliver(port: u32, ring: u32, list: u32, n: u32): void {
  lock(ring);
  // Acquired, as for polling (poll.ts).
  if (atomic.load<u32>(ring + RING_STATE) == RING_RUNNING) fill(port, ring, list, n);
  else countDrop(ring, DROP_RX_DOWN, n);
  unlock(ring);
}

function fill(port: u32, ring: u32, list: u32, n: u32): void {
  const at = portAt(port);
  const hdrLen = load<u32>(at, PORT_HDR_LEN);
  const plain = load<u32>(at, PORT_MTU) == 0;
  let bytes: u64 = 0;
  let frames: u32 = 0;
  openRoom(ring, n);
  touchRoom();
  for (let i: u32 = 0; i < n; i++) {
    if (plain) {
      const ran = deliverPlain(list + i * 4, n - i, hdrLen);
      frames += ran;
      bytes += plainBytes;
      i += ran;
      if (i == n) break;
    }
    // Of a ring latched on the way no buffers come any more: `refuse` counts what is left as down.
    const frame = load<u32>(list + i * 4);
    if (!plain || load<u16>(frame, HDR) != 0) {
      const how = treatment(frame, at);
      if (how == TOO_LONG) {
        countDrop(ring, DROP_RX_MTU, 1);
        continue;
      }
      if (how == SUMMED) {
        const done = complete(frame, ring, at);
        frames += done;
        bytes += done * load<u32>(frame, LEN);
        continue;
      }
      if (how == SEGMENTED) {
        frames += cut(frame, ring, at);
        bytes += cutBytes;
        continue;
      }
    }
    const len = load<u32>(frame, LEN);
    const need = hdrLen + len;
    const linear = nextBuffer(ring, need, n - i);
    if (linear != 0 && len >= KEPT) {
      writeHeader(linear, frame, hdrLen);
      v128.store(linear + hdrLen, v128.load(frame, ETH));
      let to = linear + hdrLen + KEPT;
      let part = load<u32>(frame, PARTS);
      for (let left = load<u32>(frame, COUNT); left > 0; left--) {
        const size = load<u32>(part, 4);
        copy(to, load<u32>(part), size);
        to += size;
        part += 8;
      }
      takeBuffer(need);
    } else {
      const buffers = makeRoom(ring, need);
      if (buffers <= 0) {
        refuse(ring, buffers, 1);
        continue;
      }
      scatter(frame, hdrLen, buffers);
      takeRoom(ring, buffers, need);
    }
    frames++;
    bytes += len;
  }

  charge((n + frames) * FRAME_WORK + <u32>bytes);
  if (load<u32>(ring, RING_STATE) == RING_BROKEN) {
    // Latched on the way: what was written before will never be used.
    countDrop(ring, DROP_RX_DOWN, frames);
    abandonRoom(ring);
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
