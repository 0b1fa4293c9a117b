// First-fit allocation: no two spans overlap, all come back, alignment holds with any bias.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { roundUp, Spans } from '../../src/memory/spans.ts';

const START = 0x400;
const END = 0x2000;

describe('Spans', () => {
  it('random takes and gives: inside, aligned, disjoint; in the end all is free again', () => {
    let refused = 0;
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            take: fc.boolean(),
            length: fc.integer({ min: 1, max: 0x800 }),
            align: fc.constantFrom(1, 2, 64, 0x200, 0x1000),
            bias: fc.nat(0x2000),
            pick: fc.nat(),
          }),
          { minLength: 20, maxLength: 80 },
        ),
        (steps) => {
          const spans = new Spans(START, END);
          const held: { start: number; length: number }[] = [];
          for (const { take, length, align, bias, pick } of steps) {
            if (!take && held.length > 0) {
              const [{ start, length }] = held.splice(pick % held.length, 1) as [(typeof held)[0]];
              spans.give(start, length);
              continue;
            }
            const largest = spans.largest();
            const start = spans.take(length, align, bias);
            if (start === undefined) {
              refused++;
              assert.ok(length + align > largest, 'refused though the largest span has room');
              continue;
            }
            assert.equal((start + bias) % align, 0);
            assert.ok(start >= START && start + length <= END);
            for (const other of held) {
              assert.ok(start + length <= other.start || other.start + other.length <= start);
            }
            held.push({ start, length });
          }
          const used = held.reduce((sum, one) => sum + one.length, 0);
          assert.ok(spans.largest() <= END - START - used);
          for (const { start, length } of held) spans.give(start, length);
          assert.equal(spans.largest(), END - START);
          assert.equal(spans.take(END - START, 1), START);
        },
      ),
      { numRuns: 200 },
    );
    assert.ok(refused > 20, `${refused} refused`);
  });

  it('takes the first span that fits, and what alignment leaves over is not lost', () => {
    const spans = new Spans(0, 100);
    assert.equal(spans.take(10, 64, 1), 63);
    assert.equal(spans.take(63, 1), 0);
    assert.equal(spans.take(27, 1), 73);
    assert.equal(spans.take(1, 1), undefined);
    spans.give(63, 10);
    assert.equal(spans.largest(), 10);
  });

  it('rounds up addresses of 47 bits exactly', () => {
    const base = 0x7f12_3456_7000;
    assert.equal(roundUp(base, 0x20_0000), 0x7f12_3460_0000);
    assert.equal(roundUp(base, 0x4000_0000), 0x7f12_4000_0000);
    assert.equal(roundUp(0, 4096), 0);
  });
});
