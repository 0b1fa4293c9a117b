// From a TX ring to frame records: the staged half of a burst.
//
// Stage by stage over the whole burst (heads, descriptors, first bytes) so that the cache misses
// of one stage overlap. After it nothing of the rings or headers is read again.

import {
  DROP_TX_BAD_ADDRESS,
  DROP_TX_BAD_HEADER,
  DROP_TX_PAGING,
  DROP_TX_TOO_LONG,
  DROP_TX_TOO_SHORT,
} from '../abi/drops';
import {
  MAX_FRAME,
  MIN_FRAME,
  PORT_FEATURES,
  PORT_HDR_LEN,
  REGION_GPA,
  REGION_LINEAR,
  REGION_SIZE,
  RING_LAST_AVAIL,
  RING_PORT,
  SCRATCH_SEGMENTS,
  SCRATCH_SEGMENTS_END,
} from '../abi/layout';
import {
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  F_CSUM,
  F_HOST_ECN,
  F_HOST_TSO4,
  F_HOST_TSO6,
  F_HOST_USO,
  GSO_ECN,
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  HDR_CSUM_OFFSET,
  HDR_CSUM_START,
  HDR_F_NEEDS_CSUM,
  HDR_GSO_SIZE,
  HDR_GSO_TYPE,
} from '../abi/virtio';
import { segmentsEnd, walk, walkedBytes, walkedDescriptors } from './chain';
import { closeRead, openRead, readInto } from './cursor';
import {
  ADDR,
  COUNT,
  DEST,
  DEST_DROP,
  drop,
  ETH,
  frameAt,
  HDR,
  HEAD,
  KEPT,
  LEN,
  PARTS,
  REST,
} from './frame';
import { portAt, scratch } from './layout';
import { firstRegion, translate, within } from './memory';
import { MISSING_NOTHING, MISSING_SLOT, missing, pagesForFrame } from './pager';
import { chainAt, heads, isPacked } from './ring';
import { wantSlots } from './slots';
import { BURST_WORK, charge, DESCRIPTOR_WORK, FRAME_WORK, spent } from './work';

/** Frames whose linear header address waits in PARTS for the stage that loads it. */
const PENDING: u32 = 0xffff_ffff;

/**
 * Gathers up to `n` chains of a TX ring into frame records 0.., marking bad ones with DEST_DROP.
 * Returns how many; fewer when the ring holds fewer, they are as much work as a burst may be, or room
 * runs out (scratch for segments, slots for paged memory); 0 when the ring was latched or even the
 * first has to wait.
 */
export function gather(ring: u32, n: u32): u32 {
  const port = load<u32>(ring, RING_PORT);
  const hdrLen = load<u32>(portAt(port), PORT_HDR_LEN);
  const features = load<u64>(portAt(port), PORT_FEATURES);
  const region = firstRegion(port);
  const gpa = load<u64>(region, REGION_GPA);
  const size = load<u64>(region, REGION_SIZE);
  const base = load<u32>(region, REGION_LINEAR);
  const packed = isPacked(ring);
  const shift: u64 = packed ? 48 : 32;
  // A packed chain's NEXT flags have been counted in its head word.
  const telling: u32 = DESC_F_WRITE | DESC_F_INDIRECT | (packed ? 0 : DESC_F_NEXT);

  n = heads(ring, load<u32>(ring, RING_LAST_AVAIL), n);
  let pool = scratch + SCRATCH_SEGMENTS;
  const poolEnd = scratch + SCRATCH_SEGMENTS_END;
  // Bytes that will be copied; what was spent on finding them is bounded as well.
  let bytes: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const frame = frameAt(i);
    const chain = load<u64>(chainAt(i));
    const head = <u32>chain;
    const descriptor = <u32>(chain >> 32);
    const addr = load<u64>(descriptor);
    const rest = load<u64>(descriptor, 8);
    const len = <u32>rest;
    store<u32>(frame, head, HEAD);
    store<u32>(frame, 0, DEST);
    // The common case: one readable descriptor holds header and frame.
    if (
      head >> 16 == 1 &&
      (<u32>(rest >> shift) & telling) == 0 &&
      len >= hdrLen + KEPT &&
      len <= hdrLen + MAX_FRAME
    ) {
      let linear = within(gpa, size, base, addr, len);
      if (linear == 0) {
        linear = translate(port, addr, len);
        if (spent > BURST_WORK) n = i + 1;
      }
      if (linear != 0) {
        store<u32>(frame, linear, ADDR);
        store<u32>(frame, len - hdrLen, LEN);
        store<u32>(frame, PENDING, PARTS);
        bytes += len;
        if (bytes > BURST_WORK) n = i + 1;
        continue;
      }
    }
    pagesForFrame();
    const reason = walk(ring, head, descriptor, false, pool, poolEnd);
    charge(walkedDescriptors * DESCRIPTOR_WORK);
    if (spent > BURST_WORK) n = i + 1;
    if (reason != 0) {
      if (mayWait(i, reason - 1, poolEnd)) {
        n = i;
        break;
      }
      drop(frame, missing == MISSING_NOTHING ? reason - 1 : <u32>DROP_TX_PAGING);
      continue;
    }
    if (walkedBytes < hdrLen + MIN_FRAME) {
      drop(frame, DROP_TX_TOO_SHORT);
      continue;
    }
    if (walkedBytes > hdrLen + MAX_FRAME) {
      drop(frame, DROP_TX_TOO_LONG);
      continue;
    }
    peel(frame, pool, hdrLen, <u32>walkedBytes - hdrLen);
    pool = segmentsEnd;
    bytes += <u32>walkedBytes;
    if (bytes > BURST_WORK) n = i + 1;
  }

  for (let i: u32 = 0; i < n; i++) {
    const frame = frameAt(i);
    // A dropped frame's record still holds what an earlier burst left there.
    if (load<u32>(frame, DEST) == DEST_DROP) continue;
    if (load<u32>(frame, PARTS) == PENDING) {
      const linear = load<u32>(frame, ADDR);
      v128.store(frame, v128.load(linear), HDR);
      v128.store(frame, v128.load(linear + hdrLen), ETH);
      store<u32>(frame, linear + hdrLen + KEPT, ADDR);
      const left = load<u32>(frame, LEN) - KEPT;
      store<u32>(frame, left, REST);
      store<u32>(frame, left > 0 ? 1 : 0, COUNT);
      store<u32>(frame, frame + ADDR, PARTS);
    }
    // flags and gso_type both zero: nothing to check. Most frames.
    if (load<u16>(frame, HDR) != 0) checkHeader(frame, features);
  }
  charge(n * FRAME_WORK);
  return n;
}

