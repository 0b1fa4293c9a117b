// Cutting a frame that its sender left to be segmented (TSO, USO) into frames of its own.
//
// The headers are read once into scratch and checked there; that copy is the template of every
// segment's headers, changed in place from one segment to the next. The reading cursor then stands
// at the payload, which goes to the receiver piece by piece: one copy.
//
//   SCRATCH_HEADERS  +0   virtio-net header, its end at +16
//                    +16  Ethernet, VLAN tags, IP, extension headers or options, TCP or UDP
//
// What the sender says beside the bytes (hdr_len) is not used, nor is what it stored as length or
// checksum: every segment's are made anew.

import { HEADERS_MAX, SCRATCH_HEADERS } from '../abi/layout';
import {
  GSO_ECN,
  GSO_TCPV4,
  GSO_UDP_L4,
  HDR_CSUM_OFFSET,
  HDR_CSUM_START,
  HDR_F_NEEDS_CSUM,
  HDR_GSO_SIZE,
  HDR_GSO_TYPE,
  HDR_LEN,
  HDR_NUM_BUFFERS,
} from '../abi/virtio';
import { CSUM_TCP, CSUM_UDP, complement, fold, sumOf } from './checksum';
import { openRead, readInto } from './cursor';
import { ETH, HDR, KEPT, LEN, PARTS } from './frame';
import { scratch } from './layout';

const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;
const ETHERTYPE_VLAN: u32 = 0x8100;
const ETHERTYPE_QINQ: u32 = 0x88a8;
const TCP: u32 = 6;
const UDP: u32 = 17;
// IPv6 extension headers that may stand before the transport header (RFC 8200 §4).
const HOP_BY_HOP: u32 = 0;
const ROUTING: u32 = 43;
const DESTINATION: u32 = 60;

const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
const TCP_FLAGS: u32 = 13;
const FIN_PSH: u32 = 0x09;
const CWR: u32 = 0x80;

/** Segments the frame makes: at least 1. */
export let segments: u32 = 0;
/** Bytes of each segment's headers, Ethernet included. */
export let headersLen: u32 = 0;
/** Offsets of a segment's TCP or UDP header in the frame, and of the checksum in that. */
export let csumStart: u32 = 0;
export let csumOffset: u32 = 0;

let mss: u32 = 0;
let payload: u32 = 0;
let have: u32 = 0; // bytes in scratch
let limit: u32 = 0; // bytes that may come to be there
let ip: u32 = 0; // offset of the IP header
let v4: bool = false;
let tcp: bool = false;
let firstId: u32 = 0; // IPv4's
let firstSeq: u32 = 0; // TCP's
let flags: u32 = 0; // TCP's

function headers(): u32 {
  return scratch + SCRATCH_HEADERS + 16;
}

/** Reads on until `n` bytes of the frame are in scratch; false when it may not be so many. */
function need(n: u32): bool {
  if (n > limit) return false;
  if (n > have) {
    readInto(headers() + have, n - have);
    have = n;
  }
  return true;
}

function byteAt(offset: u32): u32 {
  return <u32>load<u8>(headers() + offset);
}

function wordAt(offset: u32): u32 {
  return <u32>bswap<u16>(load<u16>(headers() + offset));
}

function setWord(offset: u32, value: u32): void {
  store<u16>(headers() + offset, bswap<u16>(<u16>value));
}

/**
 * Reads and checks the headers of a frame whose virtio header asks for segmentation, as gather.ts
 * let it pass. False unless they are IPv4 or IPv6, unfragmented, and TCP or UDP as gso_type says,
 * where csum_start says.
 */
export function openSegments(frame: u32): bool {
  const len = load<u32>(frame, LEN);
  const kind = <u32>load<u8>(frame, HDR + HDR_GSO_TYPE) & ~GSO_ECN;
  tcp = kind != GSO_UDP_L4;
  limit = min<u32>(len, HEADERS_MAX);
  have = KEPT;
  v128.store(headers(), v128.load(frame, ETH));
  openRead(load<u32>(frame, PARTS));

  let at: u32 = 12;
  if (!need(at + 2)) return false;
  let type = wordAt(at);
  for (let tags = 0; tags < 2 && (type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ); tags++) {
    at += 4;
    if (!need(at + 2)) return false;
    type = wordAt(at);
  }
  ip = at + 2;
  v4 = type == ETHERTYPE_IPV4;
  if (!v4 && type != ETHERTYPE_IPV6) return false;
  if (tcp && v4 != (kind == GSO_TCPV4)) return false;
  if (!(v4 ? openIpv4() : openIpv6())) return false;
  if (csumStart != <u32>load<u16>(frame, HDR + HDR_CSUM_START)) return false;
  csumOffset = tcp ? CSUM_TCP : CSUM_UDP;
  if (csumOffset != <u32>load<u16>(frame, HDR + HDR_CSUM_OFFSET)) return false;

  headersLen = csumStart + UDP_HEADER;
  if (tcp) {
    if (!need(csumStart + 20)) return false;
    const size = (byteAt(csumStart + 12) >> 4) * 4;
    if (size < 20) return false;
    headersLen = csumStart + size;
  }
  if (!need(headersLen)) return false;
  payload = len - headersLen;
  mss = <u32>load<u16>(frame, HDR + HDR_GSO_SIZE);
  segments = payload > mss ? (payload + mss - 1) / mss : 1;
  // Neither IP nor UDP can say more.
  if (headersLen - ip + min(payload, mss) > 0xffff) return false;
  if (tcp) {
    firstSeq = bswap<u32>(load<u32>(headers() + csumStart, 4));
    flags = byteAt(csumStart + TCP_FLAGS);
  }
  return true;
}

