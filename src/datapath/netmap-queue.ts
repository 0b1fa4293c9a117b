// Netmap rings on a virtqueue (driver side). netmap.ts says what a sync does.
//
// TX  a frame is one chain: the shared header and its slots, or its slots with its own header in front of
//     the first. Its token is the slot it begins in. Devices may return chains in any order; tail moves
//     over what is done from the oldest on.
// RX  a buffer is one chain, posted without regard to its slot: its token is the buffer, which is put into
//     the next slot when it comes back. With a shared header and no merging the device writes headers to
//     one place, which nobody reads; else in front of the frame, and num_buffers is read there.

import { DRV_ERRORS, DRV_LEN, DRV_TABLE, SEG_WRITE } from '../abi/driver';
import {
  KR_BAD_SLOTS,
  KR_BUF_COUNT,
  KR_BUF_SIZE,
  KR_BUFS,
  KR_BYTES,
  KR_DRV,
  KR_FD,
  KR_FLAGS,
  KR_FRAMES,
  KR_FULL,
  KR_HDR_LEN,
  KR_HEADER,
  KR_HEADROOM,
  KR_HWCUR,
  KR_HWTAIL,
  KR_LIST,
  KR_RECORDS,
  KR_RING,
  KR_SLOTS,
  KR_STAGE,
  KR_STATE,
  KR_WANTED,
  KRE_ID,
  KRE_LONG,
  KRE_MERGED,
  KRE_SHORT,
  KRF_INDIRECT,
  KRF_MRG,
  MAX_FRAGS,
  NMR_HEAD,
  NMS_BUF,
  NMS_FLAGS,
  NMS_LEN,
  NMS_OFFSET,
  NS_MOREFRAG,
  SYNC_SLOT,
} from '../abi/netmap';
import { HDR_LEN, HDR_NUM_BUFFERS } from '../abi/virtio';
import { drvAdd, drvPop, drvPublish } from './driver';
import { signalKick } from './host';
import { count } from './layout';
import {
  after,
  distance,
  fits,
  frameAt,
  ownHeader,
  slotAt,
  slotsOf,
  tellMonitor,
} from './netmap-slots';

const DONE: u32 = 0x8000_0000;

function kick(kr: u32): void {
  if (drvPublish(load<u32>(kr, KR_DRV))) signalKick(load<i32>(kr, KR_FD));
}

function put(kr: u32, n: u32, linear: u32, len: u32): void {
  store<u32>(kr + KR_LIST + n * 8, linear);
  store<u32>(kr + KR_LIST + n * 8, len, 4);
}

// --- TX -------------------------------------------------------------------------------------------

export function txQueue(kr: u32): void {
  const drv = load<u32>(kr, KR_DRV);
  for (let token = drvPop(drv); token >= 0; token = drvPop(drv)) {
    const record = kr + KR_RECORDS + <u32>token * 4;
    store<u32>(record, load<u32>(record) | DONE);
  }
  if (load<u32>(drv, DRV_ERRORS) != 0) {
    store<u32>(kr, KRE_ID, KR_STATE);
    return;
  }
  const slots = load<u32>(kr, KR_SLOTS);
  const head = load<u32>(load<u32>(kr, KR_RING), NMR_HEAD);
  const first = load<u32>(kr, KR_HWCUR);
  let at = first;
  while (at != head) {
    let n = slotsOf(kr, at, head);
    if (n == 0) {
      // Its end is not there yet, unless it is longer than any frame may be.
      if (distance(at, head, slots) < <u32>MAX_FRAGS) break;
      n = MAX_FRAGS;
      count(kr + KR_BAD_SLOTS, n);
      store<u32>(kr + KR_RECORDS + at * 4, n | DONE);
    } else if (!addFrame(kr, drv, at, n)) {
      count(kr + KR_FULL, 1);
      break;
    }
    at = at + n < slots ? at + n : at + n - slots;
  }
  store<u32>(kr, at, KR_HWCUR);
  if (at != first) {
    tellMonitor(kr, first, at, false);
    kick(kr);
  }
  takeBack(kr, slots);
}

