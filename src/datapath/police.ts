// Policing: what a port sends beyond its rate and burst is dropped (tx_policed).
//
// Two token buckets a port, one of frames and one of bits, filled by the clock and emptied by what
// passes; a frame must find both full enough. They are the port's, not the ring's: queue pairs share
// them, and workers take turns with a lock, once a burst. One that is not limited is infinitely full.

import { DROP_TX_POLICED } from '../abi/drops';
import {
  POLICE_BURST_BITS,
  POLICE_BURST_FRAMES,
  POLICE_FILLED,
  POLICE_LOCK,
  POLICE_RATE_BITS,
  POLICE_RATE_FRAMES,
  POLICE_TOKENS_BITS,
  POLICE_TOKENS_FRAMES,
  WORKER_NOW,
} from '../abi/layout';
import { GSO_NONE, GSO_UDP_L4, HDR_CSUM_START, HDR_GSO_SIZE, HDR_GSO_TYPE } from '../abi/virtio';
import { DEST, DEST_DROP, drop, frameAt, HDR, LEN } from './frame';
import { portAt, worker } from './layout';

/** Frames on the wire that a frame stands for: one to be segmented counts as its segments. */
function wireFrames(frame: u32): u32 {
  const gso = <u32>load<u8>(frame, HDR + HDR_GSO_TYPE);
  if (gso == GSO_NONE) return 1;
  const headers = <u32>load<u16>(frame, HDR + HDR_CSUM_START) + (gso == GSO_UDP_L4 ? 8 : 20);
  const len = load<u32>(frame, LEN);
  const size = <u32>load<u16>(frame, HDR + HDR_GSO_SIZE);
  // gather.ts has made sure of the headers and of a size.
  return len > headers ? (len - headers + size - 1) / size : 1;
}

/** Drops what port `port` may not send now of the burst's `n` frames. */
export function police(port: u32, n: u32): void {
  const at = portAt(port);
  const burstFrames = load<f64>(at, POLICE_BURST_FRAMES);
  const burstBits = load<f64>(at, POLICE_BURST_BITS);
  lock(at);
  const now = load<f64>(worker, WORKER_NOW);
  const filled = load<f64>(at, POLICE_FILLED);
  // Another worker's clock reading may be newer than this one's.
  const elapsed = max<f64>(now - filled, 0);
  store<f64>(at, filled + elapsed, POLICE_FILLED);
  let frames = load<f64>(at, POLICE_TOKENS_FRAMES) + elapsed * load<f64>(at, POLICE_RATE_FRAMES);
  let bits = load<f64>(at, POLICE_TOKENS_BITS) + elapsed * load<f64>(at, POLICE_RATE_BITS);
  frames = min<f64>(frames, burstFrames);
  bits = min<f64>(bits, burstBits);
  for (let i: u32 = 0; i < n; i++) {
    const frame = frameAt(i);
    if (load<u32>(frame, DEST) == DEST_DROP) continue;
    const asFrames = <f64>wireFrames(frame);
    const asBits = <f64>load<u32>(frame, LEN) * 8;
    // What is larger than the bucket passes when it is full, and is paid for after.
    if (frames < min<f64>(asFrames, burstFrames) || bits < min<f64>(asBits, burstBits)) {
      drop(frame, DROP_TX_POLICED);
      continue;
    }
    frames -= asFrames;
    bits -= asBits;
  }
  store<f64>(at, frames, POLICE_TOKENS_FRAMES);
  store<f64>(at, bits, POLICE_TOKENS_BITS);
  unlock(at);
}

// A worker cannot trap while it holds the lock: nothing in between looks at guest memory.

function lock(at: u32): void {
  while (atomic.cmpxchg<u32>(at + POLICE_LOCK, 0, 1) != 0) {}
}

function unlock(at: u32): void {
  atomic.store<u32>(at + POLICE_LOCK, 0);
}
