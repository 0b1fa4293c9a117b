// Our own driver (datapath/driver.ts) against a reference device, with a model of what must come
// out. Every step checks what can be seen from both ends.

import assert from 'node:assert/strict';
import {
  DRV_AVAIL,
  DRV_AVAIL_IDX,
  DRV_BIAS,
  DRV_DESC,
  DRV_ERRORS,
  DRV_FLAGS,
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
} from '../../src/abi/driver.ts';
import {
  HEAP_BASE,
  RINGF_EVENT_IDX,
  RINGF_IN_ORDER,
  RINGF_INDIRECT,
  RINGF_PACKED,
  WINDOW_BASE,
} from '../../src/abi/layout.ts';
import { Control } from '../../src/memory/control.ts';
import { loadDatapath } from '../../src/worker/datapath.ts';
import {
  PackedDevice,
  type QueueShape,
  type ReferenceDevice,
  type Segment,
  SplitDevice,
  type Taken,
} from './reference.ts';

export interface DriverShape extends QueueShape {
  packed: boolean;
}

/** Where linear address 0 lies for the device. */
const BIAS = 0x7_0000_0000n;
const LIST = WINDOW_BASE;
const RING = WINDOW_BASE + 0x10_0000;
const TABLES = WINDOW_BASE + 0x40_0000;

const control = new Control();
const datapath = loadDatapath(control.memory, { call() {}, latched() {} });
export const view = new DataView(control.memory.buffer);

interface Added {
  token: number;
  id: number;
  takes: number;
  segments: Segment[];
}

export class DriverBench {
  readonly shape: DriverShape;
  readonly device: ReferenceDevice;
  readonly parts: { desc: number; avail: number; used: number };
  readonly drv = HEAP_BASE;
  readonly taken: Taken[] = [];
  /** Added; then published; then taken, of which some were used: in order of being added. */
  readonly #added: Added[] = [];
  readonly #published: Added[] = [];
  readonly #outstanding = new Map<number, Added>();
  /** What drvPop must return, in this order. */
  readonly #expected: { token: number; len: number; takes: number }[] = [];
  #free: number;
  #next: number;
  #checked: number;
  #tokens = 0;
  /** Used position at which drvArm asked for a call, or NaN. */
  #armed = Number.NaN;

  constructor(shape: DriverShape) {
    const { size, packed, events, inOrder, start } = shape;
    this.shape = shape;
    const avail = RING + size * 16;
    const used = (avail + (packed ? 4 : 6 + size * 2) + 3) & ~3;
    this.parts = { desc: RING, avail, used };
    // Nothing may rely on memory being zero.
    control.bytes.fill(0xa5, RING, used + 6 + size * 8);
    control.bytes.fill(0xa5, this.drv, this.drv + DRV_HEADS + (size + 1) * DRV_HEAD);
    const flags =
      RINGF_INDIRECT |
      (packed ? RINGF_PACKED : 0) |
      (events ? RINGF_EVENT_IDX : 0) |
      (inOrder ? RINGF_IN_ORDER : 0);
    control.set(this.drv + DRV_DESC, RING);
    control.set(this.drv + DRV_AVAIL, avail);
    control.set(this.drv + DRV_USED, used);
    control.set(this.drv + DRV_SIZE, size);
    control.set(this.drv + DRV_FLAGS, flags);
    control.set(this.drv + DRV_TABLES, TABLES);
    control.set64(this.drv + DRV_BIAS, BIAS);
    datapath.drvReset(this.drv);
    if (start > 0) this.#startAt(start);
    const linear = (gpa: bigint) => Number(gpa - BIAS);
    this.device = packed
      ? new PackedDevice(view, this.parts, shape, linear)
      : new SplitDevice(view, this.parts, shape, linear);
    this.#free = size;
    this.#next = this.#checked = start;
  }

