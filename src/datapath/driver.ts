// Split virtqueue, driver side (virtio 1.2 §2.7): the other half of every ring.
//
// Buffers are named by the caller's token. Chains are linked and written completely before the
// avail index moves (drvPublish): the device can never see half of one. What the device wrote is
// checked as a guest checks: an id that names no outstanding chain counts in DRV_ERRORS.

import {
  DRV_AVAIL,
  DRV_AVAIL_IDX,
  DRV_BIAS,
  DRV_DESC,
  DRV_ERRORS,
  DRV_FLAGS,
  DRV_FREE,
  DRV_FREE_COUNT,
  DRV_HEAD,
  DRV_HEADS,
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
import { RINGF_EVENT_IDX } from '../abi/layout';
import {
  AVAIL_F_NO_INTERRUPT,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  USED_F_NO_NOTIFY,
} from '../abi/virtio';
import { acquire, publish } from './layout';

// A descriptor's private record: {token u32, link u16, takes u16}. The link is the next free
// descriptor, or the next of the chain: shared memory is never asked. A head's `takes` is the
// chain's length, IDLE while no chain is outstanding.
const LINK: u32 = 4;
const TAKES: u32 = 6;
const IDLE: u32 = 0;

function headAt(drv: u32, head: u32): u32 {
  return drv + DRV_HEADS + head * DRV_HEAD;
}

/** Fresh ring: clears indices and links all descriptors. The DRV_ fields are set already. */
export function drvReset(drv: u32): void {
  const size = load<u32>(drv, DRV_SIZE);
  store<u32>(drv, 0, DRV_FREE);
  store<u32>(drv, size, DRV_FREE_COUNT);
  store<u32>(drv, 0, DRV_AVAIL_IDX);
  store<u32>(drv, 0, DRV_PUBLISHED);
  store<u32>(drv, 0, DRV_LAST_USED);
  store<u32>(drv, 0, DRV_KICKED);
  store<u32>(drv, 0, DRV_ERRORS);
  for (let i: u32 = 0; i < size; i++) {
    store<u16>(headAt(drv, i), <u16>(i + 1), LINK);
    store<u16>(headAt(drv, i), <u16>IDLE, TAKES);
  }
  memory.fill(load<u32>(drv, DRV_DESC), 0, size * 16);
  memory.fill(load<u32>(drv, DRV_AVAIL), 0, 6 + size * 2);
  memory.fill(load<u32>(drv, DRV_USED), 0, 6 + size * 8);
}

function putDescriptor(at: u32, drv: u32, linear: u32, len: u32, flags: u32, next: u32): void {
  store<u64>(at, <u64>linear + load<u64>(drv, DRV_BIAS));
  store<u64>(at, <u64>len | ((<u64>flags) << 32) | ((<u64>next) << 48), 8);
}

/**
 * Adds one chain of `n` segments {linear u32, length u32 | SEG_WRITE} from `segments` on. With
 * `indirect` it takes one descriptor, of up to DRV_TABLE segments. Not visible before drvPublish.
 * Returns the head, or -1 when there are not enough descriptors.
 */
export function drvAdd(drv: u32, segments: u32, n: u32, token: u32, indirect: bool): i32 {
  const takes: u32 = indirect ? 1 : n;
  const free = load<u32>(drv, DRV_FREE_COUNT);
  if (takes > free || n == 0 || (indirect && n > <u32>DRV_TABLE)) return -1;
  const table = load<u32>(drv, DRV_DESC);
  const head = load<u32>(drv, DRV_FREE);
  let i = head;
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
    rest = <u32>load<u16>(headAt(drv, head), LINK);
  } else {
    for (let k: u32 = 0; k < n; k++) {
      const len = load<u32>(segments + k * 8, 4);
      const flags = (len & SEG_WRITE ? DESC_F_WRITE : 0) | (k + 1 < n ? DESC_F_NEXT : 0);
      rest = <u32>load<u16>(headAt(drv, i), LINK);
      putDescriptor(
        table + i * 16,
        drv,
        load<u32>(segments + k * 8),
        len & ~SEG_WRITE,
        flags,
        k + 1 < n ? rest : 0,
      );
      i = rest;
    }
  }
  store<u32>(drv, rest, DRV_FREE);
  store<u32>(drv, free - takes, DRV_FREE_COUNT);
  store<u32>(headAt(drv, head), token);
  store<u16>(headAt(drv, head), <u16>takes, TAKES);
  const idx = load<u32>(drv, DRV_AVAIL_IDX);
  const slot = idx & (load<u32>(drv, DRV_SIZE) - 1);
  store<u16>(load<u32>(drv, DRV_AVAIL) + 4 + slot * 2, <u16>head);
  store<u32>(drv, (idx + 1) & 0xffff, DRV_AVAIL_IDX);
  return head;
}

