// Descriptors of a packed ring as main sees them (virtio 1.2 §2.8.1). A position is a slot and a wrap counter
// (WRAP); the datapath's own view is in datapath/packed.ts.

import { DESC_F_AVAIL, DESC_F_USED, DESC_SIZE, WRAP } from '../abi/virtio.ts';
import type { Control } from '../memory/control.ts';

/** Bytes from a descriptor's start to its flags. */
export const DESC_FLAGS = 14;

export function slotOf(position: number): number {
  return position & ~WRAP;
}

/** Position `by` slots, at most `size`, after `position`. */
export function advance(position: number, by: number, size: number): number {
  const slot = slotOf(position) + by;
  return slot < size ? position + by : (slot - size) | ((position & WRAP) ^ WRAP);
}

/** Flags of the descriptor at `position` of the ring at linear address `table`. */
export function flagsAt(control: Control, table: number, position: number): number {
  return control.get16(table + slotOf(position) * DESC_SIZE + DESC_FLAGS);
}

/** AVAIL and USED of a descriptor that the device has used at `position`. */
export function usedFlags(position: number): number {
  return position & WRAP ? DESC_F_AVAIL | DESC_F_USED : 0;
}

export function isUsed(flags: number, position: number): boolean {
  return (flags & (DESC_F_AVAIL | DESC_F_USED)) === usedFlags(position);
}

export function isAvailable(flags: number, position: number): boolean {
  return (flags & (DESC_F_AVAIL | DESC_F_USED)) === (usedFlags(position) ^ DESC_F_USED);
}
