// An in-process guest: a driver pair that sends a numbered stream and checks the peer's.
//
// Frame: destination, source (6 B each), EtherType 0x88b5 (IEEE 802 local experimental), then
//   14 ID u16, 16 SEQ u64, 24 LENGTH u32, 28 fill: byte i = low byte of (SEQ * 31 + i), in words
// TX buffer b lies at GUEST_TX_BUFS + b * GUEST_STEP: the virtio header, then the frame. With
// several segments the frame is cut at places that the sequence number decides.

import {
  DRV_FLAGS,
  DRV_FREE_COUNT,
  DRV_LEN,
  DRV_SIZE,
  GUEST_BUF,
  GUEST_BYTES,
  GUEST_CHECK,
  GUEST_CORRUPT,
  GUEST_FOREIGN,
  GUEST_GAPS,
  GUEST_GOAL,
  GUEST_HDR_LEN,
  GUEST_ID,
  GUEST_KICKS_RX,
  GUEST_KICKS_TX,
  GUEST_LENGTH,
  GUEST_MAC,
  GUEST_NEXT,
  GUEST_OUT,
  GUEST_PEER_MAC,
  GUEST_RECEIVED,
  GUEST_REORDERED,
  GUEST_RX,
  GUEST_RX_BUFS,
  GUEST_SEGMENTS,
  GUEST_SENT,
  GUEST_TX,
  GUEST_TX_BUFS,
  GUEST_WINDOW,
  SEG_WRITE,
} from '../abi/driver';
import { BURST, RINGF_INDIRECT } from '../abi/layout';
import { drvAdd, drvPop, drvPublish } from './driver';
import { count } from './layout';

const ETHERTYPE: u16 = 0xb588; // 0x88b5 in wire order
const FILL: u32 = 28;
const LCG: u64 = 6364136223846793005;

/** More than is sent a round, so that a full ring empties again. */
const RECEIVE: u32 = 4 * BURST;

/** Where drvAdd's segment list is put: the last 64 B of the guest block. */
const LIST: u32 = 192;

function lengthOf(guest: u32, seq: u64): u32 {
  const fixed = load<u32>(guest, GUEST_LENGTH);
  return fixed != 0 ? fixed : 60 + (<u32>((seq * LCG) >> 33) % 1455);
}

/** Word `i` of the fill of frame `seq`. */
function word(seq: u64, i: u32): u64 {
  return (seq + 1) * LCG + <u64>i * 0x0101_0101_0101_0101;
}

function writeFrame(guest: u32, at: u32, seq: u64, len: u32): void {
  store<u64>(at, load<u64>(guest, GUEST_PEER_MAC));
  store<u64>(at, load<u64>(guest, GUEST_MAC), 6);
  store<u16>(at, ETHERTYPE, 12);
  store<u16>(at, <u16>load<u32>(guest, GUEST_ID), 14);
  store<u64>(at, seq, 16);
  store<u32>(at, len, 24);
  if (!load<u32>(guest, GUEST_CHECK)) return;
  let i = FILL;
  for (; i + 8 <= len; i += 8) store<u64>(at + i, word(seq, i));
  for (; i < len; i++) store<u8>(at + i, <u8>word(seq, i));
}

function intact(guest: u32, at: u32, seq: u64, len: u32): bool {
  if (load<u32>(at, 24) != len || lengthOf(guest, seq) != len) return false;
  if (!load<u32>(guest, GUEST_CHECK)) return true;
  let i = FILL;
  for (; i + 8 <= len; i += 8) if (load<u64>(at + i) != word(seq, i)) return false;
  for (; i < len; i++) if (load<u8>(at + i) != <u8>word(seq, i)) return false;
  return true;
}

function addFrame(guest: u32, buffer: u32, seq: u64): void {
  const hdr = load<u32>(guest, GUEST_HDR_LEN);
  const tx = load<u32>(guest, GUEST_TX);
  const at = load<u32>(guest, GUEST_TX_BUFS) + buffer * load<u32>(guest, GUEST_BUF);
  const len = lengthOf(guest, seq);
  const total = hdr + len;
  memory.fill(at, 0, hdr);
  writeFrame(guest, at + hdr, seq, len);
  const most = load<u32>(guest, GUEST_SEGMENTS);
  const pieces: u32 = most <= 1 ? 1 : 1 + (<u32>((seq * LCG) >> 40) % most);
  const list = guest + LIST;
  let from: u32 = 0;
  for (let k: u32 = 0; k < pieces; k++) {
    // Cuts anywhere, through the header too; the last piece takes the rest.
    const left = total - from - (pieces - 1 - k);
    const cut = k + 1 == pieces ? total - from : 1 + (<u32>((seq * LCG) >> (20 + k)) % left);
    store<u32>(list + k * 8, at + from);
    store<u32>(list + k * 8, cut, 4);
    from += cut;
  }
  const indirect = pieces > 1 && seq & 1 && load<u32>(tx, DRV_FLAGS) & RINGF_INDIRECT;
  drvAdd(tx, list, pieces, buffer, indirect != 0);
}

