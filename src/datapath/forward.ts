// One burst: from a TX ring, through the forwarding decision, into RX rings.
//
// gather (copy what decides) -> classify (one destination a frame) -> deliver, ring by ring
// (the copy) -> give the buffers back. Receivers' used indices are published before the sender's,
// so that a buffer is never the sender's again before its last byte was read.

import {
  DROP_TX_BAD_SOURCE,
  DROP_TX_DISABLED,
  DROP_TX_HAIRPIN,
  DROP_TX_NO_RECEIVER,
} from '../abi/drops';
import {
  FORWARD_WIRE,
  NO_PORT,
  PORT_PAGED,
  PORT_PEER,
  PORT_POLICED,
  PORT_RX_LIST,
  PORT_RX_PAIRS,
  PORT_STATE,
  PORT_UP,
  RING_BURSTS,
  RING_BYTES,
  RING_DISCARD,
  RING_EMPTY,
  RING_FLAGS,
  RING_FRAMES,
  RING_PORT,
  RING_STATE,
  RING_TO_PAGED,
  RING_USED_IDX,
  RINGF_IN_ORDER,
  RINGS_PER_PORT,
  SCRATCH_ALL,
  SCRATCH_LIST,
  SCRATCH_SEEN,
  SCRATCH_TX_CHAINS,
  SWITCH_FORWARDING,
  SWITCH_PORTS,
  WORKER_CURRENT,
} from '../abi/layout';
import { deliver } from './deliver';
import { fdbLearn, fdbLookup } from './fdb';
import { flowHash, heard, steer } from './flow';
import {
  DEST,
  DEST_DROP,
  DEST_FLOOD,
  drop,
  dropped,
  ETH,
  FRAME_SIZE,
  frameAt,
  HASH,
  LEN,
  noneDropped,
} from './frame';
import { gather, gatheredBytes } from './gather';
import { count, countDrop, indexOf, portAt, ringAt, ringIndex, scratch, worker } from './layout';
import { pagedBurst, pagesForSending, slotsLacking } from './pager';
import { enoughFrames, foundNone, longestBurst, tookBurst, waits } from './patience';
import { police } from './police';
import { behind, CHAIN, isPacked, notify, publishUsed, putUsed, ready } from './ring';
import { owe, polledInVain, startWork } from './work';

/** Moves at most one burst off a TX ring; returns the frames taken, dropped ones included. */
export function pollRing(ring: u32): u32 {
  store<u32>(worker, indexOf(ring), WORKER_CURRENT);
  if (load<u32>(ring, RING_TO_PAGED) != 0 && slotsLacking()) return 0;
  const goal = enoughFrames(ring);
  let n = ready(ring, goal);
  const enough = n >= goal;
  store<u32>(ring, n == 0 ? load<u32>(ring, RING_EMPTY) + 1 : 0, RING_EMPTY);
  if (n == 0) foundNone(ring);
  if (n == 0 || (!enough && waits(ring))) {
    polledInVain();
    return 0;
  }
  startWork();
  pagesForSending();
  const most = load<u32>(ring, RING_TO_PAGED) != 0 ? pagedBurst() : longestBurst(ring);
  n = gather(ring, isPacked(ring) ? most : min(n, most));
  if (n == 0) return 0;
  if (load<u32>(ring, RING_STATE) == RING_DISCARD) discard(n);
  else {
    const port = load<u32>(ring, RING_PORT);
    if (load<u32>(portAt(port), PORT_POLICED) != 0) police(port, n);
    forward(ring, n);
  }
  complete(ring, n);
  owe(load<u32>(ring, RING_PORT));
  tookBurst(ring, n, enough);
  return n;
}

/** Sends the frame in record 0 as if `port` had sent it, and counts it on the port's first TX ring. */
export function originate(port: u32): void {
  const ring = ringAt(ringIndex(port, 1));
  store<u32>(worker, indexOf(ring), WORKER_CURRENT);
  startWork();
  pagesForSending();
  noneDropped();
  toPaged = 0;
  route(port, 1);
  account(ring, 1, load<u32>(frameAt(0), LEN));
}

function discard(n: u32): void {
  for (let i: u32 = 0; i < n; i++) drop(frameAt(i), DROP_TX_DISABLED);
}

/** Gives the `n` buffers back and accounts for them. */
function complete(ring: u32, n: u32): void {
  // Delivery made the receivers' rings the culprits of a trap; from here on it is this one again.
  store<u32>(worker, indexOf(ring), WORKER_CURRENT);
  account(ring, n, gatheredBytes);
  publishUsed(ring, giveBack(ring, n));
  notify(ring);
}

