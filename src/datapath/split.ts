// Split virtqueues, device side (virtio 1.2 §2.7).
//
//   descriptor  {addr u64, len u32, flags u16, next u16}                          driver writes
//   avail       {flags u16, idx u16, ring[size] u16, used_event u16}              driver writes
//   used        {flags u16, idx u16, ring[size] {id u32, len u32}, avail_event}   device writes
//
// The functions are what ring.ts asks of a format; its docstrings say what they do.

import {
  BROKEN_AVAIL_JUMP,
  BROKEN_HEAD,
  RING_AVAIL,
  RING_DESC,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_SIZE,
  RING_USED,
  RING_USED_IDX,
  RINGF_EVENT_IDX,
} from '../abi/layout';
import { AVAIL_F_NO_INTERRUPT, USED_F_NO_NOTIFY } from '../abi/virtio';
import { latch } from './latch';
import { acquire, publish } from './layout';

export function splitReady(ring: u32): u32 {
  const idx = acquire(load<u32>(ring, RING_AVAIL) + 2);
  const n = (idx - load<u32>(ring, RING_LAST_AVAIL)) & 0xffff;
  if (n > load<u32>(ring, RING_SIZE)) {
    latch(ring, BROKEN_AVAIL_JUMP);
    return 0;
  }
  return n;
}

/** `n` is at most what splitReady said. */
export function splitHeads(ring: u32, position: u32, n: u32, list: u32): u32 {
  const avail = load<u32>(ring, RING_AVAIL) + 4;
  const size = load<u32>(ring, RING_SIZE);
  const table = load<u32>(ring, RING_DESC);
  for (let i: u32 = 0; i < n; i++) {
    const head = <u32>load<u16>(avail + ((position + i) & (size - 1)) * 2);
    if (head >= size) {
      latch(ring, BROKEN_HEAD);
      return 0;
    }
    store<u64>(list + i * 8, <u64>(head | 0x1_0000) | ((<u64>(table + head * 16)) << 32));
  }
  return n;
}

export function splitPut(
  ring: u32,
  position: u32,
  heads: u32,
  stride: u32,
  n: u32,
  written: bool,
): u32 {
  const entries = load<u32>(ring, RING_USED) + 4;
  const mask = load<u32>(ring, RING_SIZE) - 1;
  for (let i: u32 = 0; i < n; i++) {
    const head = heads + i * stride;
    const len = written ? load<u32>(head - 4) : 0;
    const entry = <u64>(load<u32>(head) & 0xffff) | ((<u64>len) << 32);
    store<u64>(entries + (position & mask) * 8, entry);
    position++;
  }
  return position;
}

export function splitPublish(ring: u32, position: u32): void {
  publish(load<u32>(ring, RING_USED) + 2, position);
}

export function splitWanted(ring: u32, old: u32): bool {
  const avail = load<u32>(ring, RING_AVAIL);
  if (!(load<u32>(ring, RING_FLAGS) & RINGF_EVENT_IDX)) {
    return (acquire(avail) & AVAIL_F_NO_INTERRUPT) == 0;
  }
  const idx = load<u32>(ring, RING_USED_IDX);
  const event = acquire(avail + 4 + load<u32>(ring, RING_SIZE) * 2);
  // need_event (virtio 1.2 §2.7.10); an `old` above 0xffff is "never checked": call.
  return old > 0xffff || ((idx - event - 1) & 0xffff) < ((idx - old) & 0xffff);
}

export function splitArm(ring: u32): bool {
  const last = load<u32>(ring, RING_LAST_AVAIL);
  const used = load<u32>(ring, RING_USED);
  if (load<u32>(ring, RING_FLAGS) & RINGF_EVENT_IDX) {
    publish(used + 4 + load<u32>(ring, RING_SIZE) * 8, last);
  } else {
    publish(used, 0);
  }
  return acquire(load<u32>(ring, RING_AVAIL) + 2) == last;
}

/** With EVENT_IDX a stale event is enough. */
export function splitDisarm(ring: u32): void {
  if (!(load<u32>(ring, RING_FLAGS) & RINGF_EVENT_IDX)) {
    publish(load<u32>(ring, RING_USED), USED_F_NO_NOTIFY);
  }
}
