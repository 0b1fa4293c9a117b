// What a front end's session works for: the owner of a driver's memory and rings, about to be shared
// with a back end.
//
// The order of calls in a session: negotiate, setUp, started, stopped. Any of the first three may
// not come; stopped always does, once and last. All are called on the thread of the event loop.

import type { MemoryRegionFd, VringAddr } from './backend.ts';

/** A ring, fresh and ready to run. The descriptors are the driver's, and stay so. */
export interface RingSetUp {
  /** Entries. */
  size: number;
  /** SET_VRING_BASE: 0, or of a packed ring 0x80008000. */
  base: number;
  /** Addresses in terms of the regions' `uva`. */
  addr: VringAddr;
  /** eventfds, non-blocking. The session signals `kickFd` once, when all rings run. */
  kickFd: number;
  callFd: number;
  errFd?: number;
}

export interface Agreement {
  /** Virtio feature bits; a subset of those offered. */
  features: bigint;
  /** Queue pairs to use, at least 1. */
  pairs: number;
}

export interface FrontendDriver {
  /**
   * Picks from what the back end offers: virtio feature bits, without bit 30, and queue pairs (1 from
   * a back end that cannot have more). Throws Refusal, one sentence that names what is missing.
   */
  negotiate(offered: bigint, queuePairs: number): Agreement;
  /**
   * Memory, at most 8 regions, and rings 0 .. 2*pairs-1, all new: the back end that had the last ones may still be
   * at work on them. The descriptors are read before `stopped`, and never closed.
   */
  setUp(): { regions: MemoryRegionFd[]; rings: RingSetUp[] };
  /** All rings run at the back end, which has been kicked. */
  started(): void;
  /**
   * The session is over, however far it came: nothing of it may be used any more. `reason` is a
   * sentence for people; `fault`: not a plain hang-up.
   */
  stopped(reason: string, fault: boolean): void;
}
