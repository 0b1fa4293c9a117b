// The slots that pages of guest memory are mapped in, and when one may be used again.
//
// A page table entry names the slot that shows its page; nothing else does between two rounds. At the
// start of a round, and only there, slots that were not used for long are evicted: their entries are
// cleared, but a worker in the middle of its round may still read and write through the old address.
// So they wait in limbo until every other worker has begun a round since (or is parked). That is the
// whole epoch rule, and it stands in this file; main takes slots away only under quiesce
// (memory/pager.ts).
//
// The lock is for lists and slot records. It is held for a bounded number of loads and stores, never
// over a call to the host.

import {
  FAULTS_BASE,
  PAGE,
  PAGE_ABSENT,
  PAGER_CLOCK,
  PAGER_FIRST,
  PAGER_FREE,
  PAGER_FREE_FIRST,
  PAGER_HAND,
  PAGER_LIMBO,
  PAGER_LIMBO_FIRST,
  PAGER_LIMBO_LAST,
  PAGER_LOCK,
  PAGER_SLOTS,
  PAGER_WANTED,
  SLOT,
  SLOT_ENTRY,
  SLOT_NEXT,
  SLOT_PAGES,
  SLOT_RECORD,
  SLOT_RECORDS,
  SLOT_SINCE,
  SLOT_STAMPS,
  SLOT_TABLE,
  SWITCH_WORKERS,
  WORKER_BASE,
  WORKER_EVICTIONS,
  WORKER_PARKED,
  WORKER_ROUND,
  WORKER_STRIDE,
} from '../abi/layout';
import { count, worker, workerId } from './layout';

/** Of so many mapped slots the one unused for longest is evicted. */
const SAMPLE: u32 = 8;

/** PAGER_CLOCK of this worker's round. */
let now: u32 = 0;

export function slots(): u32 {
  return load<u32>(PAGER_SLOTS);
}

function recordAt(slot: u32): u32 {
  return SLOT_RECORDS + slot * SLOT_RECORD;
}

export function linearOf(slot: u32): u32 {
  return load<u32>(PAGER_FIRST) + slot * SLOT;
}

/**
 * Slots kept for receivers: a frame that finds none there is lost, one of a sender waits a round. More
 * than a sender's burst can take between `reserve` and what `evict` frees.
 */
export function reserve(): u32 {
  return slots() >> 2;
}

/** Free slots below which some are evicted. */
function low(): u32 {
  return (slots() * 3) >> 3;
}

/** Whether a round that begins now would evict. */
export function slotsShort(): bool {
  return load<u32>(PAGER_FREE) < low() || load<u32>(PAGER_WANTED) != 0;
}

/** The next round to begin evicts all it can. */
export function wantSlots(): void {
  atomic.store<u32>(PAGER_WANTED, 1);
}

// --- rounds -------------------------------------------------------------------------------------

/** Begins a round: this worker uses no page any more that it looked up before. */
export function beginRound(): void {
  now = atomic.add<u32>(PAGER_CLOCK, 1) + 1;
  // After the clock, so that whoever reads this knows that entries it cleared are seen cleared.
  atomic.store<u32>(worker + WORKER_ROUND, now);
  if (!slotsShort()) return;
  // One worker at a time is enough; main may hold it too.
  if (atomic.cmpxchg<u32>(PAGER_LOCK, 0, 1) != 0) return;
  evict();
  release();
  unlock();
}

function lock(): void {
  while (atomic.cmpxchg<u32>(PAGER_LOCK, 0, 1) != 0) {}
}

function unlock(): void {
  atomic.store<u32>(PAGER_LOCK, 0);
}

/** Puts slots into limbo until enough are free or will be; looks at each slot once at most. */
function evict(): void {
  const all = slots();
  const wanted = load<u32>(PAGER_WANTED) != 0;
  const target = wanted ? all : low() + (all >> 4);
  const sample: u32 = wanted ? 1 : SAMPLE;
  atomic.store<u32>(PAGER_WANTED, 0);
  let unseen = all;
  while (unseen > 0 && load<u32>(PAGER_FREE) + load<u32>(PAGER_LIMBO) < target) {
    let victim = all;
    let oldest: u32 = 0;
    for (let seen: u32 = 0; seen < sample && unseen > 0; unseen--) {
      const slot = load<u32>(PAGER_HAND);
      store<u32>(PAGER_HAND, slot + 1 < all ? slot + 1 : 0);
      if (atomic.load<u32>(recordAt(slot) + SLOT_ENTRY) == 0) continue;
      seen++;
      const age = now - load<u32>(SLOT_STAMPS + slot * 4);
      if (victim == all || age > oldest) {
        victim = slot;
        oldest = age;
      }
    }
    if (victim < all) detach(victim);
  }
}

