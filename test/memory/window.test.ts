// Guest memory in linear memory: what is seen where, alignment, and what happens without room.

import assert from 'node:assert/strict';
import { readSync, writeSync } from 'node:fs';
import { describe, it } from 'node:test';
import { SLOT, WINDOW_BASE } from '../../src/abi/layout.ts';
import { addressOf, close, memfd } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { type Mapping, WINDOW_END, Window, WindowFull } from '../../src/memory/window.ts';
import { random } from '../datapath/frames.ts';

const PAGE = 4096;
const MIB = 2 ** 20;
const control = new Control();
const base = addressOf(control.bytes.subarray(0, 65536));
const ALL = new Window(control).largestFree();

function withFd<T>(size: number, run: (fd: number) => T): T {
  const fd = memfd('test', size);
  try {
    return run(fd);
  } finally {
    close(fd);
  }
}

describe('Window', () => {
  it('shows the file, from its offset on, both ways, also after the fd is closed', () => {
    const window = new Window(control);
    const fd = memfd('test', 8 * PAGE);
    writeSync(fd, Buffer.from('page three'), 0, 10, 3 * PAGE);
    const mapping = window.map(fd, 3 * PAGE, 2 * PAGE, PAGE);
    const text = Buffer.from(control.bytes.slice(mapping.linear, mapping.linear + 10));
    assert.equal(text.toString(), 'page three');
    control.bytes.set(Buffer.from('answer'), mapping.linear + PAGE);
    const got = Buffer.alloc(6);
    readSync(fd, got, 0, 6, 4 * PAGE);
    assert.equal(got.toString(), 'answer');
    close(fd);
    assert.equal(control.bytes[mapping.linear], 'p'.charCodeAt(0));
    mapping.unmap();
    assert.equal(control.bytes[mapping.linear], 0);
    assert.equal(window.largestFree(), ALL);
  });

  it('after unmap the guest cannot see what is written there', () => {
    const window = new Window(control);
    withFd(PAGE, (fd) => {
      const mapping = window.map(fd, 0, PAGE, PAGE);
      mapping.unmap();
      control.bytes.set(Buffer.from('secret'), mapping.linear);
      const got = Buffer.alloc(6);
      readSync(fd, got, 0, 6, 0);
      assert.deepEqual(got, Buffer.alloc(6));
      control.bytes.fill(0, mapping.linear, mapping.linear + 6);
    });
  });

  it('random maps and unmaps: slots aligned, never shared, contents their own, all returned', () => {
    const window = new Window(control);
    const next = random(1);
    const held: { mapping: Mapping; stamp: number }[] = [];
    for (let i = 0; i < 400; i++) {
      if (held.length > 20 || (held.length > 0 && next() % 3 === 0)) {
        const [{ mapping, stamp }] = held.splice(next() % held.length, 1) as [(typeof held)[0]];
        assert.equal(control.get(mapping.linear), stamp);
        assert.equal(control.get(mapping.linear + mapping.size - 4), stamp);
        mapping.unmap();
        continue;
      }
      const size = (1 + (next() % 1200)) * PAGE;
      const offset = (next() % 5) * PAGE;
      const mapping = withFd(offset + size, (fd) => window.map(fd, offset, size, PAGE));
      assert.equal((base + mapping.linear) % SLOT, 0);
      assert.ok(mapping.linear >= WINDOW_BASE && mapping.linear + size <= WINDOW_END);
      for (const other of held) {
        const apart =
          mapping.linear + size <= other.mapping.linear ||
          other.mapping.linear + other.mapping.size <= mapping.linear;
        assert.ok(apart);
      }
      control.set(mapping.linear, i);
      control.set(mapping.linear + size - 4, i);
      held.push({ mapping, stamp: i });
    }
    for (const { mapping } of held) mapping.unmap();
    assert.equal(window.largestFree(), ALL);
  });

  // The kernel is not asked for huge pages here (there may be none): a file of small pages can be
  // mapped as if its block were 2 MiB or 1 GiB, and the arithmetic is the same.
  for (const block of [2 * MIB, 1024 * MIB]) {
    it(`with pages of ${block / MIB} MiB, address, offset and length are multiples of that`, () => {
      const window = new Window(control);
      for (const [offset, size] of [
        [0, block],
        [4096, 8192],
        [block - 4096, 4096],
      ] as const) {
        withFd(2 * block, (fd) => {
          writeSync(fd, Buffer.from('here'), 0, 4, offset);
          const mapping = window.map(fd, offset, size, block);
          assert.equal((base + mapping.linear - (offset % block)) % block, 0);
          const got = Buffer.from(control.bytes.slice(mapping.linear, mapping.linear + 4));
          assert.equal(got.toString(), 'here');
          mapping.unmap();
        });
      }
      assert.equal(window.largestFree(), ALL);
    });
  }

  it('what does not fit is refused with the sizes, and nothing changes', () => {
    const window = new Window(control);
    withFd(4096 * MIB, (fd) => {
      const check = (error: unknown) => {
        assert.ok(error instanceof WindowFull);
        assert.equal(error.wanted, 4096 * MIB);
        assert.equal(error.largest, ALL);
        return true;
      };
      assert.throws(() => window.map(fd, 0, 4096 * MIB, PAGE), check);
      const first = window.map(fd, 0, 2048 * MIB, PAGE);
      assert.throws(() => window.map(fd, 0, 2048 * MIB, PAGE), WindowFull);
      const second = window.map(fd, 0, 512 * MIB, PAGE);
      first.unmap();
      second.unmap();
    });
    assert.equal(window.largestFree(), ALL);
  });

  it('has 8 to 1024 slots for pages, and takes them from what is mapped whole', () => {
    for (const slots of [0, 7, 8.5, 1025]) {
      assert.throws(() => new Window(new Control(), { slots }), RangeError);
    }
    const few = new Window(new Control(), { slots: 8 });
    const many = new Window(new Control(), { slots: 1024 });
    assert.equal(few.largestFree() - many.largestFree(), 1016 * SLOT);
    assert.equal(few.pager.free, 8);
    assert.equal(new Window(new Control(), { whole: 5 * SLOT }).largestFree(), 5 * SLOT);
  });

  it('the slots of a mapping the kernel refused are free again', () => {
    const window = new Window(control);
    assert.throws(() => window.map(-1, 0, PAGE, PAGE));
    assert.throws(() => window.map(9999, 0, PAGE, PAGE));
    assert.equal(window.largestFree(), ALL);
    assert.equal(control.bytes[WINDOW_BASE + SLOT], 0);
  });
});