/** Counts a burst of `n` frames, of `bytes` if none of them was dropped. */
function account(ring: u32, n: u32, bytes: u64): void {
  count(ring + RING_FRAMES, n);
  count(ring + RING_BYTES, dropped == 0 ? bytes : countDrops(ring, n));
  count(ring + RING_BURSTS, 1);
}

/** Counts the dropped ones of `n` frames under their reasons; returns the bytes of the others. */
function countDrops(ring: u32, n: u32): u64 {
  let bytes: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const frame = frameAt(i);
    if (load<u32>(frame, DEST) == DEST_DROP) countDrop(ring, load<u32>(frame, HASH), 1);
    else bytes += load<u32>(frame, LEN);
  }
  return bytes;
}

/** Writes the used entries of `n` chains; returns the position behind them. */
function giveBack(ring: u32, n: u32): u32 {
  const used = load<u32>(ring, RING_USED_IDX);
  const chains = scratch + SCRATCH_TX_CHAINS;
  if (load<u32>(ring, RING_FLAGS) & RINGF_IN_ORDER) {
    // One entry names the last of the batch, and so all (virtio 1.2 §2.7.9): the driver's other lines
    // stay its own. 64 B frames, packed: 75 ns instead of 77 (medians of three, in turn).
    putUsed(ring, used, chains + (n - 1) * CHAIN, CHAIN, 1, false);
    return behind(ring, used, chains, CHAIN, n);
  }
  return putUsed(ring, used, chains, CHAIN, n, false);
}

function forward(ring: u32, n: u32): void {
  toPaged = 0;
  distribute(ring, n);
  store<u32>(ring, toPaged, RING_TO_PAGED);
}

function distribute(ring: u32, n: u32): void {
  const port = load<u32>(ring, RING_PORT);
  if (load<u32>(portAt(port), PORT_RX_PAIRS) > 1) {
    const pair = (indexOf(ring) & (RINGS_PER_PORT - 1)) >> 1;
    for (let i: u32 = 0; i < n; i++) {
      const frame = frameAt(i);
      if (load<u32>(frame, DEST) != DEST_DROP) heard(port, pair, flowHash(frame));
    }
  }
  route(port, n);
}

function route(port: u32, n: u32): void {
  const ports = load<u32>(SWITCH_PORTS);
  const only =
    load<u32>(SWITCH_FORWARDING) == FORWARD_WIRE ? wire(port, n) : classify(port, ports, n);
  if (only == DEST_FLOOD) {
    flood(port, ports, n);
    return;
  }
  if (only != NO_PORT) {
    send(only, n, dropped == 0);
    return;
  }
  // Several destinations: one straight pass for each port that has frames.
  const seen = scratch + SCRATCH_SEEN;
  let flooded = false;
  memory.fill(seen, 0, ports);
  for (let i: u32 = 0; i < n; i++) {
    const dest = load<u32>(frameAt(i), DEST);
    if (dest < ports) store<u8>(seen + dest, 1);
    else if (dest == DEST_FLOOD) flooded = true;
  }
  let receivers: u32 = 0;
  for (let to: u32 = 0; to < ports; to++) {
    const floods = flooded && isOther(port, to);
    if (floods) receivers++;
    if (floods || load<u8>(seen + to)) send(to, n, false);
  }
  if (flooded && receivers == 0) {
    for (let i: u32 = 0; i < n; i++) {
      const frame = frameAt(i);
      if (load<u32>(frame, DEST) == DEST_FLOOD) drop(frame, DROP_TX_NO_RECEIVER);
    }
  }
}

/** Whether port `to` gets what `port` floods. */
function isOther(port: u32, to: u32): bool {
  return to != port && load<u32>(portAt(to), PORT_STATE) == PORT_UP;
}

/** All to all others. */
function flood(port: u32, ports: u32, n: u32): void {
  let receivers: u32 = 0;
  for (let to: u32 = 0; to < ports; to++) {
    if (!isOther(port, to)) continue;
    receivers++;
    send(to, n, true);
  }
  if (receivers > 0) return;
  for (let i: u32 = 0; i < n; i++) drop(frameAt(i), DROP_TX_NO_RECEIVER);
}

/** All to the peer; returns it. Destinations are set only where a frame was dropped. */
function wire(port: u32, n: u32): u32 {
  const peer = load<u32>(portAt(port), PORT_PEER);
  if (peer != NO_PORT && dropped == 0) return peer;
  for (let i: u32 = 0; i < n; i++) {
    const frame = frameAt(i);
    if (load<u32>(frame, DEST) == DEST_DROP) continue;
    if (peer == NO_PORT) drop(frame, DROP_TX_NO_RECEIVER);
    else store<u32>(frame, peer, DEST);
  }
  return peer;
}

/** No address: they have 48 bits. */
const NO_MAC: u64 = u64.MAX_VALUE;

