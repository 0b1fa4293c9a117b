// Virtqueue devices for tests, written from the specification alone (virtio 1.2 §2.7, §2.8) to be
// simple: positions are counted from 0 and never wrap, slots and wrap counters are derived. Chains
// may be used in any order, or in order with one element for a batch.

import assert from 'node:assert/strict';

export interface Segment {
  addr: bigint;
  len: number;
  write: boolean;
}

export interface Taken {
  id: number;
  /** Positions it takes: descriptors of a packed ring, 1 in a split one. */
  span: number;
  segments: Segment[];
}

/** Linear addresses of a queue's three parts, as DRV_DESC, DRV_AVAIL and DRV_USED. */
export interface Parts {
  desc: number;
  avail: number;
  used: number;
}

export interface QueueShape {
  size: number;
  events: boolean;
  inOrder: boolean;
  /** Position at which the ring begins. */
  start: number;
}

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

export abstract class ReferenceDevice {
  /** Next position to take, and to use. */
  taken: number;
  used: number;
  protected readonly view: DataView;
  protected readonly parts: Parts;
  protected readonly shape: QueueShape;
  readonly #linear: (gpa: bigint) => number;

  /** `linear` translates a GPA. */
  constructor(view: DataView, parts: Parts, shape: QueueShape, linear: (gpa: bigint) => number) {
    this.view = view;
    this.parts = parts;
    this.shape = shape;
    this.#linear = linear;
    this.taken = this.used = shape.start;
  }

  /** The next chain that the driver made available. */
  abstract take(): Taken | undefined;

  /** Writes one used element, which names the last of `chains`; several only with IN_ORDER. */
  use(chains: Taken[], len: number): void {
    assert.ok(chains.length === 1 || this.shape.inOrder);
    this.putUsed(chains.at(-1)!.id, len, chains.length);
    this.used += chains.reduce((sum, { span }) => sum + span, 0);
  }

  /** Asks for kicks always, never, or (EVENT_IDX) when position `event` is made available. */
  abstract ask(kicks: 'on' | 'off' | number): void;

  /** Whether the driver wants a kick's counterpart for the positions used since `from`. */
  abstract wantsCall(from: number): boolean;

  /** As the driver's kick, from what `ask` last wrote; for positions available since `from`. */
  abstract wantsKick(from: number, to: number): boolean;

  /** Writes a used element that need not make sense. */
  abstract putUsed(id: number, len: number, chains: number): void;

  protected u16(at: number): number {
    return this.view.getUint16(at, true);
  }

  protected segment(at: number): Segment & { flags: number } {
    const flags = this.u16(at + 12 + this.flagsAt);
    return {
      addr: this.view.getBigUint64(at, true),
      len: this.view.getUint32(at + 8, true),
      write: (flags & WRITE) !== 0,
      flags,
    };
  }

  protected table({ addr, len }: Segment): number {
    assert.equal(len % 16, 0);
    return this.#linear(addr);
  }

  /** Where in the last four bytes of a descriptor its flags lie. */
  protected abstract readonly flagsAt: number;
}

export class PackedDevice extends ReferenceDevice {
  protected readonly flagsAt = 2;

