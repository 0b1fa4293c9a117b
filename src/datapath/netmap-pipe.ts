// Netmap pipes: a TX ring whose frames turn up in another port's RX ring, buffers changing places.
//
// The writer fills slots [tail, cur) of the reader's ring and publishes KR_HWTAIL; the reader publishes
// KR_HWCUR, the slots it gave back. One thread on each side. A monitor's ring is read in the same way.
// Whoever publishes looks whether the other end sleeps; whoever goes to sleep arms, then looks again.

import {
  KR_ARMED,
  KR_BAD_SLOTS,
  KR_BYTES,
  KR_EXCESS,
  KR_FD,
  KR_FRAMES,
  KR_FULL,
  KR_HWCUR,
  KR_HWTAIL,
  KR_PEER,
  KR_RING,
  KR_SLOTS,
  KR_STAGE,
  NMR_HEAD,
  NMR_TAIL,
  NMS_LEN,
} from '../abi/netmap';
import { signalKick } from './host';
import { count } from './layout';
import {
  after,
  checkGiven,
  distance,
  dropExcess,
  fits,
  longest,
  slotAt,
  slotsOf,
  swapSlots,
  tellMonitor,
} from './netmap-slots';

function wake(kr: u32, peer: u32): void {
  if (atomic.load<u32>(peer + KR_ARMED) != 0) signalKick(load<i32>(kr, KR_FD));
}

export function txPipe(kr: u32): void {
  const reader = load<u32>(kr, KR_PEER);
  const slots = load<u32>(kr, KR_SLOTS);
  const theirs = load<u32>(reader, KR_SLOTS);
  const head = load<u32>(load<u32>(kr, KR_RING), NMR_HEAD);
  const first = load<u32>(kr, KR_HWCUR);
  const most = longest(kr);
  const end = atomic.load<u32>(reader + KR_HWCUR);
  store<u32>(kr, end, KR_STAGE);
  const begin = load<u32>(reader, KR_HWTAIL);
  let put = begin;
  let frames: u32 = 0;
  let bytes: u64 = 0;
  let at = first;
  while (at != head) {
    const n = load<u32>(kr, KR_EXCESS) == 0 ? slotsOf(kr, at, head, most) : 0;
    if (n == 0) {
      const dropped = dropExcess(kr, at, head);
      if (dropped == 0) break;
      at = at + dropped < slots ? at + dropped : at + dropped - slots;
      continue;
    }
    const next = at + n < slots ? at + n : at + n - slots;
    if (!allFit(kr, at, next)) {
      count(kr + KR_BAD_SLOTS, n);
      at = next;
      continue;
    }
    const room = distance(put, end, theirs);
    if (n >= (room == 0 ? theirs : room)) {
      count(kr + KR_FULL, 1);
      break;
    }
    // Before buffers change: who copies looks at the slots.
    tellMonitor(kr, at, next, false);
    for (; at != next; at = after(at, slots)) {
      bytes += load<u32>(slotAt(kr, at), NMS_LEN);
      swapSlots(slotAt(kr, at), slotAt(reader, put));
      put = after(put, theirs);
    }
    frames++;
  }
  store<u32>(kr, at, KR_HWCUR);
  store<u32>(kr, at == 0 ? slots - 1 : at - 1, KR_HWTAIL);
  if (put == begin) return;
  count(kr + KR_FRAMES, frames);
  count(kr + KR_BYTES, bytes);
  count(reader + KR_FRAMES, frames);
  count(reader + KR_BYTES, bytes);
  atomic.store<u32>(reader + KR_HWTAIL, put);
  wake(kr, reader);
}

/** A frame of no bytes is none. */
function allFit(kr: u32, from: u32, to: u32): bool {
  const slots = load<u32>(kr, KR_SLOTS);
  let bytes: u32 = 0;
  for (; from != to; from = after(from, slots)) {
    if (!fits(kr, slotAt(kr, from), 0)) return false;
    bytes += load<u32>(slotAt(kr, from), NMS_LEN);
  }
  return bytes > 0;
}

/** The slots before head are the writer's again. Returns 0, or SYNC_SLOT. */
export function rxPipe(kr: u32): i32 {
  const head = load<u32>(load<u32>(kr, KR_RING), NMR_HEAD);
  const first = load<u32>(kr, KR_HWCUR);
  if (head == first) return 0;
  const error = checkGiven(kr, first, head);
  if (error != 0) return error;
  tellMonitor(kr, first, head, true);
  atomic.store<u32>(kr + KR_HWCUR, head);
  const writer = load<u32>(kr, KR_PEER);
  if (writer != 0) wake(kr, writer);
  return 0;
}

/** Asks to be woken; true when the other end did something since the last sync. */
export function armPipe(kr: u32, sends: bool): bool {
  atomic.store<u32>(kr + KR_ARMED, 1);
  if (sends) {
    return atomic.load<u32>(load<u32>(kr, KR_PEER) + KR_HWCUR) != load<u32>(kr, KR_STAGE);
  }
  return atomic.load<u32>(kr + KR_HWTAIL) != load<u32>(load<u32>(kr, KR_RING), NMR_TAIL);
}
