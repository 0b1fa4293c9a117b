// What a driver remembers of its chains, out of the device's reach, whatever the ring's format.
//
// A record, at DRV_HEADS: {token u32, link u16, takes u16}, named by a number below the ring's size:
// of a split ring the head descriptor, of a packed one the buffer id. The link is the next free
// record, or the next of a split chain. `takes` is the chain's length in descriptors, IDLE while
// none is outstanding under this number. With IN_ORDER numbers go round and are never relinked.

import {
  DRV_BATCH,
  DRV_ERRORS,
  DRV_FLAGS,
  DRV_FREE,
  DRV_FREE_COUNT,
  DRV_HEAD,
  DRV_HEADS,
  DRV_OLDEST,
  DRV_SIZE,
  NO_BATCH,
} from '../abi/driver';
import { RINGF_EVENT_IDX, RINGF_PACKED } from '../abi/layout';

export const LINK: u32 = 4;
export const TAKES: u32 = 6;
export const IDLE: u32 = 0;

export function recordAt(drv: u32, n: u32): u32 {
  return drv + DRV_HEADS + n * DRV_HEAD;
}

export function isPacked(drv: u32): bool {
  return (load<u32>(drv, DRV_FLAGS) & RINGF_PACKED) != 0;
}

export function hasEvents(drv: u32): bool {
  return (load<u32>(drv, DRV_FLAGS) & RINGF_EVENT_IDX) != 0;
}

/** All free. */
export function resetRecords(drv: u32): void {
  const size = load<u32>(drv, DRV_SIZE);
  for (let i: u32 = 0; i < size; i++) {
    store<u32>(recordAt(drv, i), 0);
    store<u16>(recordAt(drv, i), <u16>(i + 1 < size ? i + 1 : 0), LINK);
    store<u16>(recordAt(drv, i), <u16>IDLE, TAKES);
  }
  store<u32>(drv, 0, DRV_FREE);
  store<u32>(drv, size, DRV_FREE_COUNT);
  store<u32>(drv, 0, DRV_ERRORS);
  store<u32>(drv, 0, DRV_OLDEST);
  store<u32>(drv, NO_BATCH, DRV_BATCH);
}

/** Chain `n`, just added, is `token`'s and takes `takes` descriptors; the next is `free`. */
export function remember(drv: u32, n: u32, token: u32, takes: u32, free: u32): void {
  store<u32>(recordAt(drv, n), token);
  store<u16>(recordAt(drv, n), <u16>takes, TAKES);
  store<u32>(drv, free, DRV_FREE);
  store<u32>(drv, load<u32>(drv, DRV_FREE_COUNT) - takes, DRV_FREE_COUNT);
}

/** Descriptors of the chain outstanding under `n`; IDLE when there is none. Any `n` may be asked. */
export function outstanding(drv: u32, n: u32): u32 {
  return n < load<u32>(drv, DRV_SIZE) ? <u32>load<u16>(recordAt(drv, n), TAKES) : IDLE;
}

/** The device named chain `n`, which takes `takes`: it is outstanding no more. Returns its token. */
export function forget(drv: u32, n: u32, takes: u32): u32 {
  store<u16>(recordAt(drv, n), <u16>IDLE, TAKES);
  store<u32>(drv, load<u32>(drv, DRV_FREE_COUNT) + takes, DRV_FREE_COUNT);
  return load<u32>(recordAt(drv, n));
}

/** Puts the records from `first` to `last`, linked already, in front of the free ones. */
export function relink(drv: u32, first: u32, last: u32): void {
  store<u16>(recordAt(drv, last), <u16>load<u32>(drv, DRV_FREE), LINK);
  store<u32>(drv, first, DRV_FREE);
}

export function countError(drv: u32): void {
  store<u32>(drv, load<u32>(drv, DRV_ERRORS) + 1, DRV_ERRORS);
}
