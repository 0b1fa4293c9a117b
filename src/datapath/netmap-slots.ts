// Slots of a netmap ring, and moving frames from ring to ring.

import {
  KR_ARMED,
  KR_BAD_SLOTS,
  KR_BUF_COUNT,
  KR_BUF_SIZE,
  KR_BUFS,
  KR_BYTES,
  KR_COPIED,
  KR_EXCESS,
  KR_FD,
  KR_FLAGS,
  KR_FRAMES,
  KR_HDR_LEN,
  KR_HEADER,
  KR_HEADROOM,
  KR_HWCUR,
  KR_HWTAIL,
  KR_LOST,
  KR_MONITOR,
  KR_MONITOR_SWAPS,
  KR_RING,
  KR_SLOTS,
  KRF_RX,
  MAX_FRAGS,
  NM_SLOT,
  NMR_CUR,
  NMR_FIRST,
  NMR_HEAD,
  NMR_TAIL,
  NMS_BUF,
  NMS_FLAGS,
  NMS_LEN,
  NMS_OFFSET,
  NS_BUF_CHANGED,
  NS_MOREFRAG,
  SYNC_SLOT,
} from '../abi/netmap';
import { HDR_F_NEEDS_CSUM, HDR_NUM_BUFFERS } from '../abi/virtio';
import { copy } from './copy';
import { signalKick } from './host';
import { count } from './layout';

/** Slots from `from` to `to`, going round. */
export function distance(from: u32, to: u32, slots: u32): u32 {
  return to >= from ? to - from : to + slots - from;
}

export function after(at: u32, slots: u32): u32 {
  return at + 1 == slots ? 0 : at + 1;
}

export function slotAt(kr: u32, i: u32): u32 {
  return load<u32>(kr, KR_RING) + NMR_FIRST + i * NM_SLOT;
}

/** Whether the slot names a buffer, and its frame lies in it with `front` bytes in front. */
export function fits(kr: u32, slot: u32, front: u32): bool {
  const offset = load<u32>(slot, NMS_OFFSET);
  return (
    load<u32>(slot, NMS_BUF) < load<u32>(kr, KR_BUF_COUNT) &&
    offset >= front &&
    <u64>offset + <u64>load<u32>(slot, NMS_LEN) <= <u64>load<u32>(kr, KR_BUF_SIZE)
  );
}

/** SYNC_SLOT when one of the slots given back names no buffer; else 0. */
export function checkGiven(kr: u32, from: u32, to: u32): i32 {
  const slots = load<u32>(kr, KR_SLOTS);
  const buffers = load<u32>(kr, KR_BUF_COUNT);
  for (; from != to; from = after(from, slots)) {
    if (load<u32>(slotAt(kr, from), NMS_BUF) >= buffers) return SYNC_SLOT;
  }
  return 0;
}

/** Linear address of a slot's frame, or 0 when it does not fit: both, with each field read once. */
export function frameIn(kr: u32, slot: u32, front: u32): u32 {
  const buffer = load<u32>(slot, NMS_BUF);
  const offset = load<u32>(slot, NMS_OFFSET);
  const size = load<u32>(kr, KR_BUF_SIZE);
  const end = <u64>offset + <u64>load<u32>(slot, NMS_LEN);
  if (buffer >= load<u32>(kr, KR_BUF_COUNT) || offset < front || end > <u64>size) return 0;
  return load<u32>(kr, KR_BUFS) + buffer * size + offset;
}

/** Linear address of a slot's frame; it `fits`. */
export function frameAt(kr: u32, slot: u32): u32 {
  const buffer = load<u32>(slot, NMS_BUF) * load<u32>(kr, KR_BUF_SIZE);
  return load<u32>(kr, KR_BUFS) + buffer + load<u32>(slot, NMS_OFFSET);
}

/** Slots of the frame from `at` on, at most `most`; 0 when it does not end before `end`. */
export function slotsOf(kr: u32, at: u32, end: u32, most: u32): u32 {
  const slots = load<u32>(kr, KR_SLOTS);
  for (let n: u32 = 1; at != end && n <= most; n++) {
    if ((load<u32>(slotAt(kr, at), NMS_FLAGS) & NS_MOREFRAG) == 0) return n;
    at = after(at, slots);
  }
  return 0;
}