/** Makes all added chains visible; true when the device wants a kick. */
export function drvPublish(drv: u32): bool {
  const idx = load<u32>(drv, DRV_AVAIL_IDX);
  if (idx == load<u32>(drv, DRV_PUBLISHED)) return false;
  store<u32>(drv, idx, DRV_PUBLISHED);
  publish(load<u32>(drv, DRV_AVAIL) + 2, idx);
  const used = load<u32>(drv, DRV_USED);
  const old = load<u32>(drv, DRV_KICKED);
  store<u32>(drv, idx, DRV_KICKED);
  if (load<u32>(drv, DRV_FLAGS) & RINGF_EVENT_IDX) {
    const event = acquire(used + 4 + load<u32>(drv, DRV_SIZE) * 8);
    return ((idx - event - 1) & 0xffff) < ((idx - old) & 0xffff);
  }
  return (acquire(used) & USED_F_NO_NOTIFY) == 0;
}

/** Chains the device has used and drvPop has not returned. */
export function drvUsed(drv: u32): u32 {
  return (acquire(load<u32>(drv, DRV_USED) + 2) - load<u32>(drv, DRV_LAST_USED)) & 0xffff;
}

/**
 * Takes one used chain back, freeing its descriptors; DRV_LEN then holds what the device wrote.
 * Returns its token, or -1 when there is none.
 */
export function drvPop(drv: u32): i32 {
  if (drvUsed(drv) == 0) return -1;
  const size = load<u32>(drv, DRV_SIZE);
  const last = load<u32>(drv, DRV_LAST_USED);
  const entry = load<u64>(load<u32>(drv, DRV_USED) + 4 + (last & (size - 1)) * 8);
  const head = <u32>entry;
  store<u32>(drv, (last + 1) & 0xffff, DRV_LAST_USED);
  store<u32>(drv, <u32>(entry >> 32), DRV_LEN);
  const chain = head < size ? <u32>load<u16>(headAt(drv, head), TAKES) : IDLE;
  if (chain == IDLE) {
    store<u32>(drv, load<u32>(drv, DRV_ERRORS) + 1, DRV_ERRORS);
    return -1;
  }
  const token = load<u32>(headAt(drv, head));
  store<u16>(headAt(drv, head), <u16>IDLE, TAKES);
  let tail = head;
  for (let k: u32 = 1; k < chain; k++) tail = <u32>load<u16>(headAt(drv, tail), LINK);
  store<u16>(headAt(drv, tail), <u16>load<u32>(drv, DRV_FREE), LINK);
  store<u32>(drv, head, DRV_FREE);
  store<u32>(drv, load<u32>(drv, DRV_FREE_COUNT) + chain, DRV_FREE_COUNT);
  return token;
}

/** Asks for a call at the next used buffer; true when one is there already. */
export function drvArm(drv: u32): bool {
  const last = load<u32>(drv, DRV_LAST_USED);
  const avail = load<u32>(drv, DRV_AVAIL);
  if (load<u32>(drv, DRV_FLAGS) & RINGF_EVENT_IDX) {
    publish(avail + 4 + load<u32>(drv, DRV_SIZE) * 2, last);
  } else {
    publish(avail, 0);
  }
  return drvUsed(drv) != 0;
}

/** No calls, please. */
export function drvDisarm(drv: u32): void {
  if (!(load<u32>(drv, DRV_FLAGS) & RINGF_EVENT_IDX)) {
    publish(load<u32>(drv, DRV_AVAIL), AVAIL_F_NO_INTERRUPT);
  }
}
