// Split virtqueue, driver side (virtio 1.2 §2.7). driver.ts says what the functions do.
//
// Chains are linked and written completely before the avail index moves. With IN_ORDER descriptors
// are taken in ring order (§2.7.5.2: `next` is the slot behind, which is how fresh records are linked).

import {
  DRV_AVAIL,
  DRV_AVAIL_IDX,
  DRV_BIAS,
  DRV_DESC,
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
  AVAIL_F_NO_INTERRUPT,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  USED_F_NO_NOTIFY,
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

/** `takes` of a record whose chain is one descriptor. */
const ONE: u64 = 1 << 48;
/** The length in a used element. */
const LENGTH: u64 = 0xffff_ffff_0000_0000;

export function splitReset(drv: u32): void {
  const size = load<u32>(drv, DRV_SIZE);
  store<u32>(drv, 0, DRV_AVAIL_IDX);
  store<u32>(drv, 0, DRV_PUBLISHED);
  store<u32>(drv, 0, DRV_LAST_USED);
  store<u32>(drv, 0, DRV_KICKED);
  memory.fill(load<u32>(drv, DRV_DESC), 0, size * 16);
  memory.fill(load<u32>(drv, DRV_AVAIL), 0, 6 + size * 2);
  memory.fill(load<u32>(drv, DRV_USED), 0, 6 + size * 8);
}

function putDescriptor(at: u32, drv: u32, linear: u32, len: u32, flags: u32, next: u32): void {
  store<u64>(at, <u64>linear + load<u64>(drv, DRV_BIAS));
  store<u64>(at, <u64>len | ((<u64>flags) << 32) | ((<u64>next) << 48), 8);
}

export function splitAdd(drv: u32, segments: u32, n: u32, token: u32, indirect: bool): i32 {
  const takes: u32 = indirect ? 1 : n;
  if (takes > load<u32>(drv, DRV_FREE_COUNT)) return -1;
  const table = load<u32>(drv, DRV_DESC);
  const head = load<u32>(drv, DRV_FREE);
  let rest = head;
  if (indirect) {
    const inner = load<u32>(drv, DRV_TABLES) + head * (DRV_TABLE * 16);
    for (let k: u32 = 0; k < n; k++) {
      const len = load<u32>(segments + k * 8, 4);
      const flags = (len & SEG_WRITE ? DESC_F_WRITE : 0) | (k + 1 < n ? DESC_F_NEXT : 0);
      const linear = load<u32>(segments + k * 8);
      putDescriptor(inner + k * 16, drv, linear, len & ~SEG_WRITE, flags, k + 1);
    }
    putDescriptor(table + head * 16, drv, inner, n * 16, DESC_F_INDIRECT, 0);
    rest = <u32>load<u16>(recordAt(drv, head), LINK);
  } else {
    for (let k: u32 = 0; k < n; k++) {
      const i = rest;
      const len = load<u32>(segments + k * 8, 4);
      const flags = (len & SEG_WRITE ? DESC_F_WRITE : 0) | (k + 1 < n ? DESC_F_NEXT : 0);
      const linear = load<u32>(segments + k * 8);
      rest = <u32>load<u16>(recordAt(drv, i), LINK);
      putDescriptor(table + i * 16, drv, linear, len & ~SEG_WRITE, flags, k + 1 < n ? rest : 0);
    }
  }
  remember(drv, head, token, takes, rest);
  const idx = load<u32>(drv, DRV_AVAIL_IDX);
  const slot = idx & (load<u32>(drv, DRV_SIZE) - 1);
  store<u16>(load<u32>(drv, DRV_AVAIL) + 4 + slot * 2, <u16>head);
  store<u32>(drv, (idx + 1) & 0xffff, DRV_AVAIL_IDX);
  return head;
}

/** As splitAdd for one segment, which takes one descriptor. */
export function splitAddOne(drv: u32, linear: u32, len: u32, flags: u32, token: u32): bool {
  const free = load<u32>(drv, DRV_FREE_COUNT);
  if (free == 0) return false;
  const head = load<u32>(drv, DRV_FREE);
  const record = recordAt(drv, head);
  const rest = <u32>load<u16>(record, LINK);
  putDescriptor(load<u32>(drv, DRV_DESC) + head * 16, drv, linear, len, flags, 0);
  store<u64>(record, <u64>token | ((<u64>rest) << 32) | ONE);
  store<u32>(drv, rest, DRV_FREE);
  store<u32>(drv, free - 1, DRV_FREE_COUNT);
  const idx = load<u32>(drv, DRV_AVAIL_IDX);
  const slot = idx & (load<u32>(drv, DRV_SIZE) - 1);
  store<u16>(load<u32>(drv, DRV_AVAIL) + 4 + slot * 2, <u16>head);
  store<u32>(drv, (idx + 1) & 0xffff, DRV_AVAIL_IDX);
  return true;
}

export function splitPublish(drv: u32): bool {
  const idx = load<u32>(drv, DRV_AVAIL_IDX);
  store<u32>(drv, idx, DRV_PUBLISHED);
  publish(load<u32>(drv, DRV_AVAIL) + 2, idx);
  const used = load<u32>(drv, DRV_USED);
  const old = load<u32>(drv, DRV_KICKED);
  store<u32>(drv, idx, DRV_KICKED);
  if (hasEvents(drv)) {
    const event = acquire(used + 4 + load<u32>(drv, DRV_SIZE) * 8);
    return ((idx - event - 1) & 0xffff) < ((idx - old) & 0xffff);
  }
  return (acquire(used) & USED_F_NO_NOTIFY) == 0;
}

export function splitUsed(drv: u32): bool {
  return acquire(load<u32>(drv, DRV_USED) + 2) != load<u32>(drv, DRV_LAST_USED);
}

/** {id u32, len u32} of used element `position`. */
function elementAt(drv: u32, position: u32): u64 {
  const slot = position & (load<u32>(drv, DRV_SIZE) - 1);
  return load<u64>(load<u32>(drv, DRV_USED) + 4 + slot * 8);
}

/** {id u32, len u32} of the next used element; there is one. */
export function splitElement(drv: u32): u64 {
  return elementAt(drv, load<u32>(drv, DRV_LAST_USED));
}

/** Past one used element. */
export function splitAdvance(drv: u32): void {
  store<u32>(drv, (load<u32>(drv, DRV_LAST_USED) + 1) & 0xffff, DRV_LAST_USED);
}

export function splitPop(drv: u32): i32 {
  const last = load<u32>(drv, DRV_LAST_USED);
  if (acquire(load<u32>(drv, DRV_USED) + 2) == last) return -1;
  const element = elementAt(drv, last);
  const head = <u32>element;
  store<u32>(drv, (last + 1) & 0xffff, DRV_LAST_USED);
  store<u32>(drv, <u32>(element >> 32), DRV_LEN);
  const takes = outstanding(drv, head);
  if (takes == IDLE) {
    countError(drv);
    return -1;
  }
  let tail = head;
  for (let k: u32 = 1; k < takes; k++) tail = <u32>load<u16>(recordAt(drv, tail), LINK);
  relink(drv, head, tail);
  return forget(drv, head, takes);
}

/** As splitPop, up to `most` times in one loop: {token u32, length u32} each at `list`. Returns how often. */
export function splitPopMany(drv: u32, list: u32, most: u32): u32 {
  const size = load<u32>(drv, DRV_SIZE);
  const ring = load<u32>(drv, DRV_USED);
  let last = load<u32>(drv, DRV_LAST_USED);
  const n = min((acquire(ring + 2) - last) & 0xffff, most);
  // The last is the first to be taken again: descriptors that go round in order cost the other side's
  // core 15 % of its rate, whose prefetcher then asks for lines that are being written.
  let free = load<u32>(drv, DRV_FREE);
  let done: u32 = 0;
  while (done < n) {
    const element = load<u64>(ring + 4 + (last & (size - 1)) * 8);
    const head = <u32>element;
    const record = recordAt(drv, head);
    // Of a chain of several the rest is linked as well: one at a time.
    if (head >= size || load<u64>(record) >> 48 != 1) break;
    const token = load<u32>(record);
    store<u64>(record, <u64>token | ((<u64>free) << 32));
    free = head;
    store<u64>(list + done * 8, <u64>token | (element & LENGTH));
    last = (last + 1) & 0xffff;
    done++;
  }
  store<u32>(drv, free, DRV_FREE);
  store<u32>(drv, load<u32>(drv, DRV_FREE_COUNT) + done, DRV_FREE_COUNT);
  store<u32>(drv, last, DRV_LAST_USED);
  return done;
}

export function splitArm(drv: u32): void {
  const avail = load<u32>(drv, DRV_AVAIL);
  if (hasEvents(drv)) {
    publish(avail + 4 + load<u32>(drv, DRV_SIZE) * 2, load<u32>(drv, DRV_LAST_USED));
  } else {
    publish(avail, 0);
  }
}

/** With EVENT_IDX a stale event is enough. */
export function splitDisarm(drv: u32): void {
  if (!hasEvents(drv)) publish(load<u32>(drv, DRV_AVAIL), AVAIL_F_NO_INTERRUPT);
}
