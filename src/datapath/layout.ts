// Where things are: addresses of blocks, counters, and the few barriers with their meaning.

import {
  PORT_BASE,
  PORT_STRIDE,
  RING_BASE,
  RING_DROPS,
  RING_STRIDE,
  RINGS_PER_PORT,
  SCRATCH_BASE,
  SCRATCH_STRIDE,
  WORKER_BASE,
  WORKER_STRIDE,
} from '../abi/layout';

/** This instance's worker block and scratch; set once by `init`. */
export let worker: u32 = 0;
export let scratch: u32 = 0;
export let workerId: u32 = 0;

export function setWorker(id: u32): void {
  workerId = id;
  worker = WORKER_BASE + id * WORKER_STRIDE;
  scratch = SCRATCH_BASE + id * SCRATCH_STRIDE;
}

export function portAt(port: u32): u32 {
  return PORT_BASE + port * PORT_STRIDE;
}

export function ringAt(index: u32): u32 {
  return RING_BASE + index * RING_STRIDE;
}

/** Ring index of virtqueue `queue` of `port`. */
export function ringIndex(port: u32, queue: u32): u32 {
  return port * RINGS_PER_PORT + queue;
}

export function indexOf(ring: u32): u32 {
  return (ring - RING_BASE) / RING_STRIDE;
}

/** Adds to a u64 counter; one writer at a time (layout.ts says who), so plain. */
export function count(address: u32, by: u64): void {
  store<u64>(address, load<u64>(address) + by);
}

export function countDrop(ring: u32, reason: u32, by: u64): void {
  count(ring + RING_DROPS + reason * 8, by);
}

// Barriers. WebAssembly's atomics are sequentially consistent; plain accesses carry no order.
// - acquire: what the peer wrote before it stored the index is visible after this load.
// - publish: everything stored before is visible to whoever reads this index. On x86 it is an
//   `xchg`, so it is a full fence too: a later atomic load (has the peer asked to be woken?) cannot
//   pass it. On Arm it is `stlr`, which no later `ldar` passes. Therefore no fence of its own
//   stands before a notification check (virtio 1.2 §2.7.13.4.1, §2.7.7.2).

export function acquire(address: u32): u32 {
  return <u32>atomic.load<u16>(address);
}

export function publish(address: u32, index: u32): void {
  atomic.store<u16>(address, <u16>index);
}