function openIpv4(): bool {
  if (!need(ip + 20)) return false;
  const size = (byteAt(ip) & 15) * 4;
  if (byteAt(ip) >> 4 != 4 || size < 20 || !need(ip + size)) return false;
  // More fragments, or an offset: only a whole datagram can be cut again.
  if ((wordAt(ip + 6) & 0x3fff) != 0) return false;
  firstId = wordAt(ip + 4);
  csumStart = ip + size;
  return byteAt(ip + 9) == (tcp ? TCP : UDP);
}

function openIpv6(): bool {
  if (!need(ip + IPV6_HEADER) || byteAt(ip) >> 4 != 6) return false;
  let next = byteAt(ip + 6);
  csumStart = ip + IPV6_HEADER;
  // Ends: each one takes at least 8 of HEADERS_MAX bytes.
  while (next == HOP_BY_HOP || next == ROUTING || next == DESTINATION) {
    if (!need(csumStart + 8)) return false;
    // On its way to another address than the header's: the pseudo-header is not made of what is
    // here (RFC 8200 §8.1).
    if (next == ROUTING && byteAt(csumStart + 3) != 0) return false;
    next = byteAt(csumStart);
    csumStart += (byteAt(csumStart + 1) + 1) * 8;
    if (!need(csumStart)) return false;
  }
  return next == (tcp ? TCP : UDP);
}

/** Bytes of payload in segment `i`. */
export function payloadOf(i: u32): u32 {
  return min(mss, payload - i * mss);
}

/** Length of the longest segment, Ethernet header included. */
export function longestSegment(): u32 {
  return headersLen + min(mss, payload);
}

/**
 * Makes the headers of segment `i` for a receiver whose virtio header is `hdrLen` long and says
 * `buffers`. With `partial` the checksum is left to it: NEEDS_CSUM, and the pseudo-header's sum in
 * its place. Otherwise the place is 0. Returns where virtio header and headers begin.
 */
export function makeHeaders(i: u32, hdrLen: u32, buffers: u32, partial: bool): u32 {
  const part = payloadOf(i);
  setWord(csumStart + csumOffset, 0);
  if (tcp) {
    const kept = (i == 0 ? 0xff : ~CWR) & (i + 1 == segments ? 0xff : ~FIN_PSH);
    store<u32>(headers() + csumStart, bswap<u32>(firstSeq + i * mss), 4);
    store<u8>(headers() + csumStart, <u8>(flags & kept), TCP_FLAGS);
  } else {
    setWord(csumStart + 4, UDP_HEADER + part);
  }
  if (v4) {
    setWord(ip + 2, headersLen - ip + part);
    setWord(ip + 4, firstId + i);
    setWord(ip + 10, 0);
    store<u16>(headers() + ip, <u16>complement(sumOf(headers() + ip, csumStart - ip)), 10);
  } else {
    setWord(ip + 4, headersLen - ip - IPV6_HEADER + part);
  }
  const out = headers() - hdrLen;
  v128.store(headers() - 16, i32x4.splat(0));
  if (hdrLen == HDR_LEN) store<u16>(out, <u16>buffers, HDR_NUM_BUFFERS);
  if (partial) {
    store<u8>(out, HDR_F_NEEDS_CSUM);
    store<u16>(out, <u16>csumStart, HDR_CSUM_START);
    store<u16>(out, <u16>csumOffset, HDR_CSUM_OFFSET);
    store<u16>(headers() + csumStart + csumOffset, <u16>fold(pseudoSum(part)));
  }
  return out;
}

/** Sum of segment `i` without its payload, its headers as made: what a full checksum starts from. */
export function headerSum(i: u32): u64 {
  return pseudoSum(payloadOf(i)) + sumOf(headers() + csumStart, headersLen - csumStart);
}

/** The pseudo-header's (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1), for a segment of `part` bytes. */
function pseudoSum(part: u32): u64 {
  const length = headersLen - csumStart + part;
  const addresses = v4 ? sumOf(headers() + ip + 12, 8) : sumOf(headers() + ip + 8, 32);
  return addresses + bswap<u16>(<u16>length) + bswap<u16>(<u16>(tcp ? TCP : UDP));
}
