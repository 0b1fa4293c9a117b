// The Internet checksum, and the copy that sums: against RFC 1071 done word by word.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { WINDOW_BASE } from '../../src/abi/layout.ts';
import { CANARY, fill } from './frames.ts';
import { checksum } from './oracle.ts';
import { Rig } from './rig.ts';

const { bytes, datapath } = new Rig();
const FROM = WINDOW_BASE;
const TO = WINDOW_BASE + 0x10_0000;
const GAP = 32;

/** Stored as words are loaded here: little endian. */
const swap = (word: number): number => ((word & 255) << 8) | (word >> 8);

/** Copies `source` from and to odd places, checks every byte about it, and returns the sum. */
function copied(source: Uint8Array, from = 0, to = 0): bigint {
  bytes.set(source, FROM + from);
  bytes.fill(CANARY, TO, TO + GAP + to + source.length + GAP);
  const at = TO + GAP + to;
  const sum = datapath.copySum(at, FROM + from, source.length);
  assert.deepEqual(new Uint8Array(bytes.slice(at, at + source.length)), source);
  for (let i = 0; i < GAP; i++) {
    assert.equal(bytes[at - 1 - i], CANARY);
    assert.equal(bytes[at + source.length + i], CANARY);
  }
  return sum;
}

describe('checksum', () => {
  it('the example of RFC 1071 §3', () => {
    const words = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
    assert.equal(checksum(words), 0xffff - 0xddf2);
    assert.equal(swap(datapath.complement(copied(words))), 0xffff - 0xddf2);
  });

  it('copies every length to 300 B exactly, and sums it', () => {
    for (let length = 0; length <= 300; length++) {
      const source = new Uint8Array(length);
      fill(source, length);
      assert.equal(swap(datapath.complement(copied(source))), checksum(source), `${length} B`);
      if (length % 2 > 0) continue;
      assert.equal(swap(datapath.complement(datapath.sumOf(FROM, length))), checksum(source));
    }
  });

  it('of anything, anywhere', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.nat({ max: 2000 }), fc.nat({ max: 65557 })),
        fc.nat({ max: 15 }),
        fc.nat({ max: 15 }),
        fc.nat(),
        (length, from, to, seed) => {
          const source = new Uint8Array(length);
          fill(source, seed);
          assert.equal(swap(datapath.complement(copied(source, from, to))), checksum(source));
        },
      ),
      { numRuns: 200 },
    );
  });

  it('the most there can be to carry does not overflow', () => {
    const source = new Uint8Array(65557).fill(0xff);
    assert.equal(swap(datapath.complement(copied(source))), checksum(source));
    // All ones are a zero, but not the zero of no ones (RFC 1624 §3).
    assert.equal(datapath.complement(copied(new Uint8Array(64).fill(0xff))), 0);
    assert.equal(datapath.complement(copied(new Uint8Array(64))), 0xffff);
  });

  it('in pieces of any length it is that of the whole', () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 200 }), { maxLength: 40 }), fc.nat(), (pieces, seed) => {
        const source = new Uint8Array(pieces.reduce((sum, length) => sum + length, 0));
        fill(source, seed);
        bytes.set(source, FROM);
        datapath.openSum(0n);
        let done = 0;
        for (const length of pieces) {
          datapath.addSum(datapath.copySum(TO + done, FROM + done, length), length);
          done += length;
        }
        assert.equal(swap(datapath.complement(datapath.closeSum())), checksum(source));
        assert.deepEqual(bytes.slice(TO, TO + done), bytes.slice(FROM, FROM + done));
      }),
    );
  });
});
