// Our own driver against a device written from the specification: packed rings, and IN_ORDER on
// both formats.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DriverBench, type DriverShape, view } from './driver-bench.ts';

const PACKED: DriverShape = { packed: true, size: 8, events: true, inOrder: false, start: 0 };

/** Sizes a ring may have; the large ones begin near a wrap-around. */
function shapes(packed: boolean): fc.Arbitrary<DriverShape> {
  const size = packed
    ? fc.oneof(fc.integer({ min: 2, max: 40 }), fc.constantFrom(255, 1000, 32767, 32768))
    : fc.constantFrom(2, 4, 16, 64, 32768);
  return size.chain((size) =>
    fc.record({
      packed: fc.constant(packed),
      size: fc.constant(size),
      events: fc.boolean(),
      inOrder: fc.boolean(),
      start: fc.oneof(
        fc.constant(0),
        fc.nat({ max: 30 }).map((back) => Math.max(0, 2 * size - back)),
        fc.nat({ max: 30 }).map((back) => Math.max(0, 3 * size - back)),
        fc.constant(0x1_0000 - 5),
      ),
    }),
  );
}

type Step = { what: string; n: number; pick: number; flag: boolean };
const step: fc.Arbitrary<Step> = fc.record({
  what: fc.constantFrom('add', 'add', 'publish', 'take', 'use', 'pop', 'arm', 'disarm', 'ask'),
  n: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 70 })),
  pick: fc.nat(),
  flag: fc.boolean(),
});

const seen = new Map<string, number>();
function saw(what: string, when = true): void {
  if (when) seen.set(what, (seen.get(what) ?? 0) + 1);
}

function run(bench: DriverBench, { what, n, pick, flag }: Step): void {
  const { shape, device, taken } = bench;
  switch (what) {
    case 'add':
      saw(bench.add(n, flag) ? 'added' : 'refused');
      break;
    case 'publish':
      saw(bench.publish() ? 'kick' : 'no kick');
      break;
    case 'take':
      for (let i = 0; i < n && bench.take(); i++);
      break;
    case 'use': {
      if (taken.length === 0) break;
      const count = shape.inOrder ? Math.min(n, taken.length) : 1;
      const at = shape.inOrder ? 0 : pick % taken.length;
      saw('batch', count > 1);
      saw('out of order', at > 0);
      bench.use(at, count, pick);
      break;
    }
    case 'pop':
      for (let i = 0; i < n && bench.pop(); i++) saw('popped');
      break;
    case 'arm':
      bench.arm();
      break;
    case 'disarm':
      bench.disarm();
      break;
    case 'ask':
      // A position just passed, the next ones, or one a lap away.
      if (shape.events && (!shape.packed || pick % 3 > 0)) {
        device.ask(Math.max(0, device.taken - 5) + (pick % (shape.size + 10)));
      } else if (!shape.events || shape.packed) {
        device.ask(flag ? 'on' : 'off');
      }
      break;
  }
}

for (const packed of [true, false]) {
  describe(`our driver, ${packed ? 'packed' : 'split'} rings`, { timeout: 120_000 }, () => {
    it('any interleaving: each chain once, whole, with its length; kicks as the spec says', () => {
      seen.clear();
      fc.assert(
        fc.property(
          shapes(packed),
          fc.array(step, { maxLength: 300, size: 'max' }),
          (shape, steps) => {
            const bench = new DriverBench(shape);
            for (const one of steps) run(bench, one);
            bench.settle();
          },
        ),
        { numRuns: 300 },
      );
      for (const what of ['added', 'refused', 'kick', 'no kick', 'batch', 'out of order']) {
        assert.ok((seen.get(what) ?? 0) > 100, `${what}: ${seen.get(what)} times`);
      }
    });

    it('many laps round a small ring, full again and again', () => {
      for (const size of packed ? [2, 3, 5, 7, 8, 33] : [2, 8, 32]) {
        for (const inOrder of [false, true]) {
          const bench = new DriverBench({ packed, size, events: true, inOrder, start: 0 });
          for (let lap = 0; lap < 200; lap++) {
            const n = 1 + (lap % size);
            while (bench.add(n, false));
            while (bench.add(1 + (lap % 64), true));
            assert.equal(bench.free, 0);
            bench.settle();
          }
        }
      }
    });

    it('one chain as long as the ring, across its end', () => {
      for (const size of packed ? [2, 3, 32768] : [2, 4, 32768]) {
        for (const start of [0, 1, size + 1]) {
          const bench = new DriverBench({ packed, size, events: true, inOrder: false, start });
          assert.ok(bench.add(size, false));
          bench.settle();
        }
      }
    });

    it('refuses no segments, more than the ring has, and more than an indirect table has', () => {
      const bench = new DriverBench({ ...PACKED, packed });
      assert.equal(bench.add(9, false), false);
      assert.equal(bench.add(65, true), false);
      assert.ok(bench.add(64, true));
      bench.settle();
    });

    it('IN_ORDER: one used element returns the whole batch, with the length of the last', () => {
      const bench = new DriverBench({ ...PACKED, packed, inOrder: true });
      for (const n of [1, 3, 2]) bench.add(n, false);
      bench.add(5, true);
      bench.publish();
      while (bench.take());
      bench.use(0, 3, 60);
      assert.ok(bench.pop());
      // In the middle of a batch there is something to pop: no sleep.
      bench.arm();
      bench.use(0, 1, 70);
      while (bench.pop());
      assert.equal(bench.free, 8);
      assert.equal(bench.errors, 0);
    });
  });
}

