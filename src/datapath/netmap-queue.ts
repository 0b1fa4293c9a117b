// Netmap rings on a virtqueue (driver side). netmap.ts says what a sync does.
//
// TX  a frame is one chain: the shared header and its slots, or its slots with its own header in front of
//     the first. Its token is the slot it begins in. Devices may return chains in any order; tail moves
//     over what is done from the oldest on.
// RX  a buffer is one chain, posted without regard to its slot: its token is the buffer, which is put into
//     the next slot when it comes back. With a shared header and no merging the device writes headers to
//     one place, which nobody reads; else in front of the frame, and num_buffers is read there.

import { DRV_ERRORS, DRV_FLAGS, DRV_TABLE, SEG_WRITE } from '../abi/driver';
import { RINGF_IN_ORDER } from '../abi/layout';
import {
  KR_BAD_SLOTS,
  KR_BUF_SIZE,
  KR_BUFS,
  KR_BYTES,
  KR_DRV,
  KR_EXCESS,
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
} from '../abi/netmap';
import { HDR_NUM_BUFFERS } from '../abi/virtio';
import { drvAdd, drvAddOne, drvPopMany, drvPublish } from './driver';
import { signalKick } from './host';
import { count } from './layout';
import {
  after,
  checkGiven,
  distance,
  dropExcess,
  frameAt,
  frameIn,
  isWatched,
  longest,
  ownHeader,
  slotAt,
  slotsOf,
  tellMonitor,
} from './netmap-slots';

/** Of a record: it came back, or was never sent. */
const DONE: u32 = 0x8000_0000;
const DROPPED: u32 = 0x4000_0000;
const SLOTS_MASK: u32 = 0x3fff_ffff;

/** Chains taken back at a time; KR_LIST has room for them. */
const BATCH: u32 = MAX_FRAGS;

/** What addFrame returns of a frame that cannot be sent; else its bytes. */
const UNSENDABLE: i32 = 0;
const NO_DESCRIPTORS: i32 = -1;

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
  const slots = load<u32>(kr, KR_SLOTS);
  const head = load<u32>(load<u32>(kr, KR_RING), NMR_HEAD);
  const first = load<u32>(kr, KR_HWCUR);
  takeUsed(kr, drv);
  if (load<u32>(drv, DRV_ERRORS) != 0) {
    store<u32>(kr, KRE_ID, KR_STATE);
    return;
  }
  const watched = isWatched(kr, false);
  const most = longest(kr);
  let frames: u32 = 0;
  let bytes: u64 = 0;
  let at = first;
  while (at != head) {
    const whole = load<u32>(kr, KR_EXCESS) == 0;
    let n: u32 = whole ? slotsOf(kr, at, head, most) : 0;
    const sent = n > 0 ? addFrame(kr, drv, at, n) : UNSENDABLE;
    if (sent == NO_DESCRIPTORS) {
      count(kr + KR_FULL, 1);
      break;
    }
    let record = n;
    if (sent == UNSENDABLE) {
      if (n > 0) count(kr + KR_BAD_SLOTS, n);
      else n = dropExcess(kr, at, head);
      if (n == 0) break;
      record = n | DONE | DROPPED;
    } else {
      frames++;
      bytes += sent;
    }
    store<u32>(kr + KR_RECORDS + at * 4, record);
    const next = at + n < slots ? at + n : at + n - slots;
    if (watched && sent != UNSENDABLE) tellMonitor(kr, at, next, false);
    at = next;
  }
  store<u32>(kr, at, KR_HWCUR);
  if (frames > 0) {
    count(kr + KR_FRAMES, frames);
    count(kr + KR_BYTES, bytes);
    kick(kr);
  }
  takeBack(kr, slots);
}

/** Notes which frames the device is done with. */
function takeUsed(kr: u32, drv: u32): void {
  for (;;) {
    const n = drvPopMany(drv, kr + KR_LIST, BATCH);
    if (n == 0) return;
    for (let i: u32 = 0; i < n; i++) {
      const record = kr + KR_RECORDS + load<u32>(kr + KR_LIST + i * 8) * 4;
      store<u32>(record, load<u32>(record) | DONE);
    }
  }
}

/** Moves hwtail over the frames that are done, from the oldest on. */
function takeBack(kr: u32, slots: u32): void {
  const end = load<u32>(kr, KR_HWCUR);
  const watched = isWatched(kr, true);
  const first = after(load<u32>(kr, KR_HWTAIL), slots);
  let at = first;
  while (at != end) {
    const record = load<u32>(kr + KR_RECORDS + at * 4);
    if ((record & DONE) == 0) break;
    const passed = at + (record & SLOTS_MASK);
    const next = passed < slots ? passed : passed - slots;
    if (watched && (record & DROPPED) == 0) tellMonitor(kr, at, next, true);
    at = next;
  }
  store<u32>(kr, at == 0 ? slots - 1 : at - 1, KR_HWTAIL);
}