/** Moves hwtail over the frames that are done, from the oldest on. */
function takeBack(kr: u32, slots: u32): void {
  const end = load<u32>(kr, KR_HWCUR);
  const first = after(load<u32>(kr, KR_HWTAIL), slots);
  let at = first;
  while (at != end) {
    const record = kr + KR_RECORDS + at * 4;
    const n = load<u32>(record);
    if ((n & DONE) == 0) break;
    store<u32>(record, 0);
    const next = at + (n & ~DONE);
    at = next < slots ? next : next - slots;
  }
  if (at == first) return;
  tellMonitor(kr, first, at, true);
  store<u32>(kr, at == 0 ? slots - 1 : at - 1, KR_HWTAIL);
}

/** Adds the frame in `n` slots from `at` on; one that cannot be is dropped. False: no descriptors. */
function addFrame(kr: u32, drv: u32, at: u32, n: u32): bool {
  const slots = load<u32>(kr, KR_SLOTS);
  const shared = load<u32>(kr, KR_HEADER);
  const own = ownHeader(kr);
  const begin = at;
  let bytes: u32 = 0;
  let segments: u32 = 0;
  if (shared != 0) put(kr, segments++, shared, load<u32>(kr, KR_HDR_LEN));
  for (let k: u32 = 0; k < n; k++) {
    const slot = slotAt(kr, at);
    const front = k == 0 ? own : 0;
    if (!fits(kr, slot, front)) {
      count(kr + KR_BAD_SLOTS, n);
      store<u32>(kr + KR_RECORDS + begin * 4, n | DONE);
      return true;
    }
    const len = load<u32>(slot, NMS_LEN);
    // Every descriptor has bytes in it.
    if (len + front > 0) put(kr, segments++, frameAt(kr, slot) - front, len + front);
    bytes += len;
    at = after(at, slots);
  }
  const indirect =
    segments > 1 && segments <= <u32>DRV_TABLE && (load<u32>(kr, KR_FLAGS) & KRF_INDIRECT) != 0;
  if (drvAdd(drv, kr + KR_LIST, segments, begin, indirect) < 0) return false;
  store<u32>(kr + KR_RECORDS + begin * 4, n);
  count(kr + KR_FRAMES, 1);
  count(kr + KR_BYTES, bytes);
  return true;
}

// --- RX -------------------------------------------------------------------------------------------

/** Bytes of header in front of a received frame, in its buffer. */
function inFront(kr: u32): u32 {
  return load<u32>(kr, KR_HEADER) == 0 || load<u32>(kr, KR_FLAGS) & KRF_MRG
    ? load<u32>(kr, KR_HDR_LEN)
    : 0;
}

/** Gives one buffer to the device; false when there are no descriptors for it. */
function post(kr: u32, drv: u32, buffer: u32): bool {
  const front = inFront(kr);
  const size = load<u32>(kr, KR_BUF_SIZE);
  const offset = load<u32>(kr, KR_HEADROOM) - front;
  const at = load<u32>(kr, KR_BUFS) + buffer * size + offset;
  let segments: u32 = 0;
  if (front == 0)
    put(kr, segments++, load<u32>(kr, KR_HEADER), load<u32>(kr, KR_HDR_LEN) | SEG_WRITE);
  put(kr, segments++, at, (size - offset) | SEG_WRITE);
  const indirect = segments > 1 && (load<u32>(kr, KR_FLAGS) & KRF_INDIRECT) != 0;
  return drvAdd(drv, kr + KR_LIST, segments, buffer, indirect) >= 0;
}

