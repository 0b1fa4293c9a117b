// What a sender left to its receiver, done for one that did not negotiate it: checksums completed and
// frames segmented, while they are copied.

import { DROP_RX_BAD_GSO, DROP_RX_MTU } from '../abi/drops';
import {
  PORT_FEATURES,
  PORT_HDR_LEN,
  PORT_MTU,
  RING_SEGMENTED,
  RING_SEGMENTS,
  RING_SUMMED,
  SCRATCH_OUT,
  SCRATCH_RX_SEGMENTS,
} from '../abi/layout';
import {
  F_GUEST_CSUM,
  F_GUEST_ECN,
  F_GUEST_TSO4,
  F_GUEST_TSO6,
  F_GUEST_USO4,
  F_GUEST_USO6,
  GSO_ECN,
  GSO_NONE,
  GSO_TCPV4,
  GSO_UDP_L4,
  HDR_CSUM_OFFSET,
  HDR_CSUM_START,
  HDR_GSO_SIZE,
  HDR_GSO_TYPE,
  HDR_LEN,
  HDR_NUM_BUFFERS,
} from '../abi/virtio';
import { closeSum, openSum, stored } from './checksum';
import { openRead, openWrite, pass, passSum, patch, skip, write, writeSum } from './cursor';
import { ETH, HDR, KEPT, LEN, PARTS } from './frame';
import { count, countDrop, scratch } from './layout';
import { makeRoom, ROOM_BAD, refuse, takeRoom } from './room';
import {
  csumOffset,
  csumStart,
  headerSum,
  headersLen,
  longestSegment,
  makeHeaders,
  openSegments,
  payloadOf,
  segments,
} from './segment';

/** How a frame gets to a port: as it is, with its checksum completed, cut, or not at all. */
export const WHOLE: u32 = 0;
export const SUMMED: u32 = 1;
export const SEGMENTED: u32 = 2;
export const TOO_LONG: u32 = 3;

export function treatment(frame: u32, at: u32): u32 {
  const limit = longest(frame, at);
  const len = load<u32>(frame, LEN);
  const gso = <u32>load<u8>(frame, HDR + HDR_GSO_TYPE);
  const features = load<u64>(at, PORT_FEATURES);
  if (gso == GSO_NONE) {
    if (len > limit) return TOO_LONG;
    // No more than NEEDS_CSUM is left in the flags (gather.ts).
    return load<u16>(frame, HDR) == 0 || features & (1 << F_GUEST_CSUM) ? WHOLE : SUMMED;
  }
  if (!segmentsItself(frame, gso, features)) return SEGMENTED;
  // Its segments will be as long as this at least; how long TCP's options are is not looked at.
  const headers = <u32>load<u16>(frame, HDR + HDR_CSUM_START) + (gso == GSO_UDP_L4 ? 8 : 20);
  const segment = headers + <u32>load<u16>(frame, HDR + HDR_GSO_SIZE);
  return min(segment, len) > limit ? TOO_LONG : WHOLE;
}

/** The longest frame like this one that the port at `at` takes. A tag in a tag shows by its type. */
function longest(frame: u32, at: u32): u32 {
  const mtu = load<u32>(at, PORT_MTU);
  if (mtu == 0) return u32.MAX_VALUE;
  const type = bswap<u16>(load<u16>(frame, ETH + 12));
  return mtu + (type == 0x88a8 ? 22 : type == 0x8100 ? 18 : 14);
}

/** Whether a receiver with these features takes a frame of this gso_type as it is. */
function segmentsItself(frame: u32, gso: u32, features: u64): bool {
  if (!(features & (1 << F_GUEST_CSUM))) return false;
  if (gso == GSO_UDP_L4) {
    const four = ((features >> F_GUEST_USO4) & 1) != 0;
    const six = ((features >> F_GUEST_USO6) & 1) != 0;
    const type = bswap<u16>(load<u16>(frame, ETH + 12));
    // Behind a VLAN tag the type lies past the bytes kept: it may be either.
    return (four || type == 0x86dd) && (six || type == 0x0800);
  }
  if (gso & GSO_ECN && !(features & (1 << F_GUEST_ECN))) return false;
  const bit: u64 = (gso & ~GSO_ECN) == GSO_TCPV4 ? F_GUEST_TSO4 : F_GUEST_TSO6;
  return ((features >> bit) & 1) != 0;
}

