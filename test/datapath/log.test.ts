// The dirty log against a memory diff: after each burst the pages marked are those that changed. Of the rings
// themselves, where the same value may be written again, those that hold what a burst writes.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import {
  PAGE,
  PORT_LOG,
  RING_BROKEN,
  RING_LOG_USED,
  RING_STATE,
  RING_USED_IDX,
  RINGF_IN_ORDER,
  RINGF_PACKED,
} from '../../src/abi/layout.ts';
import { F_EVENT_IDX, F_MRG_RXBUF, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { ringAddress } from '../../src/memory/control.ts';
import { ringFlags } from '../../src/virtio/features.ts';
import { MIXED, overRings } from './formats.ts';
import { CANARY, frame, header, Receiver, send } from './frames.ts';
import { anyPacket, anyReceiver, anyShapes, packet, postShapes, SENDER } from './packets.ts';
import type { TestQueue } from './queue.ts';
import { features, gpaOf, PLAIN, Rig, type TestPort } from './rig.ts';

const rig = new Rig();
/** Bytes of each port's memory: what is compared after each burst. */
const MEMORY = 8 << 20;

/** A port with its log, and the memory it had when `take` was called last. */
class Logged {
  readonly port: TestPort;
  readonly queue: TestQueue;
  readonly #bitmap: number;
  readonly #pages: number;
  #before = new Uint8Array();
  #position = 0;

  constructor(acked: bigint, queue: number, size: number, extra = 0) {
    this.port = rig.port({ features: acked, arena: MEMORY });
    this.queue = this.port.queue(queue, { size, flags: ringFlags(this.port.features) | extra });
    this.queue.keepLog();
    const { bitmap, pages } = this.port.log();
    this.#bitmap = bitmap;
    this.#pages = pages;
  }

  /** Memory as it is, and an empty log. */
  take(): void {
    const { base, arena } = this.port;
    this.#before = rig.bytes.slice(base, base + arena);
    this.#position = this.queue.get(RING_USED_IDX);
    rig.bytes.fill(0, this.#bitmap, this.#bitmap + this.#pages / 8 + 8);
  }

  /** Pages of the port's memory that are marked; throws where one of others' is. */
  marked(): Set<number> {
    const first = Number(gpaOf(this.port.index)) / PAGE;
    const found = new Set<number>();
    for (let byte = 0; byte < this.#pages / 8 + 8; byte++) {
      const bits = rig.bytes[this.#bitmap + byte]!;
      for (let bit = 0; bits >> bit !== 0; bit++) {
        if (((bits >> bit) & 1) === 0) continue;
        const page = byte * 8 + bit - first;
        assert.ok(page >= 0 && page < this.port.arena / PAGE, `page ${page} is not its own`);
        found.add(page);
      }
    }
    return found;
  }

  changed(): Set<number> {
    const { base, arena } = this.port;
    const found = new Set<number>();
    for (let page = 0; page < arena / PAGE; page++) {
      const [from, to] = [page * PAGE, (page + 1) * PAGE];
      const now = rig.bytes.subarray(base + from, base + to);
      if (Buffer.compare(now, this.#before.subarray(from, to)) !== 0) found.add(page);
    }
    return found;
  }

  /** Pages of what this burst wrote into the ring, changed or not. */
  #ringPages(): Set<number> {
    const { queue, port } = this;
    const found = new Set<number>();
    const add = (at: number, length: number) => {
      for (let i = at; i < at + length; i++) found.add(Math.floor((i - port.base) / PAGE));
    };
    const packed = (queue.flags & RINGF_PACKED) !== 0;
    add(queue.usedRing, 4);
    if (!packed) add(queue.usedRing + 4 + queue.size * 8, 2);
    const slot = (position: number) => (packed ? position & 0x7fff : position & (queue.size - 1));
    const end = slot(queue.get(RING_USED_IDX));
    // Once round at most; where nothing moved it is none, or all.
    if (queue.get(RING_USED_IDX) === this.#position) return found;
    for (let at = slot(this.#position), left = queue.size; left > 0; left--) {
      if (packed) add(queue.desc + at * 16, 16);
      else add(queue.usedRing + 4 + at * 8, 8);
      at = (at + 1) % queue.size;
      if (at === end) break;
    }
    return found;
  }

  /** The log says what the diff says. */
  check(): Set<number> {
    const marked = this.marked();
    const changed = this.changed();
    for (const page of changed)
      assert.ok(marked.has(page), `page ${page} changed, and is not marked`);
    const ring = this.#ringPages();
    for (const page of marked) {
      assert.ok(changed.has(page) || ring.has(page), `page ${page} is marked, and did not change`);
    }
    return marked;
  }
}

/** A payload in which what was written shows, whatever was there. */
function visible(bytes: Uint8Array, from: number): Uint8Array {
  for (let i = from; i < bytes.length; i++) if (bytes[i] === CANARY) bytes[i] = CANARY ^ 1;
  return bytes;
}

function world(sender: bigint, receiver: bigint, size: number, extra = 0) {
  rig.clear();
  const a = new Logged(sender, 1, size, extra);
  const b = new Logged(receiver, 0, size, extra);
  rig.wire(a.port, b.port);
  return { a, b, tx: a.queue, sink: new Receiver(b.queue) };
}

overRings(rig, MIXED, 'dirty log', () => {
  it('of any receiver, whatever is passed on, summed or cut, is the memory diff', () => {
    let pages = 0;
    fc.assert(
      fc.property(
        fc.array(anyPacket, { minLength: 1, maxLength: 4 }),
        anyReceiver,
        anyShapes,
        fc.integer({ min: 600, max: 3000 }),
        fc.constantFrom(0, RINGF_IN_ORDER),
        (specs, receiver, shapes, gsoSize, extra) => {
          const { a, b, tx, sink } = world(SENDER, receiver | features(F_EVENT_IDX), 1024, extra);
          const whole = ((receiver >> BigInt(F_MRG_RXBUF)) & 1n) === 0n;
          postShapes(sink, shapes, 300, whole ? 4000 : 0, whole);
          for (const spec of specs) {
            const made = packet(spec);
            const size = made.headers + gsoSize;
            const gso = made.bytes.length > size ? made.header : { ...made.header, gso: 0 };
            send(tx, visible(made.bytes, made.headers), { header: header({ ...gso, gsoSize }) });
          }
          tx.publish();
          a.take();
          b.take();
          rig.settle();
          a.check();
          pages += b.check().size;
        },
      ),
      { numRuns: 60 },
    );
    assert.ok(pages > 300, `${pages} pages were marked in all`);
  });

  it('of plain frames round and round a ring of several pages is the memory diff', () => {
    const { a, b, tx, sink } = world(PLAIN, PLAIN, 1024);
    let seed = 1;
    for (let round = 0; round < 20; round++) {
      // Its buffers lie apart: each has a page to itself.
      for (let i = 0; i < 150; i++) sink.post([1600 + 700 * (i & 3)]);
      sink.rx.publish();
      for (let i = 0; i < 130; i++) {
        const length = 60 + ((i * 97) % 1400);
        assert.ok(send(tx, visible(frame({ length, seed: seed++ }), 14)) >= 0);
      }
      if (tx.publish()) rig.datapath.activate(tx.index);
      a.take();
      b.take();
      assert.equal(rig.settle(), 130);
      a.check();
      b.check();
      tx.used();
      assert.equal(sink.take().length, 130);
      // Idle: what is written to ask for kicks is marked as well.
      a.take();
      b.take();
      rig.datapath.armAll();
      a.check();
      b.check();
    }
  });

  it('marks what was written into a ring that was latched in the middle of it', () => {
    const { b, tx, sink } = world(PLAIN, features(F_VERSION_1, F_MRG_RXBUF), 512);
    for (let i = 0; i < 200; i++) sink.post([500]);
    // Behind what is gathered first, and before what the burst needs.
    sink.rx.addRaw(
      (sink.rx.flags & RINGF_PACKED) !== 0
        ? [{ addr: b.port.gpa(b.port.base), len: 500, flags: 2, id: 4000 }]
        : [{ addr: b.port.gpa(b.port.base), len: 500, flags: 2 }],
    );
    if ((sink.rx.flags & RINGF_PACKED) === 0) {
      // The entry of the avail ring names no descriptor.
      rig.view.setUint16(sink.rx.avail + 4 + 200 * 2, 512, true);
    }
    sink.rx.publish();
    // Some go into a buffer of one descriptor, some over several.
    for (let i = 0; i < 128; i++) {
      send(tx, visible(frame({ length: i < 40 ? 300 : 900, seed: i }), 14));
    }
    tx.publish();
    b.take();
    rig.settle();
    assert.equal(sink.rx.get(RING_STATE), RING_BROKEN);
    assert.ok(b.check().size > 10);
  });

  it('a ring that is not logged, and one of another port, leave no mark', () => {
    const { a, b, tx, sink } = world(PLAIN, PLAIN, 256);
    const block = ringAddress(sink.rx.index);
    // Only buffers: QEMU says so of a ring for which it does not set VRING_F_LOG.
    rig.control.set64(block + RING_LOG_USED, 0xffff_ffff_f000n);
    b.port.set(PORT_LOG + 4, 0);
    sink.fill(20);
    for (let i = 0; i < 10; i++) send(tx, frame({ length: 300 }));
    tx.publish();
    a.take();
    b.take();
    rig.settle();
    assert.equal(b.marked().size, 0);
    a.check();
  });
});
