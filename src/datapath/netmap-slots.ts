// Slots of a netmap ring, and moving frames from ring to ring.

import {
  KR_BAD_SLOTS,
  KR_BUF_COUNT,
  KR_BUF_SIZE,
  KR_BUFS,
  KR_BYTES,
  KR_COPIED,
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
  NS_MOREFRAG,
} from '../abi/netmap';
import { HDR_F_NEEDS_CSUM } from '../abi/virtio';
import { copy } from './copy';
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

/** Linear address of a slot's frame; it `fits`. */
export function frameAt(kr: u32, slot: u32): u32 {
  const buffer = load<u32>(slot, NMS_BUF) * load<u32>(kr, KR_BUF_SIZE);
  return load<u32>(kr, KR_BUFS) + buffer + load<u32>(slot, NMS_OFFSET);
}

/** Slots of the frame that begins at `at`, of those before `end`; 0 when it does not end before. */
export function slotsOf(kr: u32, at: u32, end: u32): u32 {
  const slots = load<u32>(kr, KR_SLOTS);
  for (let n: u32 = 1; at != end && n <= <u32>MAX_FRAGS; n++) {
    if ((load<u32>(slotAt(kr, at), NMS_FLAGS) & NS_MOREFRAG) == 0) return n;
    at = after(at, slots);
  }
  return 0;
}

/** Puts the slot's frame into the other slot by changing buffers with it. */
export function swapSlots(from: u32, to: u32): void {
  const buffer = load<u32>(to, NMS_BUF);
  store<u32>(to, load<u32>(from, NMS_BUF));
  store<u32>(from, buffer);
  store<u32>(to, load<u32>(from, NMS_LEN), NMS_LEN);
  store<u32>(to, load<u32>(from, NMS_OFFSET), NMS_OFFSET);
  store<u32>(to, load<u32>(from, NMS_FLAGS) & NS_MOREFRAG, NMS_FLAGS);
}

/** Copies it, with `front` bytes in front of it; false when the other buffer is too small. */
function copySlot(fromKr: u32, from: u32, toKr: u32, to: u32, front: u32): bool {
  const len = load<u32>(from, NMS_LEN);
  const offset = load<u32>(toKr, KR_HEADROOM);
  if (<u64>offset + <u64>len > <u64>load<u32>(toKr, KR_BUF_SIZE)) return false;
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
  let moved: u32 = 0;
  for (let frames: u32 = 0; frames < most && at != end; frames++) {
    const n = slotsOf(rx, at, end);
    if (n == 0 || n > room) break;
    const first = put;
    let whole = true;
    for (let k: u32 = 0; k < n; k++) {
      const slot = slotAt(rx, at);
      const target = slotAt(tx, put);
      const kept = k == 0 ? min(front, given) : 0;
      if (!fits(rx, slot, kept)) whole = false;
      else if (swaps) swapSlots(slot, target);
      else if (!copySlot(rx, slot, tx, target, kept)) whole = false;
      at = after(at, rxSlots);
      if (!whole) continue;
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

/** A received frame's header as one to send (virtio 1.2 §5.1.6.2): DATA_VALID is the device's to say. */
function sendable(tx: u32, slot: u32, front: u32, given: u32): void {
  if (!fits(tx, slot, front)) return;
  const header = frameAt(tx, slot) - front;
  if (given == 0) memory.fill(header, 0, front);
  else store<u8>(header, load<u8>(header) & HDR_F_NEEDS_CSUM);
}

// --- monitors -------------------------------------------------------------------------------------

/**
 * Shows whoever watches `kr` the frames in its slots from `from` up to `to`; `done`: nobody needs their
 * buffers any more. Copies as they pass, or changes buffers once they are done with.
 */
export function tellMonitor(kr: u32, from: u32, to: u32, done: bool): void {
  const monitor = load<u32>(kr, KR_MONITOR);
  if (monitor == 0 || done != (load<u32>(kr, KR_MONITOR_SWAPS) != 0)) return;
  const slots = load<u32>(kr, KR_SLOTS);
  const theirs = load<u32>(monitor, KR_SLOTS);
  let put = load<u32>(monitor, KR_HWTAIL);
  const end = atomic.load<u32>(monitor + KR_HWCUR);
  while (from != to) {
    const n = slotsOf(kr, from, to);
    if (n == 0) break;
    const room = distance(put, end, theirs);
    // Its last slot stays free, as in any ring; put == end is an empty one.
    const fitting = n < (room == 0 ? theirs : room);
    let at = put;
    let whole = fitting;
    let bytes: u64 = 0;
    for (let k: u32 = 0; k < n; k++) {
      const slot = slotAt(kr, from);
      if (whole) {
        if (!fits(kr, slot, 0)) whole = false;
        else if (done) swapSlots(slot, slotAt(monitor, at));
        else if (!copySlot(kr, slot, monitor, slotAt(monitor, at), 0)) whole = false;
        bytes += load<u32>(slot, NMS_LEN);
        at = after(at, theirs);
      }
      from = after(from, slots);
    }
    if (!whole) {
      count(monitor + KR_LOST, 1);
      continue;
    }
    put = at;
    count(monitor + KR_FRAMES, 1);
    count(monitor + KR_BYTES, bytes);
  }
  atomic.store<u32>(monitor + KR_HWTAIL, put);
}
