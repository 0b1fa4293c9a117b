// Where a packed ring goes on after its device was lost: the process killed, or the connection cut.
//
// A split ring says so itself: its used index. A packed ring does not, and its front end knows only the
// position of its last orderly stop (QEMU) or begins anew (virtio-user). So the worker's own positions are kept,
// in memory that outlives the process (memory/state.ts):
//
//   RING_NEXT       := end of the burst          before the burst's first used descriptor is shown
//   flags of that descriptor := used             the burst is done
//   RING_LAST_AVAIL := end of the burst
//
// Killed between the first and the last, the ring itself tells on which side of the middle it was: a
// descriptor that is still available has not been used.

import {
  RING_DESC,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_NEXT,
  RING_SAVED,
  RING_SAVED_NEXT,
  RING_SIZE,
  RINGF_PACKED,
  SAVED,
} from '../abi/layout.ts';
import { DESC_F_USED, DESC_F_WRITE, DESC_SIZE, WRAP } from '../abi/virtio.ts';
import type { Control } from '../memory/control.ts';
import { advance, DESC_FLAGS, flagsAt, isAvailable, isUsed, slotOf, usedFlags } from './packed.ts';

/** Notes the position of a ring that runs and is about to lose its front end. */
export function savePosition(control: Control, ring: number): void {
  if ((control.get(ring + RING_FLAGS) & RINGF_PACKED) === 0) return;
  control.set(ring + RING_SAVED_NEXT, control.get(ring + RING_NEXT));
  control.set(ring + RING_SAVED, SAVED | control.get(ring + RING_LAST_AVAIL));
}

/** The front end is another one, or said itself where to go on. */
export function forgetPosition(control: Control, ring: number): void {
  control.set(ring + RING_SAVED, 0);
}

/**
 * As savePosition, from the block of a process that is gone: `before` is its 512 bytes. A position that it had
 * saved itself, and nobody asked for since, counts as well.
 */
export function adoptPosition(control: Control, ring: number, before: Uint8Array): void {
  const view = new DataView(before.buffer, before.byteOffset, before.byteLength);
  const get = (field: number) => view.getUint32(field, true);
  const packed = (get(RING_FLAGS) & RINGF_PACKED) !== 0 && get(RING_SIZE) > 0;
  const saved = get(RING_SAVED) !== 0;
  if (!packed && !saved) return;
  control.set(ring + RING_SAVED, saved ? get(RING_SAVED) : SAVED | get(RING_LAST_AVAIL));
  control.set(ring + RING_SAVED_NEXT, saved ? get(RING_SAVED_NEXT) : get(RING_NEXT));
}

/**
 * Where the packed ring whose parts were just set goes on: where it was, or at its beginning if its driver has
 * begun anew since; undefined where nothing is known. Clears what was saved.
 */
export function resumePosition(control: Control, ring: number): number | undefined {
  const saved = control.get(ring + RING_SAVED);
  forgetPosition(control, ring);
  if (saved === 0) return undefined;
  const size = control.get(ring + RING_SIZE);
  const table = control.get(ring + RING_DESC);
  const last = saved & 0xffff;
  const next = control.get(ring + RING_SAVED_NEXT) & 0xffff;
  if (slotOf(last) >= size || slotOf(next) >= size) return undefined;
  // A ring without any USED flag is where a ring begins: its driver began anew, or a lap just ended there.
  let begun = false;
  for (let i = 0; i < size && !begun; i++) begun = (flagsAt(control, table, i) & DESC_F_USED) !== 0;
  if (!begun) return WRAP;
  // Used in this lap, or made available for the next one already: the burst was shown.
  const shown = (flagsAt(control, table, last) & DESC_F_USED) === (usedFlags(last) & DESC_F_USED);
  if (next !== last && shown) return next;
  const end = next === last ? writtenEnd(control, table, last, size) : next;
  // Its other descriptors are used already, and will not be available again: so it is shown now.
  if (end !== last) show(control, table, last);
  return end;
}

/**
 * Where a burst from `last` on ends whose used descriptors were being written, its first one not shown. Of chains
 * of one descriptor each the used ones tell how far; `last` where there is none.
 */
function writtenEnd(control: Control, table: number, last: number, size: number): number {
  if (!isAvailable(flagsAt(control, table, last), last)) return last;
  const behind = advance(last, 1, size);
  let at = behind;
  // Behind what is available lie used ones of the lap before: those differ in both flags.
  while (slotOf(at) !== slotOf(last) && isUsed(flagsAt(control, table, at), at)) {
    at = advance(at, 1, size);
  }
  return at === behind ? last : at;
}

/** Makes the descriptor at `position` used; its length stands there. */
function show(control: Control, table: number, position: number): void {
  const at = table + slotOf(position) * DESC_SIZE;
  const written = control.get(at + 8) > 0 ? DESC_F_WRITE : 0;
  const flags = usedFlags(position) | written;
  control.bytes[at + DESC_FLAGS] = flags & 255;
  control.bytes[at + DESC_FLAGS + 1] = flags >> 8;
}