/** Posts the buffers of all slots: once, on a fresh ring. */
export function nmStart(kr: u32): void {
  const drv = load<u32>(kr, KR_DRV);
  const slots = load<u32>(kr, KR_SLOTS);
  for (let i: u32 = 0; i < slots; i++) post(kr, drv, load<u32>(slotAt(kr, i)));
  kick(kr);
}

/** Returns 0, or SYNC_SLOT. */
export function rxQueue(kr: u32): i32 {
  const drv = load<u32>(kr, KR_DRV);
  const slots = load<u32>(kr, KR_SLOTS);
  const head = load<u32>(load<u32>(kr, KR_RING), NMR_HEAD);
  const buffers = load<u32>(kr, KR_BUF_COUNT);
  const first = load<u32>(kr, KR_HWCUR);
  tellMonitor(kr, first, head, true);
  let at = first;
  let error: i32 = 0;
  for (; at != head; at = after(at, slots)) {
    const buffer = load<u32>(slotAt(kr, at), NMS_BUF);
    if (buffer >= buffers) {
      error = SYNC_SLOT;
      break;
    }
    if (!post(kr, drv, buffer)) {
      count(kr + KR_FULL, 1);
      break;
    }
  }
  store<u32>(kr, at, KR_HWCUR);
  if (at != first) kick(kr);
  const before = load<u32>(kr, KR_HWTAIL);
  fill(kr, drv, slots, at);
  if (load<u32>(drv, DRV_ERRORS) != 0) store<u32>(kr, KRE_ID, KR_STATE);
  tellMonitor(kr, before, load<u32>(kr, KR_HWTAIL), false);
  return error;
}

/** Puts what the device used into slots, up to the one before `end`. */
function fill(kr: u32, drv: u32, slots: u32, end: u32): void {
  const header = load<u32>(kr, KR_HDR_LEN);
  const headroom = load<u32>(kr, KR_HEADROOM);
  const front = inFront(kr);
  // What one buffer takes, the shared header with it.
  const room = load<u32>(kr, KR_BUF_SIZE) - headroom + header;
  let stage = load<u32>(kr, KR_STAGE);
  let wanted = load<u32>(kr, KR_WANTED);
  let bytes: u64 = 0;
  let frames: u64 = 0;
  while (after(stage, slots) != end) {
    const buffer = drvPop(drv);
    if (buffer < 0) break;
    const len = load<u32>(drv, DRV_LEN);
    const begins = wanted == 0;
    const slot = slotAt(kr, stage);
    store<u32>(slot, <u32>buffer);
    stage = after(stage, slots);
    const least: u32 = begins ? header : 1;
    if (len > room || len < least) {
      store<u32>(kr, len > room ? KRE_LONG : KRE_SHORT, KR_STATE);
      break;
    }
    store<u32>(slot, begins ? headroom : headroom - front, NMS_OFFSET);
    store<u32>(slot, begins ? len - header : len, NMS_LEN);
    if (begins) {
      wanted = merged(kr, slot, header);
      if (wanted == 0 || wanted >= slots) {
        store<u32>(kr, KRE_MERGED, KR_STATE);
        break;
      }
    }
    wanted--;
    bytes += load<u32>(slot, NMS_LEN);
    store<u32>(slot, wanted > 0 ? NS_MOREFRAG : 0, NMS_FLAGS);
    if (wanted > 0) continue;
    store<u32>(kr, stage, KR_HWTAIL);
    frames++;
  }
  store<u32>(kr, stage, KR_STAGE);
  store<u32>(kr, wanted, KR_WANTED);
  if (frames > 0) {
    count(kr + KR_FRAMES, frames);
    count(kr + KR_BYTES, bytes);
  }
}

/** num_buffers of the frame that begins in this slot (virtio 1.2 §5.1.6.3.2). */
function merged(kr: u32, slot: u32, header: u32): u32 {
  if ((load<u32>(kr, KR_FLAGS) & KRF_MRG) == 0) return 1;
  return <u32>load<u16>(frameAt(kr, slot) - header, HDR_NUM_BUFFERS);
}