/** Whether frame `i` failed for want of room, and a later burst that begins with it has more. */
function mayWait(i: u32, reason: u32, poolEnd: u32): bool {
  if (missing == MISSING_SLOT) {
    if (i == 0) wantSlots();
    return true;
  }
  return i > 0 && reason == DROP_TX_BAD_ADDRESS && segmentsEnd >= poolEnd;
}

/** Takes header and first bytes off a chain of `n` segments, wherever they are split. */
function peel(frame: u32, segments: u32, hdrLen: u32, len: u32): void {
  const kept = min(KEPT, len);
  v128.store(frame, i32x4.splat(0), HDR);
  v128.store(frame, i32x4.splat(0), ETH);
  openRead(segments);
  readInto(frame + HDR, hdrLen);
  readInto(frame + ETH, kept);
  const parts = closeRead();
  const count = len > kept ? (segmentsEnd - parts) >> 3 : 0;
  store<u32>(frame, len, LEN);
  store<u32>(frame, count, COUNT);
  if (count == 1) {
    store<u32>(frame, load<u32>(parts), ADDR);
    store<u32>(frame, load<u32>(parts, 4), REST);
    store<u32>(frame, frame + ADDR, PARTS);
  } else {
    // ADDR and REST still serve whoever looks at the first segment.
    store<u32>(frame, count ? load<u32>(parts) : 0, ADDR);
    store<u32>(frame, count ? load<u32>(parts, 4) : 0, REST);
    store<u32>(frame, parts, PARTS);
  }
}

/**
 * Checks the header a guest sent against what it negotiated (virtio 1.2 §5.1.6.2): drops what
 * cannot be, clears what means nothing on transmit.
 */
function checkHeader(frame: u32, features: u64): void {
  const flags = <u32>load<u8>(frame, HDR) & HDR_F_NEEDS_CSUM;
  store<u8>(frame, <u8>flags, HDR);
  const gso = <u32>load<u8>(frame, HDR + HDR_GSO_TYPE);
  const len = load<u32>(frame, LEN);
  const start = <u32>load<u16>(frame, HDR + HDR_CSUM_START);
  const offset = <u32>load<u16>(frame, HDR + HDR_CSUM_OFFSET);
  if (flags != 0) {
    if (!(features & (1 << F_CSUM)) || start < <u32>MIN_FRAME || start + offset + 2 > len) {
      drop(frame, DROP_TX_BAD_HEADER);
      return;
    }
  }
  if (gso == GSO_NONE) return;
  const kind = gso & ~GSO_ECN;
  let allowed = false;
  if (kind == GSO_TCPV4) allowed = (features & (1 << F_HOST_TSO4)) != 0;
  else if (kind == GSO_TCPV6) allowed = (features & (1 << F_HOST_TSO6)) != 0;
  else if (gso == GSO_UDP_L4) allowed = ((features >> F_HOST_USO) & 1) != 0;
  if (gso & GSO_ECN && !(features & (1 << F_HOST_ECN))) allowed = false;
  // TCP's or UDP's header must lie in the frame, the checksum where it keeps it.
  const udp = kind == GSO_UDP_L4;
  if (
    !allowed ||
    flags == 0 ||
    load<u16>(frame, HDR + HDR_GSO_SIZE) == 0 ||
    offset != <u32>(udp ? 6 : 16) ||
    start + <u32>(udp ? 8 : 20) > len ||
    !ethertypeFits(frame, kind)
  ) {
    drop(frame, DROP_TX_BAD_HEADER);
  }
}

/** IPv4 for TSO4, IPv6 for TSO6, either for USO; behind a VLAN tag the type lies past the bytes kept: let it be. */
function ethertypeFits(frame: u32, kind: u32): bool {
  const type = bswap<u16>(load<u16>(frame, ETH + 12));
  if (type == 0x8100 || type == 0x88a8) return true;
  if (type == 0x0800) return kind != GSO_TCPV6;
  return type == 0x86dd && kind != GSO_TCPV4;
}
