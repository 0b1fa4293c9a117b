// rx and rxseq.

import type { NetmapMemory, NetmapRing } from '../netmap/types.ts';
import { NS_MOREFRAG } from '../netmap/types.ts';
import type { Job } from './job.ts';
import { headerBytes } from './packet.ts';
import type { SequenceTracker } from './sequence.ts';

const ETHERTYPE_IPV4 = 0x0800;
/** Nanoseconds without frames that end a run where it was asked for. */
const SILENCE = 1e9;

/** Walks slots from `head` on and moves head and cur past them. */
interface Walker {
  bytes: number;
  /** Returns how many frames ended in the slots it passed: at most `frames`, in at most `slots`. */
  walk(ring: NetmapRing, slots: number, frames: number): number;
}

export class Counter implements Walker {
  bytes = 0;

  walk(ring: NetmapRing, slots: number, frames: number): number {
    const size = ring.slots;
    let left = Math.min(slots, ring.space);
    let bytes = 0;
    let ended = 0;
    let i = ring.head;
    while (left > 0 && ended < frames) {
      bytes += ring.length(i);
      if ((ring.flags(i) & NS_MOREFRAG) === 0) ended++;
      if (++i === size) i = 0;
      left--;
    }
    ring.head = i;
    ring.cur = i;
    this.bytes += bytes;
    return ended;
  }
}

/** Reads the sequence number of each frame as well: the payload's first 4 bytes. */
export class SequenceReader implements Walker {
  bytes = 0;
  readonly tracker: SequenceTracker;
  readonly #memory: NetmapMemory;
  /** By ring: the next slot continues a frame. */
  readonly #within = new Set<NetmapRing>();

  constructor(memory: NetmapMemory, tracker: SequenceTracker) {
    this.#memory = memory;
    this.tracker = tracker;
  }

  walk(ring: NetmapRing, slots: number, frames: number): number {
    let within = this.#within.has(ring);
    let left = Math.min(slots, ring.space);
    let ended = 0;
    let i = ring.head;
    while (left > 0 && ended < frames) {
      const length = ring.length(i);
      this.bytes += length;
      if (!within) this.#read(ring.address(i), length);
      within = (ring.flags(i) & NS_MOREFRAG) !== 0;
      if (!within) ended++;
      i = ring.next(i);
      left--;
    }
    if (within) this.#within.add(ring);
    else this.#within.delete(ring);
    ring.head = i;
    ring.cur = i;
    return ended;
  }

  #read(at: number, length: number): void {
    const { bytes } = this.#memory;
    const type = length < 14 ? 0 : (bytes[at + 12]! << 8) | bytes[at + 13]!;
    const offset = headerBytes(type === ETHERTYPE_IPV4 ? 4 : 6);
    if (length < offset + 4) {
      this.tracker.short++;
      return;
    }
    const p = at + offset;
    const high = (bytes[p]! << 8) | bytes[p + 1]!;
    this.tracker.add(((high << 16) | (bytes[p + 2]! << 8) | bytes[p + 3]!) >>> 0);
  }
}

/** Receives until the count is reached or the run ends, from all RX rings in turn. */
export async function receive(job: Job, walker: Walker): Promise<void> {
  const { port, settings, time, counts } = job;
  const { burst, dump } = settings;
  const rings = port.rx;
  let lastFrame: number | undefined;
  while (!job.ended && job.left > 0) {
    const now = time.now();
    if (now >= job.turnAt) await job.turn();
    let moved = 0;
    let free = 0;
    for (let k = 0; k < rings.length && job.left > 0; k++) {
      const ring = rings[k]!;
      const space = port.rxSync(ring);
      free += ring.slots - space;
      if (space === 0) continue;
      const from = ring.head;
      if (lastFrame === undefined) job.start();
      lastFrame = now;
      const frames = walker.walk(ring, burst, job.left);
      if (dump) job.dump(ring, from, ring.head);
      counts.packets += frames;
      if (frames > 0) counts.events++;
      moved++;
    }
    counts.bytes = walker.bytes;
    if (lastFrame !== undefined) job.sawSpace(free);
    if (moved > 0) {
      job.busy();
      continue;
    }
    if (settings.endOnSilence && lastFrame !== undefined && now - lastFrame > SILENCE) {
      // The silence is not part of the run.
      job.stopped = lastFrame;
      return;
    }
    await job.wait({ rx: true });
  }
}
