// Packed virtqueue, driver side (virtio 1.2 §2.8). driver.ts says what the functions do.
//
//   descriptor    {addr u64, len u32, id u16, flags u16} x size     driver writes it available, the
//                                                                   device writes it used, in place
//   driver event  {off_wrap u16, flags u16}, at DRV_AVAIL           driver writes: when to call
//   device event  {off_wrap u16, flags u16}, at DRV_USED            device writes: when to kick
//
// The device takes descriptors in ring order. So all of what was added since the last publish is
// written as it comes, but for the flags of the very first descriptor: they make it all visible.

import {
  DRV_AVAIL,
  DRV_AVAIL_IDX,
  DRV_BIAS,
  DRV_DESC,
  DRV_FIRST_FLAGS,
  DRV_FREE,
  DRV_FREE_COUNT,
  DRV_KICKED,
  DRV_LAST_USED,
  DRV_LEN,
  DRV_PUBLISHED,
  DRV_SIZE,
  DRV_TABLE,
  DRV_TABLES,
  DRV_USED,
  SEG_WRITE,
} from '../abi/driver';
import {
  DESC_F_AVAIL,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_USED,
  DESC_F_WRITE,
  EVENT_F_DESC,
  EVENT_F_DISABLE,
  EVENT_F_ENABLE,
  WRAP,
} from '../abi/virtio';
import {
  countError,
  forget,
  hasEvents,
  IDLE,
  LINK,
  outstanding,
  recordAt,
  relink,
  remember,
} from './driver-records';
import { acquire, publish } from './layout';
import { advance } from './packed';

const SLOT: u32 = WRAP - 1;
const FLAGS: u32 = 14;

export function packedReset(drv: u32): void {
  store<u32>(drv, WRAP, DRV_AVAIL_IDX);
  store<u32>(drv, WRAP, DRV_PUBLISHED);
  store<u32>(drv, WRAP, DRV_LAST_USED);
  store<u32>(drv, WRAP, DRV_KICKED);
  memory.fill(load<u32>(drv, DRV_DESC), 0, load<u32>(drv, DRV_SIZE) * 16);
  store<u32>(load<u32>(drv, DRV_AVAIL), 0);
  store<u32>(load<u32>(drv, DRV_USED), 0);
}

function slotAt(drv: u32, position: u32): u32 {
  return load<u32>(drv, DRV_DESC) + (position & SLOT) * 16;
}

/** Writes the descriptor at `position` and makes it available, the first of a batch later. */
function put(drv: u32, position: u32, linear: u32, len: u32, id: u32, flags: u32): void {
  const at = slotAt(drv, position);
  flags |= position & WRAP ? DESC_F_AVAIL : DESC_F_USED;
  store<u64>(at, <u64>linear + load<u64>(drv, DRV_BIAS));
  if (position == load<u32>(drv, DRV_PUBLISHED)) {
    store<u32>(at, len, 8);
    store<u16>(at, <u16>id, 12);
    store<u32>(drv, flags, DRV_FIRST_FLAGS);
  } else {
    store<u64>(at, <u64>len | ((<u64>id) << 32) | ((<u64>flags) << 48), 8);
  }
}

export function packedAdd(drv: u32, segments: u32, n: u32, token: u32, indirect: bool): i32 {
  const takes: u32 = indirect ? 1 : n;
  if (takes > load<u32>(drv, DRV_FREE_COUNT)) return -1;
  const id = load<u32>(drv, DRV_FREE);
  const size = load<u32>(drv, DRV_SIZE);
  let position = load<u32>(drv, DRV_AVAIL_IDX);
  if (indirect) {
    const table = load<u32>(drv, DRV_TABLES) + id * (DRV_TABLE * 16);
    for (let k: u32 = 0; k < n; k++) {
      const len = load<u32>(segments + k * 8, 4);
      const flags: u64 = len & SEG_WRITE ? DESC_F_WRITE : 0;
      const linear = load<u32>(segments + k * 8);
      store<u64>(table + k * 16, <u64>linear + load<u64>(drv, DRV_BIAS));
      store<u64>(table + k * 16, <u64>(len & ~SEG_WRITE) | (flags << 48), 8);
    }
    put(drv, position, table, n * 16, id, DESC_F_INDIRECT);
    position = advance(position, 1, size);
  } else {
    for (let k: u32 = 0; k < n; k++) {
      const len = load<u32>(segments + k * 8, 4);
      const flags = (len & SEG_WRITE ? DESC_F_WRITE : 0) | (k + 1 < n ? DESC_F_NEXT : 0);
      put(drv, position, load<u32>(segments + k * 8), len & ~SEG_WRITE, id, flags);
      position = advance(position, 1, size);
    }
  }
  store<u32>(drv, position, DRV_AVAIL_IDX);
  remember(drv, id, token, takes, <u32>load<u16>(recordAt(drv, id), LINK));
  return id;
}