  #at(position: number): number {
    return this.parts.desc + (position % this.shape.size) * 16;
  }

  #wrap(position: number): number {
    return 1 - (Math.floor(position / this.shape.size) % 2);
  }

  #offWrap(position: number): number {
    return (position % this.shape.size) | (this.#wrap(position) << 15);
  }

  take(): Taken | undefined {
    const first = this.u16(this.#at(this.taken) + 14);
    const wrap = this.#wrap(this.taken);
    if (((first >> 7) & 1) !== wrap || first >> 15 === wrap) return undefined;
    const segments: Segment[] = [];
    const ids = new Set<number>();
    let span = 0;
    for (;;) {
      const at = this.#at(this.taken + span);
      const { flags, ...segment } = this.segment(at);
      const lap = this.#wrap(this.taken + span);
      assert.deepEqual([(flags >> 7) & 1, flags >> 15], [lap, 1 - lap], 'half a chain is visible');
      ids.add(this.u16(at + 12));
      span++;
      if (flags & INDIRECT) {
        assert.equal(span, 1);
        assert.equal(flags & NEXT, 0);
        const table = this.table(segment);
        for (let i = 0; i < segment.len; i += 16) {
          const inner = this.segment(table + i);
          assert.equal(inner.flags & ~WRITE, 0);
          segments.push({ addr: inner.addr, len: inner.len, write: inner.write });
        }
        break;
      }
      segments.push(segment);
      if (!(flags & NEXT)) break;
    }
    assert.equal(ids.size, 1, 'one id in all descriptors');
    this.taken += span;
    return { id: [...ids][0]!, span, segments };
  }

  putUsed(id: number, len: number): void {
    const at = this.#at(this.used);
    this.view.setUint32(at + 8, len, true);
    this.view.setUint16(at + 12, id, true);
    const lap = this.#wrap(this.used) ? 0x8080 : 0;
    this.view.setUint16(at + 14, lap | (len > 0 ? WRITE : 0), true);
  }

  ask(kicks: 'on' | 'off' | number): void {
    const flags = kicks === 'on' ? 0 : kicks === 'off' ? 1 : 2;
    this.view.setUint16(this.parts.used + 2, flags, true);
    // The rest is then of no meaning: it may hold anything.
    const event = typeof kicks === 'number' ? this.#offWrap(kicks) : 0xffff;
    this.view.setUint16(this.parts.used, event, true);
  }

  wantsKick(from: number, to: number): boolean {
    return this.#passed(this.parts.used, from, to);
  }

  wantsCall(from: number): boolean {
    return this.#passed(this.parts.avail, from, this.used);
  }

  #passed(area: number, from: number, to: number): boolean {
    const flags = this.u16(area + 2);
    assert.ok(flags < (this.shape.events ? 3 : 2));
    if (flags !== 2) return flags === 0;
    for (let position = from; position < to; position++) {
      if (this.#offWrap(position) === this.u16(area)) return true;
    }
    return false;
  }
}

export class SplitDevice extends ReferenceDevice {
  protected readonly flagsAt = 0;
  #nextSlot = 0;

  take(): Taken | undefined {
    const { size, inOrder } = this.shape;
    if ((this.taken & 0xffff) === this.u16(this.parts.avail + 2)) return undefined;
    const id = this.u16(this.parts.avail + 4 + (this.taken % size) * 2);
    const segments: Segment[] = [];
    if (inOrder) assert.equal(id, this.#nextSlot, 'ring order');
    for (let slot = id; ; ) {
      const at = this.parts.desc + slot * 16;
      const { flags, ...segment } = this.segment(at);
      this.#nextSlot = (slot + 1) % size;
      if (flags & INDIRECT) {
        let inner = this.table(segment);
        const start = inner;
        for (;;) {
          const { flags, ...part } = this.segment(inner);
          segments.push(part);
          if (!(flags & NEXT)) break;
          inner = start + this.u16(inner + 14) * 16;
        }
        break;
      }
      segments.push(segment);
      if (!(flags & NEXT)) break;
      slot = this.u16(at + 14);
      if (inOrder) assert.equal(slot, this.#nextSlot, 'ring order');
      assert.ok(segments.length < size);
    }
    this.taken++;
    return { id, span: 1, segments };
  }

  putUsed(id: number, len: number, chains: number): void {
    const at = this.parts.used + 4 + (this.used % this.shape.size) * 8;
    this.view.setUint32(at, id, true);
    this.view.setUint32(at + 4, len, true);
    this.view.setUint16(this.parts.used + 2, (this.used + chains) & 0xffff, true);
  }

  ask(kicks: 'on' | 'off' | number): void {
    const event = this.parts.used + 4 + this.shape.size * 8;
    if (typeof kicks === 'number') this.view.setUint16(event, kicks & 0xffff, true);
    else this.view.setUint16(this.parts.used, kicks === 'on' ? 0 : 1, true);
  }

  wantsKick(from: number, to: number): boolean {
    return this.#passed(this.parts.used, 4 + this.shape.size * 8, from, to);
  }

  wantsCall(from: number): boolean {
    return this.#passed(this.parts.avail, 4 + this.shape.size * 2, from, this.used);
  }

  #passed(ring: number, event: number, from: number, to: number): boolean {
    if (!this.shape.events) return (this.u16(ring) & 1) === 0;
    for (let position = from; position < to; position++) {
      if ((position & 0xffff) === this.u16(ring + event)) return true;
    }
    return false;
  }
}
