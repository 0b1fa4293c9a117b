// Netmap pipes: a TX ring whose frames turn up in another port's RX ring, buffers changing places.
//
// The writer fills slots [tail, cur) of the reader's ring and publishes KR_HWTAIL; the reader publishes
// KR_HWCUR, the slots it gave back. One thread on each side. A monitor's ring is read in the same way.

import {
  KR_ARMED,
  KR_BAD_SLOTS,
  KR_BYTES,
  KR_FD,
  KR_FRAMES,
  KR_FULL,
  KR_HWCUR,
  KR_HWTAIL,
  KR_PEER,
  KR_RING,
  KR_SLOTS,
  MAX_FRAGS,
  NMR_HEAD,
  NMS_LEN,
} from '../abi/netmap';
import { signalKick } from './host';
import { count } from './layout';
import { after, distance, fits, slotAt, slotsOf, swapSlots, tellMonitor } from './netmap-slots';

export function txPipe(kr: u32): void {
  const reader = load<u32>(kr, KR_PEER);
  const slots = load<u32>(kr, KR_SLOTS);
  const theirs = load<u32>(reader, KR_SLOTS);
  const head = load<u32>(load<u32>(kr, KR_RING), NMR_HEAD);
  const first = load<u32>(kr, KR_HWCUR);
  const end = atomic.load<u32>(reader + KR_HWCUR);
  let put = load<u32>(reader, KR_HWTAIL);
  // Before buffers change: a monitor that copies looks at the slots.
  let at = first;
  while (at != head) {
    const n = slotsOf(kr, at, head);
    if (n == 0) {
      if (distance(at, head, slots) < <u32>MAX_FRAGS) break;
      count(kr + KR_BAD_SLOTS, MAX_FRAGS);
      for (let k: u32 = 0; k < <u32>MAX_FRAGS; k++) at = after(at, slots);
      continue;
    }
    const room = distance(put, end, theirs);
    if (n >= (room == 0 ? theirs : room)) {
      count(kr + KR_FULL, 1);
      break;
    }
    let sound = true;
    for (let k: u32 = 0, i = at; k < n; k++, i = after(i, slots)) {
      if (!fits(kr, slotAt(kr, i), 0)) sound = false;
    }
    if (!sound) {
      count(kr + KR_BAD_SLOTS, n);
      for (let k: u32 = 0; k < n; k++) at = after(at, slots);
      continue;
    }
    let next = at;
    for (let k: u32 = 0; k < n; k++) next = after(next, slots);
    tellMonitor(kr, at, next, false);
    let bytes: u64 = 0;
    for (; at != next; at = after(at, slots)) {
      bytes += load<u32>(slotAt(kr, at), NMS_LEN);
      swapSlots(slotAt(kr, at), slotAt(reader, put));
      put = after(put, theirs);
    }
    count(kr + KR_FRAMES, 1);
    count(kr + KR_BYTES, bytes);
    count(reader + KR_FRAMES, 1);
    count(reader + KR_BYTES, bytes);
  }
  store<u32>(kr, at, KR_HWCUR);
  store<u32>(kr, at == 0 ? slots - 1 : at - 1, KR_HWTAIL);
  if (at == first) return;
  // Published before its reader is looked at: it arms, and looks again, in the other order.
  atomic.store<u32>(reader + KR_HWTAIL, put);
  if (atomic.load<u32>(reader + KR_ARMED) != 0) signalKick(load<i32>(kr, KR_FD));
}

/** The slots before head are the writer's again. */
export function rxPipe(kr: u32): void {
  const head = load<u32>(load<u32>(kr, KR_RING), NMR_HEAD);
  tellMonitor(kr, load<u32>(kr, KR_HWCUR), head, true);
  atomic.store<u32>(kr + KR_HWCUR, head);
}
