// Giving a ring up.

import { BROKEN_NONE, RING_BROKEN, RING_REASON, RING_STATE } from '../abi/layout';
import { signalLatched } from './host';
import { indexOf } from './layout';

/** The ring cannot be trusted any more: nothing touches it before its next start. */
export function latch(ring: u32, reason: u32): void {
  if (load<u32>(ring, RING_REASON) != BROKEN_NONE) return;
  store<u32>(ring, reason, RING_REASON);
  atomic.store<u32>(ring + RING_STATE, RING_BROKEN);
  signalLatched(indexOf(ring));
}