/** Adds the frame in `n` slots from `at` on. Returns its bytes, UNSENDABLE or NO_DESCRIPTORS. */
function addFrame(kr: u32, drv: u32, at: u32, n: u32): i32 {
  const slots = load<u32>(kr, KR_SLOTS);
  const shared = load<u32>(kr, KR_HEADER);
  let front = ownHeader(kr);
  if (n == 1 && shared == 0) {
    // Nearly every frame, its header in front: 10 ns less than by way of a list.
    const slot = slotAt(kr, at);
    const frame = frameIn(kr, slot, front);
    const len = load<u32>(slot, NMS_LEN);
    if (frame == 0 || len == 0) return UNSENDABLE;
    return drvAddOne(drv, frame - front, len + front, at) ? len : NO_DESCRIPTORS;
  }
  const token = at;
  let bytes: u32 = 0;
  let segments: u32 = 0;
  if (shared != 0) put(kr, segments++, shared, load<u32>(kr, KR_HDR_LEN));
  for (let k: u32 = 0; k < n; k++) {
    const slot = slotAt(kr, at);
    const frame = frameIn(kr, slot, front);
    if (frame == 0) return UNSENDABLE;
    const len = load<u32>(slot, NMS_LEN);
    // Every descriptor has bytes in it.
    if (len + front > 0) put(kr, segments++, frame - front, len + front);
    front = 0;
    bytes += len;
    at = after(at, slots);
  }
  if (bytes == 0) return UNSENDABLE;
  const indirect =
    segments > 1 && segments <= <u32>DRV_TABLE && (load<u32>(kr, KR_FLAGS) & KRF_INDIRECT) != 0;
  return drvAdd(drv, kr + KR_LIST, segments, token, indirect) < 0 ? NO_DESCRIPTORS : bytes;
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
  const len = (size - offset) | SEG_WRITE;
  if (front != 0) return drvAddOne(drv, at, len, buffer);
  put(kr, 0, load<u32>(kr, KR_HEADER), load<u32>(kr, KR_HDR_LEN) | SEG_WRITE);
  put(kr, 1, at, len);
  const indirect = (load<u32>(kr, KR_FLAGS) & KRF_INDIRECT) != 0;
  return drvAdd(drv, kr + KR_LIST, 2, buffer, indirect) >= 0;
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
  const first = load<u32>(kr, KR_HWCUR);
  const error = checkGiven(kr, first, head);
  // Not in lots, though that gives 10 % more frames of a busy device: what was given back would be missing
  // in the next burst.
  if (error == 0 && first != head) {
    tellMonitor(kr, first, head, true);
    let at = first;
    for (; at != head; at = after(at, slots)) {
      if (post(kr, drv, load<u32>(slotAt(kr, at), NMS_BUF))) continue;
      count(kr + KR_FULL, 1);
      break;
    }
    store<u32>(kr, at, KR_HWCUR);
    kick(kr);
  }
  const before = load<u32>(kr, KR_HWTAIL);
  fill(kr, drv, slots, load<u32>(kr, KR_HWCUR));
  if (load<u32>(drv, DRV_ERRORS) != 0) store<u32>(kr, KRE_ID, KR_STATE);
  tellMonitor(kr, before, load<u32>(kr, KR_HWTAIL), false);
  return error;
}

/** Puts what the device used into slots, up to the one before `end`. */
function fill(kr: u32, drv: u32, slots: u32, end: u32): void {
  const header = load<u32>(kr, KR_HDR_LEN);
  const headroom = load<u32>(kr, KR_HEADROOM);
  const front = inFront(kr);
  const merges = (load<u32>(kr, KR_FLAGS) & KRF_MRG) != 0;
  const batches = (load<u32>(drv, DRV_FLAGS) & RINGF_IN_ORDER) != 0;
  // What one buffer takes, the shared header with it.
  const room = load<u32>(kr, KR_BUF_SIZE) - headroom + header;
  let stage = load<u32>(kr, KR_STAGE);
  let wanted = load<u32>(kr, KR_WANTED);
  let bytes: u64 = 0;
  let frames: u32 = 0;
  // What is taken back fits: as many as there are slots up to the one before `end`.
  let vacant = distance(after(stage, slots), end, slots);
  let got: u32 = 0;
  let i: u32 = 0;
  for (; vacant > 0; vacant--, i++) {
    if (i == got) {
      got = drvPopMany(drv, kr + KR_LIST, min(vacant, BATCH));
      if (got == 0) break;
      i = 0;
    }
    const buffer = load<u32>(kr + KR_LIST + i * 8);
    let len = load<u32>(kr + KR_LIST + i * 8, 4);
    const next = after(stage, slots);
    // What a batch passes over was filled (virtio 1.2 §2.7.9).
    if (len == 0 && batches) len = room;
    const slot = slotAt(kr, stage);
    store<u32>(slot, buffer);
    stage = next;
    const cut: u32 = wanted == 0 ? header : 0;
    if (len > room || len <= cut) {
      store<u32>(kr, len > room ? KRE_LONG : KRE_SHORT, KR_STATE);
      break;
    }
    const offset = wanted == 0 ? headroom : headroom - front;
    store<u32>(slot, offset, NMS_OFFSET);
    store<u32>(slot, len - cut, NMS_LEN);
    bytes += len - cut;
    if (wanted == 0) {
      // num_buffers (§5.1.6.3.2).
      wanted = merges ? <u32>load<u16>(frameAt(kr, slot) - header, HDR_NUM_BUFFERS) : 1;
      if (wanted == 0 || wanted >= slots) {
        store<u32>(kr, KRE_MERGED, KR_STATE);
        break;
      }
    }
    wanted--;
    store<u32>(slot, wanted > 0 ? NS_MOREFRAG : 0, NMS_FLAGS);
    if (wanted > 0) continue;
    store<u32>(kr, stage, KR_HWTAIL);
    frames++;
  }
  // After a breach: what else was taken back is not lost.
  for (i++; i < got; i++, stage = after(stage, slots)) {
    store<u32>(slotAt(kr, stage), load<u32>(kr + KR_LIST + i * 8));
  }
  store<u32>(kr, stage, KR_STAGE);
  store<u32>(kr, wanted, KR_WANTED);
  if (bytes > 0) {
    count(kr + KR_FRAMES, frames);
    count(kr + KR_BYTES, bytes);
  }
}