/** Posts all RX buffers; TX buffers are free. Once, after drvReset of both queues. */
export function guestStart(guest: u32): void {
  const rx = load<u32>(guest, GUEST_RX);
  const size = load<u32>(rx, DRV_SIZE);
  for (let i: u32 = 0; i < size; i++) post(guest, i);
  store<u32>(guest, drvPublish(rx) ? 1 : 0, GUEST_KICKS_RX);
}

function post(guest: u32, buffer: u32): void {
  const bytes = load<u32>(guest, GUEST_BUF);
  store<u32>(guest + LIST, load<u32>(guest, GUEST_RX_BUFS) + buffer * bytes);
  store<u32>(guest + LIST, bytes | SEG_WRITE, 4);
  drvAdd(load<u32>(guest, GUEST_RX), guest + LIST, 1, buffer, false);
}

/**
 * One round: takes sent buffers back, sends up to a burst, receives up to a burst and checks it.
 * GUEST_KICKS_TX and _RX say which queues want a kick. Returns frames sent plus received.
 */
export function guestRun(guest: u32): u32 {
  return transmit(guest) + receive(guest);
}

function transmit(guest: u32): u32 {
  const tx = load<u32>(guest, GUEST_TX);
  const size = load<u32>(tx, DRV_SIZE);
  const window = min(load<u32>(guest, GUEST_WINDOW), size);
  // Buffers return in order (the switch completes in order), so `sent` mod window names the next.
  while (drvPop(tx) >= 0) store<u32>(guest, load<u32>(guest, GUEST_OUT) - 1, GUEST_OUT);
  let sent: u32 = 0;
  let seq = load<u64>(guest, GUEST_SENT);
  const goal = load<u64>(guest, GUEST_GOAL);
  const most = load<u32>(guest, GUEST_SEGMENTS);
  while (sent < <u32>BURST && seq < goal && load<u32>(guest, GUEST_OUT) < window) {
    if (load<u32>(tx, DRV_FREE_COUNT) < most) break;
    addFrame(guest, <u32>(seq % window), seq);
    store<u32>(guest, load<u32>(guest, GUEST_OUT) + 1, GUEST_OUT);
    seq++;
    sent++;
  }
  store<u64>(guest, seq, GUEST_SENT);
  store<u32>(guest, drvPublish(tx) ? 1 : 0, GUEST_KICKS_TX);
  return sent;
}

function receive(guest: u32): u32 {
  const rx = load<u32>(guest, GUEST_RX);
  const hdr = load<u32>(guest, GUEST_HDR_LEN);
  let received: u32 = 0;
  while (received < RECEIVE) {
    const buffer = drvPop(rx);
    if (buffer < 0) break;
    const at = load<u32>(guest, GUEST_RX_BUFS) + buffer * load<u32>(guest, GUEST_BUF) + hdr;
    const len = load<u32>(rx, DRV_LEN) - hdr;
    const seq = load<u64>(at, 16);
    if (load<u16>(at, 12) != ETHERTYPE || load<u16>(at, 14) == <u16>load<u32>(guest, GUEST_ID)) {
      count(guest + GUEST_FOREIGN, 1);
    } else if (!intact(guest, at, seq, len)) {
      count(guest + GUEST_CORRUPT, 1);
    } else {
      const next = load<u64>(guest, GUEST_NEXT);
      if (seq < next) {
        count(guest + GUEST_REORDERED, 1);
      } else {
        count(guest + GUEST_GAPS, seq - next);
        store<u64>(guest, seq + 1, GUEST_NEXT);
      }
      count(guest + GUEST_RECEIVED, 1);
      count(guest + GUEST_BYTES, len);
    }
    post(guest, buffer);
    received++;
  }
  store<u32>(guest, drvPublish(rx) ? 1 : 0, GUEST_KICKS_RX);
  return received;
}