  /** As after `start` positions made available and used: in the ring, and in the driver. */
  #startAt(start: number): void {
    const { size, packed } = this.shape;
    const wrap = 1 - (Math.floor(start / size) % 2);
    const position = packed ? (start % size) | (wrap << 15) : start & 0xffff;
    for (const field of [DRV_AVAIL_IDX, DRV_PUBLISHED, DRV_LAST_USED, DRV_KICKED]) {
      control.set(this.drv + field, position);
    }
    if (!packed) {
      view.setUint16(this.parts.avail + 2, position, true);
      view.setUint16(this.parts.used + 2, position, true);
      return;
    }
    for (let slot = 0; slot < size; slot++) {
      const used = slot < start % size ? wrap : 1 - wrap;
      view.setUint16(RING + slot * 16 + 14, used ? 0x8080 : 0, true);
    }
  }

  get errors(): number {
    return control.get(this.drv + DRV_ERRORS);
  }

  get free(): number {
    return control.get(this.drv + DRV_FREE_COUNT);
  }

  /** Chains added and not yet popped. */
  get held(): number {
    const { size } = this.#outstanding;
    return this.#added.length + this.#published.length + size + this.#expected.length;
  }

  /** Adds a chain of segments that derive from its token; refused exactly without enough room. */
  add(n: number, indirect: boolean): boolean {
    const token = this.#tokens++;
    const segments = Array.from({ length: n }, (_, i) => {
      const linear = ((token * 2654435761) ^ (i * 40503)) >>> 0;
      const len = 1 + ((token * 7919 + i * 104729) % 0x7fff_fffe);
      const write = ((token + i) & 3) === 3;
      control.set(LIST + i * 8, linear);
      control.set(LIST + i * 8 + 4, (len | (write ? 0x8000_0000 : 0)) >>> 0);
      return { addr: BIAS + BigInt(linear), len, write };
    });
    const takes = indirect ? 1 : n;
    const id = datapath.drvAdd(this.drv, LIST, n, token, indirect ? 1 : 0);
    const fits = takes <= this.#free && (!indirect || n <= DRV_TABLE);
    assert.equal(id >= 0, fits, `add ${n} with ${this.#free} free`);
    if (!fits) return false;
    this.#free -= takes;
    this.#added.push({ token, id, takes, segments });
    this.#next += this.shape.packed ? takes : 1;
    this.#checkFree();
    return true;
  }

  publish(): boolean {
    const kick = datapath.drvPublish(this.drv) !== 0;
    const wanted = this.#added.length > 0 && this.device.wantsKick(this.#checked, this.#next);
    assert.equal(kick, wanted, `a kick for ${this.#checked} to ${this.#next}`);
    this.#checked = this.#next;
    this.#published.push(...this.#added.splice(0));
    return kick;
  }

  /** The device takes one chain, which must be the oldest published; or there is none. */
  take(): boolean {
    const chain = this.device.take();
    const expected = this.#published.shift();
    assert.equal(chain !== undefined, expected !== undefined, 'visible but not published');
    if (!chain || !expected) return false;
    assert.deepEqual(
      { id: chain.id, segments: chain.segments },
      {
        id: expected.id,
        segments: expected.segments,
      },
    );
    assert.ok(!this.#outstanding.has(chain.id), `id ${chain.id} is in use`);
    this.#outstanding.set(chain.id, expected);
    this.taken.push(chain);
    return true;
  }

  /** The device uses `count` chains, one element for all, from number `pick` of those it took. */
  use(pick: number, count: number, len: number): void {
    const chains = this.taken.splice(pick, count);
    const from = this.device.used;
    this.device.use(chains, len);
    for (const [i, { id }] of chains.entries()) {
      const { token, takes } = this.#outstanding.get(id)!;
      this.#outstanding.delete(id);
      this.#expected.push({ token, takes, len: i + 1 === chains.length ? len : 0 });
    }
    const { size, events } = this.shape;
    if (from === this.#armed) {
      assert.ok(this.device.wantsCall(from), 'armed: the first use calls');
    } else if (events && from > this.#armed && this.device.used <= this.#armed + size) {
      assert.ok(!this.device.wantsCall(from), 'EVENT_IDX: one call');
    }
  }

  pop(): boolean {
    const expected = this.#expected.shift();
    assert.equal(datapath.drvPop(this.drv), expected?.token ?? -1);
    if (!expected) return false;
    assert.equal(control.get(this.drv + DRV_LEN), expected.len);
    this.#free += expected.takes;
    this.#checkFree();
    return true;
  }

  /** drvArm, whose answer the model knows; a call then is wanted for the next chain only. */
  arm(): void {
    const more = datapath.drvArm(this.drv) !== 0;
    assert.equal(more, this.#expected.length > 0);
    this.#armed = more ? Number.NaN : this.device.used;
  }

  /** drvDisarm: no calls, but for a stale event of a split ring. */
  disarm(): void {
    datapath.drvDisarm(this.drv);
    this.#armed = Number.NaN;
    const { packed, events, size } = this.shape;
    if (packed || !events) assert.equal(this.device.wantsCall(this.device.used - size), false);
  }

  /** All that was added goes to the device and back. */
  settle(): void {
    this.publish();
    while (this.take());
    while (this.taken.length > 0) this.use(0, 1, 1);
    while (this.pop());
    assert.deepEqual([this.held, this.free, this.errors], [0, this.shape.size, 0]);
    assert.equal(datapath.drvUsed(this.drv), 0);
  }

  #checkFree(): void {
    assert.equal(this.free, this.#free);
  }

  /** Pops without a model, until the driver says no `limit` times; the tokens. */
  drain(limit: number): number[] {
    const tokens: number[] = [];
    for (let no = 0; no < limit; ) {
      const token = datapath.drvPop(this.drv);
      if (token < 0) no++;
      else tokens.push(token);
    }
    return tokens;
  }
}