/** The most slots that a frame of a TX ring can have. */
export function longest(kr: u32): u32 {
  return min(<u32>MAX_FRAGS, load<u32>(kr, KR_SLOTS) - 1);
}

/**
 * Slots to drop from `at` on, counted: a frame longer than any may be, as far as it is there; what is to come
 * of it goes the same way. 0: none, the frame's end may yet come.
 */
export function dropExcess(kr: u32, at: u32, end: u32): u32 {
  const slots = load<u32>(kr, KR_SLOTS);
  if (load<u32>(kr, KR_EXCESS) == 0 && distance(at, end, slots) < longest(kr)) return 0;
  let n: u32 = 0;
  let more = true;
  for (; more && at != end; at = after(at, slots), n++) {
    more = (load<u32>(slotAt(kr, at), NMS_FLAGS) & NS_MOREFRAG) != 0;
  }
  store<u32>(kr, more ? 1 : 0, KR_EXCESS);
  count(kr + KR_BAD_SLOTS, n);
  return n;
}

/** Puts the slot's frame into the other slot by changing buffers with it. */
export function swapSlots(from: u32, to: u32): void {
  const flags = load<u32>(from, NMS_FLAGS);
  const buffer = load<u32>(to, NMS_BUF);
  store<u32>(to, load<u32>(from, NMS_BUF));
  store<u32>(from, buffer);
  store<u32>(to, load<u32>(from, NMS_LEN), NMS_LEN);
  store<u32>(to, load<u32>(from, NMS_OFFSET), NMS_OFFSET);
  store<u32>(to, flags & NS_MOREFRAG, NMS_FLAGS);
  store<u32>(from, flags | NS_BUF_CHANGED, NMS_FLAGS);
}

/** Copies it, with `front` bytes in front of it; false when the other buffer is too small. */
function copySlot(fromKr: u32, from: u32, toKr: u32, to: u32, front: u32): bool {
  const len = load<u32>(from, NMS_LEN);
  const size = load<u32>(toKr, KR_BUF_SIZE);
  if (len > size || size - len < front) return false;
  // A long frame has less in front of it than others.
  const offset = min(load<u32>(toKr, KR_HEADROOM), size - len);
  store<u32>(to, len, NMS_LEN);
  store<u32>(to, offset, NMS_OFFSET);
  store<u32>(to, load<u32>(from, NMS_FLAGS) & NS_MOREFRAG, NMS_FLAGS);
  copy(frameAt(toKr, to) - front, frameAt(fromKr, from) - front, len + front);
  count(toKr + KR_COPIED, len);
  return true;
}

/** Bytes of the header each frame of this ring has in front; 0: none, or all share one. */
export function ownHeader(kr: u32): u32 {
  return load<u32>(kr, KR_HEADER) == 0 ? load<u32>(kr, KR_HDR_LEN) : 0;
}

/**
 * Moves up to `most` frames that the application holds in RX ring `rx` into TX ring `tx`, moving the heads
 * of both: by changing buffers where both have theirs in one memory and `copies` is false. What does not
 * fit waits. Returns slots moved. The caller syncs.
 */
