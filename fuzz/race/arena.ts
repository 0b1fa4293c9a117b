// A hostile guest wired to an honest one, its rings laid out by hand so that every field has an address.
// The same ring is shown to the device again and again: each round is a ring full of chances.

import {
  RING_BROKEN,
  RING_LAST_AVAIL,
  RING_REASON,
  RING_RUNNING,
  RING_SIGNALLED,
  RING_STATE,
  RING_USED_IDX,
} from '../../src/abi/layout.ts';
import {
  DESC_F_AVAIL,
  F_CSUM,
  F_EVENT_IDX,
  F_HOST_TSO4,
  F_INDIRECT_DESC,
  F_MRG_RXBUF,
  F_RING_PACKED,
  F_VERSION_1,
  WRAP,
} from '../../src/abi/virtio.ts';
import { ringAddress } from '../../src/memory/control.ts';
import type { TestQueue } from '../../test/datapath/queue.ts';
import { features, type TestPort } from '../../test/datapath/rig.ts';
import type { Bench } from '../bench.ts';
import type { Memory } from '../memory.ts';
import { Honest } from '../rings/honest.ts';

/** Entries of both hostile rings. */
export const SIZE = 32;
export const HEADER = 12;
const POLLS = 1000;
/** Polls in vain after which there is nothing: one more than ports, each of which may owe some. */
const IDLE = 3;

export class MixedRead extends Error {
  override name = 'MixedRead';
}

export interface ArenaSpec {
  packed: boolean;
  /** Features of the honest guest. */
  peer: bigint;
  /** The hostile guest takes frames over several buffers. */
  mergeable?: boolean;
  /** What the honest one sends, virtio header and frame. */
  samples?: { header: Uint8Array; frame: Uint8Array }[];
}

export class Arena {
  readonly bench: Bench;
  readonly memory: Memory;
  readonly packed: boolean;
  readonly port: TestPort;
  readonly tx: TestQueue;
  readonly rx: TestQueue;
  readonly peer: Honest;
  /** BROKEN_* by which the ring was latched in the last round, or 0. */
  latched = 0;
  /** The position the device had reached then, of TX or RX. */
  reached = 0;

  constructor(bench: Bench, spec: ArenaSpec) {
    const { rig, memory } = bench;
    this.bench = bench;
    this.memory = memory;
    this.packed = spec.packed;
    rig.clear();
    const bits = [F_VERSION_1, F_INDIRECT_DESC, F_EVENT_IDX, F_CSUM, F_HOST_TSO4];
    if (spec.packed) bits.push(F_RING_PACKED);
    if (spec.mergeable) bits.push(F_MRG_RXBUF);
    this.port = rig.port({ features: features(...bits) });
    this.rx = this.port.queue(0, { size: SIZE });
    this.tx = this.port.queue(1, { size: SIZE });
    const port = rig.port({ features: spec.peer });
    this.peer = new Honest(rig, port, memory, {
      size: 256,
      buffer: 4096,
      buffers: 256,
      samples: spec.samples ?? [],
    });
    rig.wire(this.port, port);
  }

  /** Guest memory with these bytes, or filled with one. */
  put(bytes: Uint8Array | number, length = 0): number {
    const size = typeof bytes === 'number' ? length : bytes.length;
    const at = this.port.alloc(size, 0x1_0000);
    if (typeof bytes === 'number') this.memory.u8.fill(bytes, at, at + size);
    else this.memory.u8.set(bytes, at);
    return at;
  }

  /** The low word of a linear address's GPA; the high one is the same for all. */
  low(at: number): number {
    return Number(this.port.gpa(at) & 0xffff_ffffn) | 0;
  }

  /** Writes one descriptor; `link` is what `next`, or a packed ring's `id`, holds. */
  descriptor(at: number, buffer: number, length: number, flags: number, link: number): void {
    const { u32 } = this.memory;
    u32[at >>> 2] = this.low(buffer);
    u32[(at >>> 2) + 1] = Number(this.port.gpa(buffer) >> 32n);
    u32[(at >>> 2) + 2] = length;
    u32[(at >>> 2) + 3] = this.packed ? link | (flags << 16) : flags | (link << 16);
  }

  /** Linear address of descriptor `i`, and of a field of it. */
  at(queue: TestQueue, i: number): number {
    return queue.desc + i * 16;
  }

  /** Where a descriptor has its flags, and its next or id. */
  get flagsAt(): number {
    return this.packed ? 14 : 12;
  }

  get linkAt(): number {
    return this.packed ? 12 : 14;
  }

  /** Begins anew: nothing taken, `heads` available on a split ring. */
  restart(queue: TestQueue, heads: number, state = RING_RUNNING): void {
    const { u32, u16 } = this.memory;
    const block = ringAddress(queue.index);
    const start = this.packed ? WRAP : 0;
    u32[(block + RING_LAST_AVAIL) >>> 2] = start;
    u32[(block + RING_USED_IDX) >>> 2] = start;
    u32[(block + RING_SIGNALLED) >>> 2] = start;
    if (u32[(block + RING_STATE) >>> 2] !== state) {
      u32[(block + RING_REASON) >>> 2] = 0;
      u32[(block + RING_STATE) >>> 2] = state;
      this.bench.rig.publish();
    }
    if (!this.packed && heads >= 0) u16[(queue.avail + 2) >>> 1] = heads;
  }

  /** Flags that make a packed descriptor available in the only lap there is. */
  get lap(): number {
    return this.packed ? DESC_F_AVAIL : 0;
  }

  /** Polls until nothing moves; `queue` is the ring that is raced for. */
  settle(queue: TestQueue): void {
    const { rig } = this.bench;
    const { u32 } = this.memory;
    const rings = [this.tx.index, this.peer.tx.index];
    for (const ring of rings) rig.datapath.activate(ring);
    for (let polls = 0, idle = 0; idle < IDLE; polls++) {
      for (const ring of rings) this.bench.hurry(ring);
      idle = rig.datapath.poll() === 0 ? idle + 1 : 0;
      if (polls === POLLS) throw new Error(`still moving frames after ${POLLS} polls`);
    }
    const block = ringAddress(queue.index);
    const broken = u32[(block + RING_STATE) >>> 2] === RING_BROKEN;
    this.latched = broken ? u32[(block + RING_REASON) >>> 2]! : 0;
    this.reached = u32[(block + RING_LAST_AVAIL) >>> 2]!;
    rig.calls.length = 0;
    rig.latched.length = 0;
  }

  /** The id in used entry or slot `i`, and the length there. */
  used(queue: TestQueue, i: number): { id: number; length: number } {
    const { u32 } = this.memory;
    const at = this.packed ? queue.desc + i * 16 + 8 : queue.usedRing + 4 + i * 8;
    const [first, second] = [u32[at >>> 2]!, u32[(at >>> 2) + 1]!];
    return this.packed ? { id: second & 0xffff, length: first } : { id: first, length: second };
  }

  /** What the honest guest got: header and frame, put together. */
  received(): Buffer[] {
    const { u8 } = this.memory;
    const frames: Buffer[] = [];
    while (this.peer.receive()) {
      const { at, length } = this.peer;
      frames.push(Buffer.from(u8.slice(at, at + length)));
    }
    this.peer.repost();
    return frames;
  }
}