describe('a device that lies to our driver', () => {
  for (const packed of [true, false]) {
    for (const inOrder of [false, true]) {
      const name = `${packed ? 'packed' : 'split'}${inOrder ? ', IN_ORDER' : ''}`;
      it(`${name}: ids of nothing and ids used twice are counted, the rest comes back`, () => {
        const bench = new DriverBench({ ...PACKED, packed, inOrder });
        for (let i = 0; i < 6; i++) bench.add(1, false);
        bench.publish();
        while (bench.take());
        const [first] = bench.taken;
        const lie = (id: number) => {
          bench.device.putUsed(id, 1, 1);
          bench.device.used++;
        };
        // Beyond the ring, free, and far beyond what an id can be.
        for (const id of [8, 7, 0xffff]) lie(id);
        assert.deepEqual(bench.drain(3), []);
        assert.equal(bench.errors, 3);
        lie(first!.id);
        lie(first!.id);
        assert.deepEqual(bench.drain(2), [0]);
        assert.equal(bench.errors, 4);
        assert.equal(bench.free, 3);
      });

      it(`${name}: whatever it writes, no token comes twice and no descriptor is made up`, () => {
        fc.assert(
          fc.property(
            fc.integer({ min: 1, max: 4 }),
            fc.array(fc.tuple(fc.nat({ max: 11 }), fc.nat({ max: 4 })), { maxLength: 40 }),
            (n, lies) => {
              const bench = new DriverBench({ ...PACKED, packed, inOrder });
              let added = 0;
              while (bench.add(n, false)) added++;
              bench.publish();
              const tokens: number[] = [];
              for (const [id, skip] of lies) {
                bench.device.putUsed(id, 1, 1 + skip);
                bench.device.used += 1 + skip;
                tokens.push(...bench.drain(1));
              }
              tokens.push(...bench.drain(10));
              assert.equal(new Set(tokens).size, tokens.length);
              assert.equal(bench.free, 8 - (added - tokens.length) * n);
            },
          ),
        );
      });
    }
  }

  it('split, IN_ORDER: a batch longer than the used index says is counted and ends there', () => {
    const bench = new DriverBench({ ...PACKED, packed: false, inOrder: true });
    for (let i = 0; i < 4; i++) bench.add(1, false);
    bench.publish();
    while (bench.take());
    bench.device.putUsed(bench.taken[3]!.id, 1, 2);
    assert.deepEqual(bench.drain(3), [0, 1]);
    assert.equal(bench.errors, 1);
  });

  it('packed: junk all over the ring ends every loop', () => {
    for (let seed = 1; seed <= 50; seed++) {
      for (const inOrder of [false, true]) {
        const bench = new DriverBench({ ...PACKED, inOrder, size: 13 });
        while (bench.add(2, false));
        bench.publish();
        let x = seed;
        for (let i = 0; i < 13 * 4; i++) {
          x = (x * 1664525 + 1013904223) >>> 0;
          view.setUint32(bench.parts.desc + i * 4, x, true);
        }
        const tokens = bench.drain(40);
        assert.equal(new Set(tokens).size, tokens.length);
        assert.equal(bench.free, 1 + tokens.length * 2);
      }
    }
  });
});
