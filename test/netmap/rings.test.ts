// The rings' rules: who owns which slot, what a sync may touch, and that each frame and each buffer is in
// one place, whatever the application and the device do in whatever order.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { KR_HWCUR, KR_HWTAIL } from '../../src/abi/netmap.ts';
import type { Ring } from '../../src/netmap/ring.ts';
import { slotCounts } from '../../src/netmap/slots.ts';
import { Switch } from '../../src/switch/switch.ts';
import { Bench, census, featuresOf, pattern, put, refused, type Shape, taken } from './bench.ts';

/** All of the slots that the application owns. */
function owned(ring: Ring): number[][] {
  const slots: number[][] = [];
  for (let i = ring.head; i !== ring.tail; i = ring.next(i)) {
    slots.push([i, ring.buffer(i), ring.length(i), ring.offset(i), ring.flags(i)]);
  }
  return slots;
}

function slotsNow(ring: Ring, which: number[][]): number[][] {
  return which.map(([i]) => {
    const at = i!;
    return [at, ring.buffer(at), ring.length(at), ring.offset(at), ring.flags(at)];
  });
}

/** Both ends of a bench with what must come out. */
class World {
  readonly bench: Bench;
  readonly #inOrder: boolean;
  #seed = 0;
  /** Sent and not taken by the device; delivered and not taken by the application. */
  readonly #sent: Buffer[] = [];
  readonly #delivered: Buffer[] = [];

  constructor(shape: Shape) {
    this.bench = new Bench(shape);
    this.#inOrder = shape.inOrder === true;
  }

  sync(direction: 'tx' | 'rx'): void {
    const { port, rx, tx } = this.bench;
    const before = [owned(rx), owned(tx)] as const;
    const ring = direction === 'tx' ? tx : rx;
    const space = direction === 'tx' ? port.txSync(tx) : port.rxSync(rx);
    assert.equal(space, ring.space);
    assert.deepEqual(slotsNow(rx, before[0]), before[0]);
    assert.deepEqual(slotsNow(tx, before[1]), before[1]);
    assert.ok(ring.space >= before[direction === 'tx' ? 1 : 0].length, 'a slot was taken away');
  }

