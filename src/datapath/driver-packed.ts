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
import { publish } from './layout';
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

export function packedAdd(drv: u32, segments: u32, n: u32, token: u32, indirect: bool): i32 {
  const takes: u32 = indirect ? 1 : n;
  if (takes > load<u32>(drv, DRV_FREE_COUNT)) return -1;
  const id = load<u32>(drv, DRV_FREE);
  const ring = load<u32>(drv, DRV_DESC);
  const size = load<u32>(drv, DRV_SIZE);
  const bias = load<u64>(drv, DRV_BIAS);
  const published = load<u32>(drv, DRV_PUBLISHED);
  const table = load<u32>(drv, DRV_TABLES) + id * (DRV_TABLE * 16);
  if (indirect) putTable(table, bias, segments, n);
  let position = load<u32>(drv, DRV_AVAIL_IDX);
  for (let k: u32 = 0; k < takes; k++) {
    let linear = table;
    let len: u32 = n * 16;
    let flags: u32 = DESC_F_INDIRECT;
    if (!indirect) {
      linear = load<u32>(segments + k * 8);
      len = load<u32>(segments + k * 8, 4);
      flags = (len & SEG_WRITE ? DESC_F_WRITE : 0) | (k + 1 < n ? DESC_F_NEXT : 0);
      len &= ~SEG_WRITE;
    }
    flags |= position & WRAP ? DESC_F_AVAIL : DESC_F_USED;
    const at = ring + (position & SLOT) * 16;
    store<u64>(at, <u64>linear + bias);
    if (position == published) {
      store<u32>(at, len, 8);
      store<u16>(at, <u16>id, 12);
      store<u32>(drv, flags, DRV_FIRST_FLAGS);
    } else {
      store<u64>(at, <u64>len | ((<u64>id) << 32) | ((<u64>flags) << 48), 8);
    }
    position = advance(position, 1, size);
  }
  store<u32>(drv, position, DRV_AVAIL_IDX);
  remember(drv, id, token, takes, <u32>load<u16>(recordAt(drv, id), LINK));
  return id;
}

/** As packedAdd for one segment, which takes one descriptor. */
export function packedAddOne(drv: u32, linear: u32, len: u32, flags: u32, token: u32): bool {
  if (load<u32>(drv, DRV_FREE_COUNT) == 0) return false;
  const id = load<u32>(drv, DRV_FREE);
  const position = load<u32>(drv, DRV_AVAIL_IDX);
  const at = load<u32>(drv, DRV_DESC) + (position & SLOT) * 16;
  flags |= position & WRAP ? DESC_F_AVAIL : DESC_F_USED;
  store<u64>(at, <u64>linear + load<u64>(drv, DRV_BIAS));
  if (position == load<u32>(drv, DRV_PUBLISHED)) {
    store<u32>(at, len, 8);
    store<u16>(at, <u16>id, 12);
    store<u32>(drv, flags, DRV_FIRST_FLAGS);
  } else {
    store<u64>(at, <u64>len | ((<u64>id) << 32) | ((<u64>flags) << 48), 8);
  }
  store<u32>(drv, advance(position, 1, load<u32>(drv, DRV_SIZE)), DRV_AVAIL_IDX);
  remember(drv, id, token, 1, <u32>load<u16>(recordAt(drv, id), LINK));
  return true;
}