export function nmForward(rx: u32, tx: u32, most: u32, copies: bool): u32 {
  const from = load<u32>(rx, KR_RING);
  const to = load<u32>(tx, KR_RING);
  const rxSlots = load<u32>(rx, KR_SLOTS);
  const txSlots = load<u32>(tx, KR_SLOTS);
  const end = load<u32>(from, NMR_TAIL);
  let at = load<u32>(from, NMR_HEAD);
  let put = load<u32>(to, NMR_HEAD);
  let room = distance(put, load<u32>(to, NMR_TAIL), txSlots);
  const swaps = !copies && load<u32>(rx, KR_BUFS) == load<u32>(tx, KR_BUFS);
  const front = ownHeader(tx);
  const given = ownHeader(rx);
  const limit = longest(tx);
  let moved: u32 = 0;
  for (let frames: u32 = 0; frames < most && at != end; frames++) {
    const n = slotsOf(rx, at, end, rxSlots);
    if (n == 0) break;
    const first = put;
    // One longer than any may be never fits.
    let whole = n <= limit;
    if (whole && n > room) break;
    for (let k: u32 = 0; k < n; k++) {
      const slot = slotAt(rx, at);
      const target = slotAt(tx, put);
      const kept = k == 0 ? min(front, given) : 0;
      at = after(at, rxSlots);
      if (!whole) continue;
      if (!fits(rx, slot, kept)) whole = false;
      else if (swaps) swapSlots(slot, target);
      else if (!copySlot(rx, slot, tx, target, kept)) whole = false;
      put = after(put, txSlots);
    }
    if (!whole) {
      // Never half a frame. Buffers that changed places already are as good as those they replace.
      put = first;
      count(tx + KR_BAD_SLOTS, n);
      continue;
    }
    if (front > 0) sendable(tx, slotAt(tx, first), front, given);
    room -= n;
    moved += n;
  }
  store<u32>(from, at, NMR_HEAD);
  store<u32>(from, at, NMR_CUR);
  store<u32>(to, put, NMR_HEAD);
  store<u32>(to, put, NMR_CUR);
  return moved;
}

/** A received frame's header as one to send (virtio 1.2 §5.1.6.2): DATA_VALID and num_buffers are the device's. */
function sendable(tx: u32, slot: u32, front: u32, given: u32): void {
  if (!fits(tx, slot, front)) return;
  const header = frameAt(tx, slot) - front;
  if (given == 0) {
    memory.fill(header, 0, front);
    return;
  }
  store<u8>(header, load<u8>(header) & HDR_F_NEEDS_CSUM);
  store<u16>(header, 0, HDR_NUM_BUFFERS);
}

// --- monitors -------------------------------------------------------------------------------------

/** Whether somebody watches `kr`, and gets the buffers once they are done with (`done`), or else copies. */
export function isWatched(kr: u32, done: bool): bool {
  return load<u32>(kr, KR_MONITOR) != 0 && done == (load<u32>(kr, KR_MONITOR_SWAPS) != 0);
}

/**
 * Shows whoever watches `kr` the frames in its slots from `from` up to `to`. Copies as they pass, or
 * (`done`) changes buffers, which nobody needs any more.
 */
export function tellMonitor(kr: u32, from: u32, to: u32, done: bool): void {
  if (!isWatched(kr, done)) return;
  const monitor = load<u32>(kr, KR_MONITOR);
  const slots = load<u32>(kr, KR_SLOTS);
  const theirs = load<u32>(monitor, KR_SLOTS);
  const begin = load<u32>(monitor, KR_HWTAIL);
  let put = begin;
  const end = atomic.load<u32>(monitor + KR_HWCUR);
  const leaves = done && (load<u32>(kr, KR_FLAGS) & KRF_RX) != 0;
  while (from != to) {
    const n = slotsOf(kr, from, to, slots);
    if (n == 0) break;
    const room = distance(put, end, theirs);
    // Its last slot stays free, as in any ring; put == end is an empty one.
    let whole = n < (room == 0 ? theirs : room);
    let at = put;
    let bytes: u64 = 0;
    for (let k: u32 = 0; k < n; k++) {
      const slot = slotAt(kr, from);
      from = after(from, slots);
      if (!whole) continue;
      // What was received and moved on without a copy is not here any more.
      if (!fits(kr, slot, 0) || (leaves && load<u32>(slot, NMS_FLAGS) & NS_BUF_CHANGED)) {
        whole = false;
      } else if (done) {
        swapSlots(slot, slotAt(monitor, at));
      } else if (!copySlot(kr, slot, monitor, slotAt(monitor, at), 0)) {
        whole = false;
      }
      bytes += load<u32>(slot, NMS_LEN);
      at = after(at, theirs);
    }
    if (!whole) {
      count(monitor + KR_LOST, 1);
      continue;
    }
    put = at;
    count(monitor + KR_FRAMES, 1);
    count(monitor + KR_BYTES, bytes);
  }
  if (put == begin) return;
  // As in txPipe: published before its reader is looked at.
  atomic.store<u32>(monitor + KR_HWTAIL, put);
  if (atomic.load<u32>(monitor + KR_ARMED) != 0) signalKick(load<i32>(monitor, KR_FD));
}