/** Whether all `n` frames have the addresses of the first. */
function alike(n: u32): bool {
  let frame = frameAt(0) + ETH;
  const end = frame + n * FRAME_SIZE;
  const first = v128.load(frame);
  let other = i64x2.splat(0);
  for (; frame < end; frame += FRAME_SIZE) {
    other = v128.or(other, v128.xor(v128.load(frame), first));
  }
  return (i64x2.extract_lane(other, 0) | <u32>i32x4.extract_lane(other, 2)) == 0;
}

/** Where a burst of frames alike goes: a port, or DEST_FLOOD; NO_PORT if it has to be dropped. */
function oneWay(port: u32, ports: u32): u32 {
  const eth = frameAt(0) + ETH;
  const to = load<u64>(eth) & 0xffff_ffff_ffff;
  const from = load<u64>(eth, 6) & 0xffff_ffff_ffff;
  if (from & 1 || from == 0) return NO_PORT;
  const answer = to & 1 ? NO_PORT : fdbLookup(to);
  if (answer == port) return NO_PORT;
  fdbLearn(from, port);
  return answer < ports ? answer : DEST_FLOOD;
}

/**
 * Learns sources, looks destinations up; returns the one port all go to, or DEST_FLOOD, or NO_PORT.
 * Destinations are set only with NO_PORT, or where a frame was dropped.
 */
function classify(port: u32, ports: u32, n: u32): u32 {
  // Bursts mostly are one guest's to another: 6 ns a frame less.
  if (dropped == 0 && alike(n)) {
    const way = oneWay(port, ports);
    if (way != NO_PORT) return way;
  }
  // Bursts repeat addresses: the last answer saves the next look-up.
  let source: u64 = NO_MAC;
  let target: u64 = NO_MAC;
  let answer: u32 = DEST_FLOOD;
  let only = NO_PORT;
  let mixed = false;
  for (let i: u32 = 0; i < n; i++) {
    const frame = frameAt(i);
    if (load<u32>(frame, DEST) == DEST_DROP) continue;
    const eth = frame + ETH;
    const to = load<u64>(eth) & 0xffff_ffff_ffff;
    const from = load<u64>(eth, 6) & 0xffff_ffff_ffff;
    if (from != source) {
      if (from & 1 || from == 0) {
        drop(frame, DROP_TX_BAD_SOURCE);
        continue;
      }
      fdbLearn(from, port);
      source = from;
    }
    if (to != target) {
      target = to;
      answer = to & 1 ? NO_PORT : fdbLookup(to);
      if (answer >= ports) answer = DEST_FLOOD;
    }
    if (answer == port) {
      drop(frame, DROP_TX_HAIRPIN);
      continue;
    }
    store<u32>(frame, answer, DEST);
    if (answer == DEST_FLOOD) mixed = true;
    else if (only == NO_PORT) only = answer;
    else if (only != answer) mixed = true;
  }
  return mixed ? NO_PORT : only;
}

/** Whether a receiver of this burst has paged memory. */
let toPaged: u32 = 0;

/** Delivers the burst's frames for port `to`, queue by queue; with `all` that is every one. */
function send(to: u32, n: u32, all: bool): void {
  const at = portAt(to);
  if (load<u32>(at, PORT_PAGED) != 0) toPaged = 1;
  const pairs = load<u32>(at, PORT_RX_PAIRS);
  if (pairs < 2) {
    // No pair enabled: the drops count on the first ring.
    const pair = pairs == 0 ? 0 : <u32>load<u8>(at, PORT_RX_LIST);
    if (all) deliver(to, ringAt(ringIndex(to, pair * 2)), scratch + SCRATCH_ALL, n);
    else sendPair(to, pair, false, false, n);
    return;
  }
  for (let i: u32 = 0; i < n; i++) {
    const frame = frameAt(i);
    if (load<u32>(frame, DEST) != DEST_DROP) {
      store<u32>(frame, steer(to, flowHash(frame), pairs), HASH);
    }
  }
  for (let k: u32 = 0; k < pairs; k++) {
    sendPair(to, <u32>load<u8>(at + PORT_RX_LIST + k), true, all, n);
  }
}

function sendPair(to: u32, pair: u32, steered: bool, all: bool, n: u32): void {
  const list = scratch + SCRATCH_LIST;
  let listed: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const frame = frameAt(i);
    const dest = load<u32>(frame, DEST);
    if ((all || dest == to || dest == DEST_FLOOD) && (!steered || load<u32>(frame, HASH) == pair)) {
      store<u32>(list + listed * 4, frame);
      listed++;
    }
  }
  if (listed > 0) deliver(to, ringAt(ringIndex(to, pair * 2)), list, listed);
}