/** An indirect table is read from end to end: no NEXT in it (§2.8.7). */
function putTable(table: u32, bias: u64, segments: u32, n: u32): void {
  for (let k: u32 = 0; k < n; k++) {
    const len = load<u32>(segments + k * 8, 4);
    const flags: u64 = len & SEG_WRITE ? DESC_F_WRITE : 0;
    store<u64>(table + k * 16, <u64>load<u32>(segments + k * 8) + bias);
    store<u64>(table + k * 16, <u64>(len & ~SEG_WRITE) | (flags << 48), 8);
  }
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

/** {len u32, id u16, flags u16} at `position`, in one load: the length and id are the flags' own. */
function restAt(drv: u32, position: u32): u64 {
  return atomic.load<u64>(slotAt(drv, position), 8);
}

function isUsed(rest: u64, position: u32): bool {
  const used: u32 = position & WRAP ? DESC_F_AVAIL | DESC_F_USED : 0;
  return (<u32>(rest >> 48) & (DESC_F_AVAIL | DESC_F_USED)) == used;
}

function idOf(rest: u64): u32 {
  return <u32>(rest >> 32) & 0xffff;
}

export function packedUsed(drv: u32): bool {
  const position = load<u32>(drv, DRV_LAST_USED);
  return isUsed(restAt(drv, position), position);
}

/** {id u32, len u32} of the next used descriptor; there is one. */
export function packedElement(drv: u32): u64 {
  const rest = restAt(drv, load<u32>(drv, DRV_LAST_USED));
  return <u64>idOf(rest) | (rest << 32);
}

/** Past the chain at the used position, which takes `by` slots. */
export function packedAdvance(drv: u32, by: u32): void {
  const position = load<u32>(drv, DRV_LAST_USED);
  store<u32>(drv, advance(position, by, load<u32>(drv, DRV_SIZE)), DRV_LAST_USED);
}

export function packedPop(drv: u32): i32 {
  const position = load<u32>(drv, DRV_LAST_USED);
  const rest = restAt(drv, position);
  if (!isUsed(rest, position)) return -1;
  const id = idOf(rest);
  const takes = outstanding(drv, id);
  store<u32>(drv, <u32>rest, DRV_LEN);
  // How long a chain was that nobody knows? One slot, so that the next call looks further.
  packedAdvance(drv, takes == IDLE ? 1 : takes);
  if (takes == IDLE) {
    countError(drv);
    return -1;
  }
  relink(drv, id, id);
  return forget(drv, id, takes);
}

/** As packedPop, in one loop, `most` common chains at most: {token u32, length u32} each at `list`. Returns how many. */
export function packedPopMany(drv: u32, list: u32, most: u32): u32 {
  const size = load<u32>(drv, DRV_SIZE);
  const table = load<u32>(drv, DRV_DESC);
  const end = table + size * 16;
  const position = load<u32>(drv, DRV_LAST_USED);
  let at = table + (position & SLOT) * 16;
  let used: u32 = position & WRAP ? DESC_F_AVAIL | DESC_F_USED : 0;
  let free = load<u32>(drv, DRV_FREE);
  let done: u32 = 0;
  while (done < most) {
    const rest = atomic.load<u64>(at, 8);
    if ((<u32>(rest >> 48) & (DESC_F_AVAIL | DESC_F_USED)) != used) break;
    const id = idOf(rest);
    const record = recordAt(drv, id);
    // A chain of several, or none.
    if (id >= size || load<u64>(record) >> 48 != 1) break;
    const token = load<u32>(record);
    store<u64>(record, <u64>token | ((<u64>free) << 32));
    free = id;
    store<u64>(list + done * 8, <u64>token | (rest << 32));
    done++;
    at += 16;
    if (at == end) {
      at = table;
      used ^= DESC_F_AVAIL | DESC_F_USED;
    }
  }
  store<u32>(drv, free, DRV_FREE);
  store<u32>(drv, load<u32>(drv, DRV_FREE_COUNT) + done, DRV_FREE_COUNT);
  store<u32>(drv, ((at - table) >> 4) | (used != 0 ? WRAP : 0), DRV_LAST_USED);
  return done;
}

export function packedArm(drv: u32): void {
  const flags: u32 = hasEvents(drv) ? EVENT_F_DESC : EVENT_F_ENABLE;
  // One store for both halves, and a full fence: the look that follows cannot pass it.
  atomic.store<u32>(load<u32>(drv, DRV_AVAIL), load<u32>(drv, DRV_LAST_USED) | (flags << 16));
}

export function packedDisarm(drv: u32): void {
  publish(load<u32>(drv, DRV_AVAIL) + 2, EVENT_F_DISABLE);
}
