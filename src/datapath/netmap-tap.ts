// Netmap rings on a TAP device: the kernel's stack is on the other side. Frames go through system calls,
// a batch of them at a time (host.ts), so what is sent is done with when the sync ends.
//
// The header, where the device has one, lies in front of each frame, in its buffer.

import {
  KR_ARMED,
  KR_BAD_SLOTS,
  KR_BUF_SIZE,
  KR_BUFS,
  KR_BYTES,
  KR_COPIED,
  KR_EXCESS,
  KR_FD,
  KR_FRAMES,
  KR_HDR_LEN,
  KR_HEADROOM,
  KR_HWCUR,
  KR_HWTAIL,
  KR_LIST,
  KR_LOST,
  KR_RING,
  KR_SLOTS,
  NMR_HEAD,
  NMS_BUF,
  NMS_FLAGS,
  NMS_LEN,
  NMS_OFFSET,
} from '../abi/netmap';
import { copy } from './copy';
import { tapRead, tapWrite } from './host';
import { count } from './layout';
import {
  after,
  checkGiven,
  distance,
  dropExcess,
  fits,
  frameAt,
  longest,
  slotAt,
  slotsOf,
  tellMonitor,
} from './netmap-slots';

/** Frames a system call; KR_LIST has room for them. */
const BATCH: u32 = 64;

function listed(kr: u32, i: u32): u32 {
  return kr + KR_LIST + i * 8;
}

export function txTap(kr: u32): void {
  const slots = load<u32>(kr, KR_SLOTS);
  const head = load<u32>(load<u32>(kr, KR_RING), NMR_HEAD);
  const header = load<u32>(kr, KR_HDR_LEN);
  const first = load<u32>(kr, KR_HWCUR);
  const most = longest(kr);
  let at = first;
  let waiting: u32 = 0;
  while (at != head) {
    let n = load<u32>(kr, KR_EXCESS) == 0 ? slotsOf(kr, at, head, most) : 0;
    if (n == 0) {
      n = dropExcess(kr, at, head);
      if (n == 0) break;
    } else if (fits(kr, slotAt(kr, at), header) && (n == 1 || gathered(kr, at, n))) {
      const slot = slotAt(kr, at);
      store<u32>(listed(kr, waiting), frameAt(kr, slot) - header);
      store<u32>(listed(kr, waiting), load<u32>(slot, NMS_LEN) + header, 4);
      waiting++;
    } else {
      count(kr + KR_BAD_SLOTS, n);
    }
    at = at + n < slots ? at + n : at + n - slots;
    if (waiting == BATCH) {
      write(kr, waiting, header);
      waiting = 0;
    }
  }
  if (waiting > 0) write(kr, waiting, header);
  tellMonitor(kr, first, at, false);
  tellMonitor(kr, first, at, true);
  store<u32>(kr, at, KR_HWCUR);
  store<u32>(kr, at == 0 ? slots - 1 : at - 1, KR_HWTAIL);
}

/** Puts a frame of several slots into the buffer of the first; false when it is too small, or one is bad. */
function gathered(kr: u32, at: u32, n: u32): bool {
  const slots = load<u32>(kr, KR_SLOTS);
  const first = slotAt(kr, at);
  for (let k: u32 = 1; k < n; k++) {
    at = after(at, slots);
    const slot = slotAt(kr, at);
    const len = load<u32>(first, NMS_LEN);
    const more = load<u32>(slot, NMS_LEN);
    if (!fits(kr, slot, 0)) return false;
    if (<u64>load<u32>(first, NMS_OFFSET) + len + more > <u64>load<u32>(kr, KR_BUF_SIZE))
      return false;
    copy(frameAt(kr, first) + len, frameAt(kr, slot), more);
    store<u32>(first, len + more, NMS_LEN);
    store<u32>(slot, 0, NMS_LEN);
    count(kr + KR_COPIED, more);
  }
  return true;
}

/** The kernel takes a frame or refuses it (a device that is down): that one is lost. */
function write(kr: u32, n: u32, header: u32): void {
  const took = tapWrite(load<i32>(kr, KR_FD), kr + KR_LIST, n);
  for (let i: u32 = 0; i < n; i++) {
    const bytes = i < took ? load<i32>(listed(kr, i), 4) : -1;
    if (bytes < 0) {
      count(kr + KR_LOST, 1);
    } else {
      count(kr + KR_FRAMES, 1);
      count(kr + KR_BYTES, <u64>(<u32>bytes - header));
    }
  }
}

/** Returns 0, or SYNC_SLOT. */
export function rxTap(kr: u32): i32 {
  const slots = load<u32>(kr, KR_SLOTS);
  const head = load<u32>(load<u32>(kr, KR_RING), NMR_HEAD);
  const error = checkGiven(kr, load<u32>(kr, KR_HWCUR), head);
  if (error != 0) return error;
  tellMonitor(kr, load<u32>(kr, KR_HWCUR), head, true);
  store<u32>(kr, head, KR_HWCUR);
  const before = load<u32>(kr, KR_HWTAIL);
  const free = distance(before, head, slots);
  read(kr, before, min((free == 0 ? slots : free) - 1, BATCH));
  tellMonitor(kr, before, load<u32>(kr, KR_HWTAIL), false);
  return 0;
}

function read(kr: u32, at: u32, n: u32): void {
  if (n == 0) {
    store<u32>(kr, 0, KR_ARMED);
    return;
  }
  const slots = load<u32>(kr, KR_SLOTS);
  const header = load<u32>(kr, KR_HDR_LEN);
  const offset = load<u32>(kr, KR_HEADROOM);
  const size = load<u32>(kr, KR_BUF_SIZE);
  const most = size - offset + header;
  for (let i: u32 = 0, slot = at; i < n; i++, slot = after(slot, slots)) {
    const buffer = load<u32>(kr, KR_BUFS) + load<u32>(slotAt(kr, slot), NMS_BUF) * size;
    store<u32>(listed(kr, i), buffer + offset - header);
    store<u32>(listed(kr, i), most, 4);
  }
  const got = tapRead(load<i32>(kr, KR_FD), kr + KR_LIST, n);
  store<u32>(kr, got < n ? 1 : 0, KR_ARMED);
  let put = at;
  for (let i: u32 = 0, from = at; i < got; i++, from = after(from, slots)) {
    const bytes = load<i32>(listed(kr, i), 4);
    if (bytes < 0 || <u32>bytes < header) continue;
    // One that fills the buffer was cut off by the kernel, which does not say so.
    if (<u32>bytes == most) {
      count(kr + KR_LOST, 1);
      continue;
    }
    const slot = slotAt(kr, put);
    const source = slotAt(kr, from);
    const buffer = load<u32>(source, NMS_BUF);
    store<u32>(source, load<u32>(slot, NMS_BUF));
    store<u32>(slot, buffer);
    store<u32>(slot, <u32>bytes - header, NMS_LEN);
    store<u32>(slot, offset, NMS_OFFSET);
    store<u32>(slot, 0, NMS_FLAGS);
    put = after(put, slots);
    count(kr + KR_FRAMES, 1);
    count(kr + KR_BYTES, <u64>(<u32>bytes - header));
  }
  store<u32>(kr, put, KR_HWTAIL);
}
