// Pages of guest memory that is mapped 2 MiB at a time: looked up, and mapped when they are missing.
//
// A worker that needs a page which is not there takes a free slot (slots.ts) and has the host map it.
// Where no slot is free it may not wait: a sender's burst ends and goes on next round, a receiver's
// frame is lost. So senders leave some for receivers, and neither takes more than a frame needs.

import {
  BURST,
  PAGE_ABSENT,
  PAGE_BUSY,
  PAGER_FREE,
  REGION_FD,
  REGION_PAGE,
  REGION_TABLE,
  WORKER_PAGES_IN,
} from '../abi/layout';
import { pageIn } from './host';
import { count, worker } from './layout';
import { linearOf, publishSlot, reserve, slots, takeSlot, touch, untakeSlot } from './slots';
import { charge, PAGE_WORK } from './work';

/** What kept a page from being mapped: nothing, or that no slot is free just now. */
export const MISSING_NOTHING: u32 = 0;
export const MISSING_SLOT: u32 = 1;
/** The kernel, or FRAME_PAGES: trying again would not help. */
export const MISSING_PAGE: u32 = 2;

/**
 * Pages mapped for one frame at most. 64 KiB in pages of 4 KiB each with its table need 20; what needs
 * more than this would hold everybody up.
 */
const FRAME_PAGES: u32 = 64;
/** And for one burst, its receivers' buffers included: under a millisecond. */
const BURST_PAGES: u32 = 96;

/** Bursts without a receiver's loss before they may grow by a frame. */
const CALM: u32 = 64;

/** Why `resident` last returned 0; whoever asks for several pages clears it before the first. */
export let missing: u32 = MISSING_NOTHING;

/** Pages that may still be mapped for the frame that is looked at. */
let left: u32 = u32.MAX_VALUE;
/** And for the burst. */
let burstLeft: u32 = u32.MAX_VALUE;
/** Frames a sender's burst has at most, and bursts since that was changed. */
let burst: u32 = BURST;
let calm: u32 = 0;
/** Free slots that are not taken: those kept for receivers while a sender's burst is gathered. */
let kept: u32 = 0;

export function clearMissing(): void {
  missing = MISSING_NOTHING;
}

/** A sender's chains are looked at from here on. */
export function pagesForSending(): void {
  burstLeft = BURST_PAGES;
  kept = reserve();
}

/** A frame's chains, or the buffers for it, are looked at from here on. */
export function pagesForFrame(): void {
  // Of a small pool a sender may take as many.
  left = min<u32>(FRAME_PAGES, slots() >> 1);
}

/** How many frames for a paged port to take at most. */
export function pagedBurst(): u32 {
  if (burst < <u32>BURST && ++calm == CALM) {
    calm = 0;
    burst++;
  }
  return burst;
}

/** Receive buffers that a frame needs are looked at from here on. */
export function pagesForReceiving(): void {
  kept = 0;
}

/** Receive buffers that may not be needed are looked at: none of their pages is mapped for that. */
export function pagesAhead(): void {
  kept = u32.MAX_VALUE;
}

/** A receiver found no slot, and lost a frame for it: smaller bursts need fewer at a time. */
export function tooManyPages(): void {
  burst = max<u32>(burst >> 1, 1);
  calm = 0;
}

/**
 * Whether fewer slots are free than receivers may need. Senders to paged ports then wait for those in
 * limbo: a round of another worker at most.
 */
export function slotsLacking(): bool {
  return load<u32>(PAGER_FREE) < reserve();
}

// --- pages --------------------------------------------------------------------------------------

/**
 * Linear address of page `page` of a paged region, mapped if it was not; good until this worker's
 * round ends. 0 when it cannot be had: `missing` says why.
 */
export function resident(region: u32, page: u32): u32 {
  const entry = load<u32>(region, REGION_TABLE) + page * 4;
  const linear = atomic.load<u32>(entry);
  if (linear <= <u32>PAGE_BUSY) return fault(region, page, entry);
  touch(linear);
  return linear;
}

function fault(region: u32, page: u32, entry: u32): u32 {
  if (load<u32>(PAGER_FREE) <= kept || burstLeft == 0) {
    missing = MISSING_SLOT;
    return 0;
  }
  if (left == 0) {
    missing = MISSING_PAGE;
    return 0;
  }
  while (true) {
    const was = atomic.cmpxchg<u32>(entry, PAGE_ABSENT, PAGE_BUSY);
    if (was == PAGE_ABSENT) break;
    // Another worker maps it right now: that takes one system call.
    if (was == PAGE_BUSY) continue;
    touch(was);
    return was;
  }
  const taken = takeSlot(kept);
  if (taken == 0) {
    atomic.store<u32>(entry, PAGE_ABSENT);
    missing = MISSING_SLOT;
    return 0;
  }
  const slot = taken - 1;
  const linear = linearOf(slot);
  if (!pageIn(load<u32>(region, REGION_FD), load<u32>(region, REGION_PAGE) + page, linear)) {
    atomic.store<u32>(entry, PAGE_ABSENT);
    untakeSlot(slot);
    missing = MISSING_PAGE;
    return 0;
  }
  count(worker + WORKER_PAGES_IN, 1);
  charge(PAGE_WORK);
  left--;
  burstLeft--;
  publishSlot(slot, load<u32>(region, REGION_TABLE), entry);
  return linear;
}