  /** Up to `batch` frames of as many slots as `pieces` says. */
  send(batch: number, pieces: number): void {
    const { tx } = this.bench;
    for (let i = 0; i < batch; i++) {
      const frame = pattern(this.#seed, 20 + (this.#seed % 97));
      const piece = Math.ceil(frame.length / pieces);
      if (Math.ceil(frame.length / piece) > tx.space) return;
      this.#seed++;
      put(tx, frame, piece);
      this.#sent.push(frame);
    }
  }

  take(most: number): void {
    const { sink } = this.bench;
    const from = sink.held.length;
    sink.take(most);
    for (const chain of sink.held.slice(from)) {
      const { header, bytes } = sink.read(chain);
      assert.deepEqual(header, Buffer.alloc(12));
      assert.deepEqual(bytes, this.#sent.shift());
    }
  }

  use(count: number, pick: number): void {
    const { sink } = this.bench;
    for (let i = 0; i < count && sink.held.length > 0; i++) {
      sink.use(this.#inOrder ? 0 : (pick * 7919) % sink.held.length);
    }
  }

  deliver(count: number, pick: number, long: boolean): void {
    const { source } = this.bench;
    source.take();
    for (let i = 0; i < count; i++) {
      const frame = pattern(this.#seed, long ? 3000 + (this.#seed % 900) : 1 + (this.#seed % 60));
      const at = this.#inOrder ? 0 : (pick * 104729) % (source.held.length || 1);
      if (!source.deliver(frame, { pick: at })) return;
      this.#seed++;
      this.#delivered.push(frame);
    }
  }

  give(most: number): void {
    for (const frame of taken(this.bench.rx, most))
      assert.deepEqual(frame, this.#delivered.shift());
  }

  /** Cursors where they may not be: refused, and nothing moves. */
  misplace(which: number, direction: 'tx' | 'rx'): void {
    const { port, rx, tx } = this.bench;
    const ring = direction === 'tx' ? tx : rx;
    const { head, cur, tail, slots } = ring;
    const behind = (tail + 1 + (which % slots)) % slots;
    const hwcur = ring.kget(KR_HWCUR);
    const state = () => [
      ring.tail,
      ring.kget(KR_HWCUR),
      ring.kget(KR_HWTAIL),
      ring.counters.frames,
    ];
    const before = state();
    // Where it may be: hwcur to tail.
    const span = (tail - hwcur + slots) % slots;
    const tries = [
      slots + which,
      0xffff_ffff,
      ...((behind - hwcur + slots) % slots > span ? [behind] : []),
    ];
    for (const wrong of tries) {
      ring.head = ring.cur = wrong;
      refused('ring', () => (direction === 'tx' ? port.txSync(ring) : port.rxSync(ring)));
      ring.head = head;
      ring.cur = wrong;
      refused('ring', () => (direction === 'tx' ? port.txSync(ring) : port.rxSync(ring)));
    }
    ring.head = head;
    ring.cur = cur;
    assert.deepEqual(state(), before);
    assert.ok(port.up);
  }

  count(): void {
    census(this.bench.memory, [this.bench.rx, this.bench.tx]);
  }

  /** All that is on its way arrives. */
  async settle(): Promise<void> {
    for (let round = 0; this.#sent.length > 0 || this.bench.sink.held.length > 0; round++) {
      assert.ok(round < 1000);
      this.sync('tx');
      this.take(Number.POSITIVE_INFINITY);
      this.use(Number.POSITIVE_INFINITY, 0);
    }
    for (let round = 0; this.#delivered.length > 0; round++) {
      assert.ok(round < 1000);
      this.sync('rx');
      this.give(Number.POSITIVE_INFINITY);
    }
    this.sync('tx');
    assert.equal(this.bench.tx.space, this.bench.tx.slots - 1);
    const { tx, rx } = this.bench;
    assert.deepEqual([tx.counters.badSlots, rx.counters.badSlots, rx.counters.full], [0, 0, 0]);
    this.count();
    await this.bench.close();
  }
}

const step = fc.oneof(
  fc.record({
    op: fc.constant('send' as const),
    n: fc.integer({ min: 1, max: 256 }),
    k: fc.integer({ min: 1, max: 9 }),
  }),
  fc.record({
    op: fc.constantFrom('txSync' as const, 'rxSync' as const, 'count' as const),
    n: fc.constant(0),
    k: fc.constant(0),
  }),
  fc.record({
    op: fc.constant('take' as const),
    n: fc.integer({ min: 1, max: 256 }),
    k: fc.constant(0),
  }),
  fc.record({
    op: fc.constant('use' as const),
    n: fc.integer({ min: 1, max: 256 }),
    k: fc.nat(1000),
  }),
  fc.record({
    op: fc.constantFrom('deliver' as const, 'deliverLong' as const),
    n: fc.integer({ min: 1, max: 256 }),
    k: fc.nat(1000),
  }),
  fc.record({
    op: fc.constant('give' as const),
    n: fc.integer({ min: 1, max: 256 }),
    k: fc.constant(0),
  }),
  fc.record({
    op: fc.constantFrom('misplaceTx' as const, 'misplaceRx' as const),
    n: fc.nat(5000),
    k: fc.constant(0),
  }),
);

function run(world: World, steps: { op: string; n: number; k: number }[], merges: boolean): void {
  for (const { op, n, k } of steps) {
    if (op === 'send') world.send(n, k);
    else if (op === 'txSync') world.sync('tx');
    else if (op === 'rxSync') world.sync('rx');
    else if (op === 'count') world.count();
    else if (op === 'take') world.take(n);
    else if (op === 'use') world.use(n, k);
    else if (op === 'deliver') world.deliver(n, k, false);
    else if (op === 'deliverLong') world.deliver(Math.ceil(n / 16), k, merges);
    else if (op === 'give') world.give(n);
    else world.misplace(n, op === 'misplaceTx' ? 'tx' : 'rx');
  }
}

describe('head, cur and tail', () => {
  for (const packed of [false, true]) {
    it(`${packed ? 'packed' : 'split'}: any order of syncs, any order of completion`, async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.record({
            ringSize: fc.constantFrom(16, 64, 256),
            indirect: fc.boolean(),
            mergeable: fc.boolean(),
            inOrder: fc.boolean(),
            events: fc.boolean(),
          }),
          fc.array(step, { minLength: 20, maxLength: 120 }),
          async (shape, steps) => {
            const world = new World({ ...shape, packed });
            run(world, steps, shape.mergeable);
            await world.settle();
          },
        ),
        { numRuns: 30 },
      );
    });

    it(`${packed ? 'packed' : 'split'}: all indices wrap, in batches of 1 to 256`, async () => {
      const world = new World({ packed, ringSize: 256, events: true });
      const { tx, rx } = world.bench;
      const goal = packed ? 3000 : 70_000;
      for (let i = 0; tx.counters.frames < goal || rx.counters.frames < goal; i++) {
        const batch = 1 + ((i * 131) % 256);
        world.send(batch, 1);
        world.sync('tx');
        world.take(batch);
        world.use(batch, i);
        world.sync('tx');
        world.deliver(batch, i, false);
        world.sync('rx');
        world.give(batch);
      }
      await world.settle();
    });
  }

  it('an RX slot given back without a buffer is refused, and nothing is given', async () => {
    const bench = new Bench();
    const { port, rx, source } = bench;
    source.take();
    for (let i = 0; i < 4; i++) source.deliver(pattern(i, 60));
    port.rxSync(rx);
    const buffer = rx.buffer(2);
    rx.setBuffer(2, bench.memory.buffers);
    rx.head = rx.cur = 4;
    refused('ring', () => port.rxSync(rx));
    assert.equal(rx.kget(KR_HWCUR), 0);
    rx.setBuffer(2, buffer);
    port.rxSync(rx);
    assert.equal(source.take(), 4);
    census(bench.memory, [rx, bench.tx]);
    await bench.close();
  });

  it('rings of before, of the other direction and of a port that is down are refused', async () => {
    const bench = new Bench({ pairs: 2 });
    const { port, rx, tx } = bench;
    refused('ring', () => port.rxSync(tx));
    refused('ring', () => port.txSync(rx));
    bench.restart(featuresOf({ mergeable: false }), 1);
    refused('ring', () => port.rxSync(rx));
    port.rxSync(bench.rx);
    await bench.close();
    refused('down', () => port.txSync(bench.tx));
    refused('down', () => port.poll(0));
    await assert.rejects(port.wait(0), { code: 'down' });
  });
});

describe('no descriptors left', () => {
  for (const packed of [false, true]) {
    it(`${packed ? 'packed' : 'split'}: counted, and the slots stay the application's`, async () => {
      // 256 slots and descriptors. A table holds 64 segments: a header and 64 slots take 65 descriptors.
      const bench = new Bench({ ringSize: 256, packed });
      const { port, tx, sink } = bench;
      const frames = Array.from({ length: 66 }, (_, i) => pattern(i, i < 3 ? 640 : 60));
      for (const [i, frame] of frames.entries()) put(tx, frame, i < 3 ? 10 : 60);
      assert.equal(tx.space, 0);
      port.txSync(tx);
      assert.deepEqual([tx.counters.full, tx.counters.frames], [1, 64]);
      const left = tx.kget(KR_HWCUR);
      assert.equal((tx.head - left + 256) % 256, 2);
      // The application may change its mind about one that waits.
      tx.bytes(left).fill(7);
      frames[64]!.fill(7);
      port.txSync(tx);
      assert.equal(tx.counters.full, 2);
      const got = sink.sent();
      port.txSync(tx);
      got.push(...sink.sent());
      port.txSync(tx);
      assert.deepEqual(
        got.map(({ bytes }) => bytes),
        frames,
      );
      assert.equal(tx.counters.badSlots, 0);
      assert.equal(tx.space, 255);
      await bench.close();
    });
  }
});

describe('slots', () => {
  /** Of a ring of 256: what FreeBSD's vtnet has under netmap. */
  const TABLE: [Shape, number, number][] = [
    [{ indirect: true, mergeable: true }, 256, 128],
    [{ indirect: true, mergeable: false }, 256, 256],
    [{ indirect: false, mergeable: true }, 128, 128],
    [{ indirect: false, mergeable: false }, 128, 128],
    [{ indirect: true, mergeable: true, headers: 'kept' }, 256, 256],
    [{ indirect: false, mergeable: false, headers: 'kept' }, 256, 256],
  ];
  for (const packed of [false, true]) {
    for (const [traits, tx, rx] of TABLE) {
      it(`${JSON.stringify({ packed, ...traits })}: ${tx} and ${rx}, and more frames than that pass`, async () => {
        const shape = { ...traits, packed, ringSize: 256 };
        const { headers = 'shared' } = traits;
        assert.deepEqual(slotCounts(256, featuresOf(shape), headers), { tx, rx });
        const world = new World(shape);
        const { bench } = world;
        assert.deepEqual([bench.tx.slots, bench.rx.slots], [tx, rx]);
        if (headers === 'kept') {
          for (let i = 0; i < 256; i++)
            bench.memory.bytes.fill(0, bench.tx.address(i) - 12, bench.tx.address(i));
        }
        while (bench.tx.counters.frames < 700 || bench.rx.counters.frames < 700) {
          world.send(100, 1);
          world.sync('tx');
          world.take(100);
          world.use(100, 0);
          world.deliver(100, 0, false);
          world.sync('rx');
          world.give(100);
          world.sync('tx');
        }
        await world.settle();
      });
    }
  }

  it('a switch carries each frame once, with its payload', async () => {
    const vhop = new Switch({ forwarding: 'wire' });
    for (const packed of [false, true]) {
      const open = (name: string) =>
        vhop.addNetmapPort({ name, packed, ringSize: 256, indirect: !packed, mergeable: !packed });
      const [a, b] = [open('a'), open('b')];
      const [tx, rx] = [a.tx[0] as Ring, b.rx[0] as Ring];
      const got: Buffer[] = [];
      const sent: Buffer[] = [];
      // Never more on their way than the receiver has buffers posted.
      for (let i = 0; got.length < 1000; i++) {
        assert.ok(i < 10_000, 'frames were lost');
        a.txSync(tx);
        while (tx.space > 0 && sent.length < 1000 && sent.length - got.length < 100) {
          const addresses = Buffer.from('020000000001020000000002', 'hex');
          const frame = Buffer.concat([addresses, pattern(sent.length, 60)]);
          put(tx, frame);
          sent.push(frame);
        }
        a.txSync(tx);
        await b.wait(5);
        for (let more = taken(rx); more.length > 0; more = taken(rx)) {
          got.push(...more);
          b.rxSync(rx);
        }
      }
      assert.deepEqual(got, sent);
      await a.close();
      await b.close();
    }
    await vhop.close();
  });
});
