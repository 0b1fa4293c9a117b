// How much a burst takes off a TX ring, and when it is worth while to wait for more: small bursts cost both
// sides most. 64 B in a circle, rings of 256: 42 ns a frame instead of 48, 18.4 Mpps instead of 16.3.
//
// Only a ring whose last burst was no small one is waited for: where frames come one by one it is the answer
// that counts. Where no whole burst comes in time, the driver is slow, or waits itself for its buffers: part of
// what there was is enough from then on, and the whole is tried again only after ever more bursts.

import {
  BURST,
  RING_BACKOFF,
  RING_ENOUGH,
  RING_LAST_BURST,
  RING_RETRY,
  RING_SINCE,
  RING_SIZE,
} from '../abi/layout';
import { done } from './work';

/** Frames of a burst from which on the next one is waited for. */
const BUSY: u32 = 16;
/** For how long, by the worker's clock of work (work.ts): 25 us. A ring waits less beside many busy ones. */
const PATIENCE: u32 = 0x3_0000;
/** Bursts until the whole is tried again, after the first time that it did not come; and at most. */
const SOON: u32 = 16;
const LATE: u32 = 1024;
/** No ring's bursts are made shorter than this. */
const SHORTEST: u32 = 32;

/**
 * The part of `all` frames under way that is a burst: their driver works on the others meanwhile, and the
 * fewer lie in the ring the fewer buffers come round. With all of a ring, 64 B in a circle: 12 Mpps instead of
 * 17 (128 entries); with half of 256 entries, 1518 B: 190 ns a frame instead of 130.
 */
function part(all: u32): u32 {
  return min(max((all * 3) >> 3, 1), <u32>BURST);
}

/** Frames that a burst may have. */
export function longestBurst(ring: u32): u32 {
  return max(part(load<u32>(ring, RING_SIZE)), SHORTEST);
}

/** Frames that are taken at once. */
export function enoughFrames(ring: u32): u32 {
  const enough = load<u32>(ring, RING_ENOUGH);
  return enough != 0 ? enough : part(load<u32>(ring, RING_SIZE));
}

/** Whether a ring that has some frames, but not enough, is left for now. */
export function waits(ring: u32): bool {
  if (load<u32>(ring, RING_LAST_BURST) < BUSY) return false;
  const since = load<u32>(ring, RING_SINCE);
  if (since != 0) return done - since < PATIENCE;
  store<u32>(ring, done | 1, RING_SINCE);
  return true;
}

/** After a look that found no frame. Whose driver took back what it had shown may be slept on. */
export function foundNone(ring: u32): void {
  store<u32>(ring, 0, RING_SINCE);
}

/** Whether it is left, with frames in it: not to be slept on. */
export function isLeft(ring: u32): bool {
  return load<u32>(ring, RING_SINCE) != 0;
}

/** After a burst of `n` frames, which were `enough`, or not. */
export function tookBurst(ring: u32, n: u32, enough: bool): void {
  const waited = isLeft(ring);
  store<u32>(ring, 0, RING_SINCE);
  store<u32>(ring, n, RING_LAST_BURST);
  const retry = load<u32>(ring, RING_RETRY);
  if (waited && !enough) {
    const backoff = min(max(load<u32>(ring, RING_BACKOFF) * 2, SOON), LATE);
    store<u32>(ring, backoff, RING_BACKOFF);
    store<u32>(ring, backoff, RING_RETRY);
    store<u32>(ring, part(n), RING_ENOUGH);
  } else if (retry > 0) {
    store<u32>(ring, retry - 1, RING_RETRY);
    if (retry == 1) store<u32>(ring, 0, RING_ENOUGH);
  } else if (waited) {
    store<u32>(ring, 0, RING_BACKOFF);
  }
}