/** Clears the entry that names the slot, and puts the slot last in limbo. */
function detach(slot: u32): void {
  const record = recordAt(slot);
  const entry = load<u32>(record, SLOT_ENTRY);
  const linear = linearOf(slot);
  // A worker that has mapped it a moment ago has not yet said so: leave it that.
  if (atomic.cmpxchg<u32>(entry, linear, PAGE_ABSENT) != linear) return;
  atomic.store<u32>(record + SLOT_ENTRY, 0);
  // Read after the entry was cleared: a round that begins later does not find the slot.
  store<u32>(record, atomic.load<u32>(PAGER_CLOCK), SLOT_SINCE);
  store<u32>(record, 0, SLOT_NEXT);
  const last = load<u32>(PAGER_LIMBO_LAST);
  if (last == 0) store<u32>(PAGER_LIMBO_FIRST, slot + 1);
  else store<u32>(recordAt(last - 1), slot + 1, SLOT_NEXT);
  store<u32>(PAGER_LIMBO_LAST, slot + 1);
  store<u32>(PAGER_LIMBO, load<u32>(PAGER_LIMBO) + 1);
  count(worker + WORKER_EVICTIONS, 1);
}

/** Frees the slots in limbo that nobody can be using any more. */
function release(): void {
  while (true) {
    const first = load<u32>(PAGER_LIMBO_FIRST);
    if (first == 0) return;
    const record = recordAt(first - 1);
    if (!letGo(load<u32>(record, SLOT_SINCE))) return;
    const next = load<u32>(record, SLOT_NEXT);
    store<u32>(PAGER_LIMBO_FIRST, next);
    if (next == 0) store<u32>(PAGER_LIMBO_LAST, 0);
    store<u32>(PAGER_LIMBO, load<u32>(PAGER_LIMBO) - 1);
    // One whose memory went away stays off all lists: main has to see whose it was, and frees it.
    if (!faulted(first - 1)) giveSlot(first - 1);
  }
}

/** Whether a page of the slot was found gone. */
function faulted(slot: u32): bool {
  const bits: u32 = FAULTS_BASE + linearOf(slot) / PAGE / 8;
  let any: u64 = 0;
  for (let i: u32 = 0; i < <u32>(SLOT / PAGE / 8); i += 8) any |= load<u64>(bits + i);
  return any != 0;
}

/**
 * Whether every other worker has begun a round after `since`, or is parked. The clock wraps: a round
 * that lasts for 2^31 others' would be taken for a later one, which is minutes of one burst.
 */
function letGo(since: u32): bool {
  const workers = load<u32>(SWITCH_WORKERS);
  for (let id: u32 = 0; id < workers; id++) {
    if (id == workerId) continue;
    const block = WORKER_BASE + id * WORKER_STRIDE;
    if (atomic.load<u32>(block + WORKER_PARKED) != 0) continue;
    if (<i32>(atomic.load<u32>(block + WORKER_ROUND) - since) <= 0) return false;
  }
  return true;
}

// --- slots --------------------------------------------------------------------------------------

/** Puts a slot on the free list. Under the lock. */
function giveSlot(slot: u32): void {
  store<u32>(recordAt(slot), load<u32>(PAGER_FREE_FIRST), SLOT_NEXT);
  store<u32>(PAGER_FREE_FIRST, slot + 1);
  atomic.store<u32>(PAGER_FREE, load<u32>(PAGER_FREE) + 1);
}

/** Takes a free slot unless only `kept` are left; returns it + 1, or 0. */
export function takeSlot(kept: u32): u32 {
  lock();
  let first: u32 = 0;
  const free = load<u32>(PAGER_FREE);
  if (free > kept) {
    first = load<u32>(PAGER_FREE_FIRST);
    const record = recordAt(first - 1);
    store<u32>(PAGER_FREE_FIRST, load<u32>(record, SLOT_NEXT));
    // Whose file it still shows matters no more: the next mapping replaces it.
    store<u32>(record, 0, SLOT_TABLE);
    atomic.store<u32>(PAGER_FREE, free - 1);
  }
  unlock();
  return first;
}

/** Gives back a slot that nothing was mapped in. */
export function untakeSlot(slot: u32): void {
  lock();
  giveSlot(slot);
  unlock();
}

/** The slot taken shows the page of `entry` in page table `table`: whoever looks finds it. */
export function publishSlot(slot: u32, table: u32, entry: u32): void {
  const linear = linearOf(slot);
  const record = recordAt(slot);
  touch(linear);
  store<u32>(record, table, SLOT_TABLE);
  store<u32>(SLOT_PAGES + slot * 4, entry);
  atomic.store<u32>(record + SLOT_ENTRY, entry);
  atomic.store<u32>(entry, linear);
}

/** The page table entry that named the slot at `linear` when this worker looked its page up. */
export function entryOf(linear: u32): u32 {
  return load<u32>(SLOT_PAGES + ((linear - load<u32>(PAGER_FIRST)) / SLOT) * 4);
}

/** The slot at `linear` is used in this round. */
export function touch(linear: u32): void {
  const stamp = SLOT_STAMPS + ((linear - load<u32>(PAGER_FIRST)) / SLOT) * 4;
  // Often the same page again: its line stays shared with the other workers.
  if (load<u32>(stamp) == now) return;
  store<u32>(stamp, now);
}