/**
 * Delivers a frame with its checksum completed: over csum_start to the end, with what is stored there
 * (virtio 1.2 §5.1.6.2). Returns frames delivered, 1 or 0.
 */
export function complete(frame: u32, ring: u32, at: u32): u32 {
  const hdrLen = load<u32>(at, PORT_HDR_LEN);
  const len = load<u32>(frame, LEN);
  const need = hdrLen + len;
  const buffers = makeRoom(ring, need);
  if (buffers <= 0) {
    refuse(ring, buffers, 1);
    return 0;
  }
  const room = scratch + SCRATCH_RX_SEGMENTS;
  const out = scratch + SCRATCH_OUT;
  v128.store(out, i32x4.splat(0));
  if (hdrLen == HDR_LEN) store<u16>(out, <u16>buffers, HDR_NUM_BUFFERS);
  openRead(load<u32>(frame, PARTS));
  openWrite(room);
  write(out, hdrLen);
  const start = <u32>load<u16>(frame, HDR + HDR_CSUM_START);
  const offset = <u32>load<u16>(frame, HDR + HDR_CSUM_OFFSET);
  const plain = min(start, KEPT);
  write(frame + ETH, plain);
  pass(start - plain);
  openSum(0);
  writeSum(frame + ETH + plain, KEPT - plain);
  passSum(len - max(start, KEPT));
  patch(room, hdrLen + start + offset, stored(closeSum(), offset));
  takeRoom(ring, buffers, need);
  count(ring + RING_SUMMED, 1);
  return 1;
}

/** Bytes of the segments that the last `cut` delivered. */
export let cutBytes: u64 = 0;

/**
 * Cuts a frame into RX ring `ring` of the port at `at`: each segment whole, or dropped. Returns how
 * many were delivered. Bounded by the buffers posted: without one, all the rest drop at once.
 */
export function cut(frame: u32, ring: u32, at: u32): u32 {
  cutBytes = 0;
  if (!openSegments(frame)) {
    countDrop(ring, DROP_RX_BAD_GSO, 1);
    return 0;
  }
  if (longestSegment() > longest(frame, at)) {
    countDrop(ring, DROP_RX_MTU, 1);
    return 0;
  }
  const hdrLen = load<u32>(at, PORT_HDR_LEN);
  const partial = (load<u64>(at, PORT_FEATURES) & (1 << F_GUEST_CSUM)) != 0;
  const room = scratch + SCRATCH_RX_SEGMENTS;
  count(ring + RING_SEGMENTED, 1);
  count(ring + RING_SEGMENTS, segments);
  let delivered: u32 = 0;
  for (let i: u32 = 0; i < segments; i++) {
    const payload = payloadOf(i);
    const need = hdrLen + headersLen + payload;
    const buffers = makeRoom(ring, need);
    if (buffers == ROOM_BAD) {
      // It took a buffer along: this, too, ends.
      refuse(ring, buffers, 1);
      skip(payload);
      continue;
    }
    if (buffers <= 0) {
      refuse(ring, buffers, segments - i);
      break;
    }
    const out = makeHeaders(i, hdrLen, buffers, partial);
    openWrite(room);
    write(out, hdrLen + headersLen);
    if (partial) {
      pass(payload);
    } else {
      openSum(headerSum(i));
      passSum(payload);
      patch(room, hdrLen + csumStart + csumOffset, stored(closeSum(), csumOffset));
    }
    takeRoom(ring, buffers, need);
    delivered++;
    cutBytes += headersLen + payload;
  }
  return delivered;
}