export function packedPublish(drv: u32): bool {
  const position = load<u32>(drv, DRV_AVAIL_IDX);
  publish(slotAt(drv, load<u32>(drv, DRV_PUBLISHED)) + FLAGS, load<u32>(drv, DRV_FIRST_FLAGS));
  store<u32>(drv, position, DRV_PUBLISHED);
  const old = load<u32>(drv, DRV_KICKED);
  store<u32>(drv, position, DRV_KICKED);
  // Both halves at once: never a new event under old flags.
  const area = atomic.load<u32>(load<u32>(drv, DRV_USED));
  const flags = area >> 16;
  if (flags == EVENT_F_DISABLE) return false;
  if (flags != EVENT_F_DESC || !hasEvents(drv)) return true;
  // Is the event among the slots made available since the last check? (§2.8.10) What carries the
  // other wrap counter lies in the lap before this one.
  const size = <i32>load<u32>(drv, DRV_SIZE);
  const from = <i32>(old & SLOT) - ((old ^ position) & WRAP ? size : 0);
  const event = <i32>(area & SLOT) - ((area ^ position) & WRAP ? size : 0);
  return event >= from && event < <i32>(position & SLOT);
}

export function packedUsed(drv: u32): bool {
  const position = load<u32>(drv, DRV_LAST_USED);
  const used: u32 = position & WRAP ? DESC_F_AVAIL | DESC_F_USED : 0;
  return (acquire(slotAt(drv, position) + FLAGS) & (DESC_F_AVAIL | DESC_F_USED)) == used;
}

/** {id u32, len u32} of the next used descriptor; follows `packedUsed`, whose load is the acquire. */
export function packedElement(drv: u32): u64 {
  const rest = load<u64>(slotAt(drv, load<u32>(drv, DRV_LAST_USED)), 8);
  return ((rest >> 32) & 0xffff) | (rest << 32);
}

/** Past the chain at the used position, which takes `by` slots. */
export function packedAdvance(drv: u32, by: u32): void {
  const position = load<u32>(drv, DRV_LAST_USED);
  store<u32>(drv, advance(position, by, load<u32>(drv, DRV_SIZE)), DRV_LAST_USED);
}

export function packedPop(drv: u32): i32 {
  if (!packedUsed(drv)) return -1;
  const element = packedElement(drv);
  const id = <u32>element;
  store<u32>(drv, <u32>(element >> 32), DRV_LEN);
  const takes = outstanding(drv, id);
  if (takes == IDLE) {
    // How long that chain was nobody knows: one slot, so that the next call looks further.
    packedAdvance(drv, 1);
    countError(drv);
    return -1;
  }
  packedAdvance(drv, takes);
  relink(drv, id, id);
  return forget(drv, id, takes);
}

export function packedArm(drv: u32): void {
  const flags: u32 = hasEvents(drv) ? EVENT_F_DESC : EVENT_F_ENABLE;
  // One store for both halves, and a full fence: the look that follows cannot pass it.
  atomic.store<u32>(load<u32>(drv, DRV_AVAIL), load<u32>(drv, DRV_LAST_USED) | (flags << 16));
}

export function packedDisarm(drv: u32): void {
  publish(load<u32>(drv, DRV_AVAIL) + 2, EVENT_F_DISABLE);
}
