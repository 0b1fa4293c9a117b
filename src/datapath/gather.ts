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
  SCRATCH_TX_CHAINS,
} from '../abi/layout';
import {
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
  drop,
  ETH,
  FRAME_SIZE,
  frameAt,
  HDR,
  KEPT,
  LEN,
  noneDropped,
  PARTS,
} from './frame';
import { portAt, scratch } from './layout';
import { firstRegion, foundIn, translate, within } from './memory';
import { MISSING_NOTHING, MISSING_SLOT, missing, pagesForFrame } from './pager';
import { CHAIN, heads, isPacked, tellingFlags } from './ring';
import { wantSlots } from './slots';
import { BURST_WORK, charge, DESCRIPTOR_WORK, FRAME_WORK, spent } from './work';

/** Bytes of a frame behind those kept, at most. */
const MOST_LEFT: u32 = MAX_FRAME - KEPT;

/** Bytes of the frames last gathered; only if none of them was dropped. */
export let gatheredBytes: u32 = 0;

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
  const chains = scratch + SCRATCH_TX_CHAINS;
  const records = frameAt(0);
  n = heads(ring, load<u32>(ring, RING_LAST_AVAIL), n, chains);
  noneDropped();
  let pool = scratch + SCRATCH_SEGMENTS;
  const poolEnd = scratch + SCRATCH_SEGMENTS_END;
  // Bytes that will be copied; what was spent on finding them is bounded as well.
  let bytes: u32 = 0;
  // Frames mostly lie in one region, for a while.
  let region = firstRegion(port);
  const telling = tellingFlags(isPacked(ring));
  for (let i: u32 = 0; i < n; i++) {
    i = gatherPlain(region, telling, hdrLen, i, n, BURST_WORK - bytes);
    bytes += plainBytes;
    if (bytes > BURST_WORK) n = i;
    if (i >= n) break;
    const chain = chains + i * CHAIN;
    const frame = frameAt(i);
    const descriptor = load<u32>(chain, 4);
    const rest = load<u64>(descriptor, 8);
    const left = <u32>rest - hdrLen - KEPT;
    if (load<u16>(chain, 2) == 1 && (rest & telling) == 0 && left <= MOST_LEFT) {
      const linear = translate(port, load<u64>(descriptor), <u32>rest);
      if (spent > BURST_WORK) n = i + 1;
      if (linear != 0) {
        // 0 where that memory is paged.
        if (foundIn != 0) region = foundIn;
        place(frame, linear + hdrLen, left);
        bytes += <u32>rest;
        if (bytes > BURST_WORK) n = i + 1;
        continue;
      }
    }
    store<u32>(frame, 0, PARTS);
    store<u32>(frame, 0, DEST);
    pagesForFrame();
    const reason = walk(ring, load<u32>(chain), descriptor, false, pool, poolEnd);
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
    checkHeader(frame, features);
    pool = segmentsEnd;
    bytes += <u32>walkedBytes;
    if (bytes > BURST_WORK) n = i + 1;
  }

  const end = records + n * FRAME_SIZE;
  for (let frame = records; frame < end; frame += FRAME_SIZE) {
    // Taken off its chain above, or dropped.
    if (load<u32>(frame, PARTS) != frame + ADDR) continue;
    const first = load<u32>(frame, ADDR) - KEPT;
    v128.store(frame, v128.load(first), ETH);
    // flags and gso_type both zero: the rest means nothing. Most frames.
    if (load<u16>(first - hdrLen) == 0) {
      clearHeader(frame);
    } else {
      v128.store(frame, v128.load(first - hdrLen), HDR);
      checkHeader(frame, features);
    }
  }
  charge(n * FRAME_WORK);
  gatheredBytes = bytes - n * hdrLen;
  return n;
}

/** Bytes, headers too, of the frames that gatherPlain last found. */
let plainBytes: u32 = 0;

/** Notes a frame that lies in one piece at `at`, `left` bytes of it behind those kept. */
export function place(frame: u32, at: u32, left: u32): void {
  store<u64>(frame, <u64>(at + KEPT) | ((<u64>left) << 32), ADDR);
  store<u64>(frame, <u64>(left > 0 ? 1 : 0) | ((<u64>(frame + ADDR)) << 32), COUNT);
  store<u64>(frame, <u64>(left + KEPT), LEN);
}

/**
 * The common case, chains `i` to `n`: one readable descriptor in `region` holds header and frame.
 * Returns the number of the first that is not one, or of the one after more than `limit` bytes.
 */
function gatherPlain(region: u32, telling: u64, hdrLen: u32, i: u32, n: u32, limit: u32): u32 {
  const gpa = load<u64>(region, REGION_GPA);
  const size = load<u64>(region, REGION_SIZE);
  const base = load<u32>(region, REGION_LINEAR);
  let chain = scratch + SCRATCH_TX_CHAINS + i * CHAIN;
  let frame = frameAt(i);
  let bytes: u32 = 0;
  for (; i < n && bytes <= limit; i++) {
    const descriptor = load<u32>(chain, 4);
    const addr = load<u64>(descriptor);
    const rest = load<u64>(descriptor, 8);
    const left = <u32>rest - hdrLen - KEPT;
    const linear = within(gpa, size, base, addr, <u32>rest);
    if (load<u16>(chain, 2) != 1 || (rest & telling) != 0 || left > MOST_LEFT || linear == 0) break;
    place(frame, linear + hdrLen, left);
    bytes += <u32>rest;
    chain += CHAIN;
    frame += FRAME_SIZE;
  }
  plainBytes = bytes;
  return i;
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
  store<u32>(frame, parts, PARTS);
  // The first segment, or none.
  store<u64>(frame, count > 0 ? load<u64>(parts) : 0, ADDR);
}

/** A header that asks for nothing: what else it holds means nothing. */
function clearHeader(frame: u32): void {
  v128.store(frame, i64x2.splat(0), HDR);
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
  if (gso == GSO_NONE) {
    if (flags == 0) clearHeader(frame);
    return;
  }
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
