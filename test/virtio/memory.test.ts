// Memory that changes under live rings, and what sessions leave behind.

import assert from 'node:assert/strict';
import { readSync, writeSync } from 'node:fs';
import { describe, it } from 'node:test';
import { PAGE, RING_RUNNING, RING_STOPPED } from '../../src/abi/layout.ts';
import { close, dup, eventfd, memfd } from '../../src/linux/index.ts';
import { openFds } from '../linux/fds.ts';
import { GUEST_BYTES, PLAIN } from './bench.ts';
import { ALL, a, BYTES, b, bench, events, pass } from './pair.ts';

describe('memory', () => {
  it('a new table with live rings: other addresses, the same traffic', () => {
    // Given back later, so that the new mapping lands below the old one.
    const spare = memfd('spare', GUEST_BYTES);
    const hold = bench.window.map(spare, 0, GUEST_BYTES, 4096);
    close(spare);
    a.open();
    b.open();
    assert.ok(pass());
    const before = a.linear(0);
    hold.unmap();
    a.device.setMemTable([a.region()]);
    assert.notEqual(a.linear(0), before);
    for (let i = 0; i < 20; i++) assert.ok(pass());
  });

  it('a frame posted before a new table arrives after it', () => {
    a.open();
    b.open();
    b.post(0, 2048, true);
    a.post(1, BYTES.length, false, BYTES);
    a.device.setMemTable([a.region()]);
    b.device.setMemTable([b.region()]);
    bench.settle();
    assert.equal(b.usedIdx(0), 1);
  });

  it('the old table is out of use before it is unmapped', () => {
    a.open();
    let running = -1;
    let mapped = 0;
    bench.onQuiesce = () => {
      if (running >= 0) return;
      running = a.device.rings.filter(({ state }) => state !== RING_STOPPED).length;
      mapped = a.linear(0);
    };
    const linear = a.linear(0);
    assert.ok(linear > 0);
    a.device.setMemTable([]);
    // At the first quiesce no ring runs any more, and the memory is still there.
    assert.equal(running, 0);
    assert.equal(mapped, linear);
    assert.equal(a.linear(0), 0);
    assert.equal(a.device.up, false);
  });

  it('regions one by one: a repeated ADD and REM are success, and close their fds', () => {
    b.open();
    a.device.setFeatures(PLAIN);
    const before = openFds();
    a.device.addMemRegion(a.region());
    a.device.addMemRegion(a.region());
    // One is kept, for whoever takes the port over.
    assert.equal(openFds(), before + 1);
    for (const queue of [0, 1]) {
      a.start(queue);
      a.device.setVringEnable(queue, true);
    }
    assert.ok(pass());
    for (const queue of [0, 1]) a.device.getVringBase(queue);
    const { fd, ...region } = a.region();
    close(fd);
    a.device.removeMemRegion(region);
    a.device.removeMemRegion(region);
    assert.equal(a.device.regions.bytes, 0);
    assert.equal(openFds(), before);
  });

  it('a table on another file: nobody touches the old one any more', () => {
    a.open();
    b.open();
    assert.ok(pass());
    // A frame posted before, its buffer in the old file by then.
    b.post(0, 2048, true);
    const bytes = new Uint8Array(GUEST_BYTES);
    readSync(b.fd, bytes, 0, GUEST_BYTES, 0);
    const fd = memfd('moved', GUEST_BYTES);
    writeSync(fd, bytes, 0, GUEST_BYTES, 0);
    const { fd: old, ...region } = b.region();
    b.device.setMemTable([{ ...region, fd }]);
    const canary = bytes.fill(0xa5);
    writeSync(old, canary, 0, GUEST_BYTES, 0);
    for (let i = 0; i < 20; i++) assert.ok(pass());
    const seen = new Uint8Array(GUEST_BYTES);
    readSync(old, seen, 0, GUEST_BYTES, 0);
    close(old);
    assert.deepEqual(seen, canary);
  });

  it('a region removed under live rings: nobody touches it, and all goes on once it is back', () => {
    a.open();
    b.device.setFeatures(PLAIN);
    // In the middle the buffers of b's ring 0; around it all rings and the other buffers.
    const [from, to] = [3 * PAGE, 64 * PAGE];
    const part = (at: number, end: number) => ({
      ...b.region(at),
      size: BigInt(end - at),
    });
    for (const each of [part(0, from), part(from, to), part(to, GUEST_BYTES)]) {
      b.device.addMemRegion(each);
    }
    for (const queue of [0, 1]) {
      b.start(queue);
      b.device.setVringEnable(queue, true);
    }
    assert.ok(pass());
    for (let i = 0; i < 4; i++) b.post(0, 2048, true);
    const { fd, ...middle } = part(from, to);
    b.device.removeMemRegion(middle);
    const canary = new Uint8Array(to - from).fill(0xa5);
    writeSync(fd, canary, 0, canary.length, from);
    const before = b.usedIdx(0);
    for (let i = 0; i < 4; i++) a.post(1, BYTES.length, false, BYTES);
    bench.settle();
    // Completed empty, as buffers outside the guest's memory are.
    assert.equal(b.usedIdx(0), before + 4);
    const seen = new Uint8Array(canary.length);
    readSync(fd, seen, 0, seen.length, from);
    assert.deepEqual(seen, canary);
    b.device.addMemRegion({ ...middle, fd });
    for (let i = 0; i < 20; i++) assert.ok(pass());
  });

  it('a ring whose memory is gone stands still; the others go on', () => {
    a.open();
    b.device.setFeatures(PLAIN);
    const edge = 64 * PAGE;
    const first = { ...b.region(), size: BigInt(edge) };
    b.device.addMemRegion(first);
    b.device.addMemRegion(b.region(edge));
    for (const queue of [0, 1, 2, 3]) {
      b.start(queue);
      b.device.setVringEnable(queue, true);
    }
    assert.throws(() => b.device.removeMemRegion(first), /ring 0 lies outside/);
    const states = b.device.rings.slice(0, 4).map(({ state }) => state);
    assert.deepEqual(states, [RING_STOPPED, RING_RUNNING, RING_RUNNING, RING_RUNNING]);
    assert.equal(b.device.up, true);
    b.device.addMemRegion({ ...first, fd: dup(b.fd) });
    assert.equal(b.device.rings[0]!.state, RING_RUNNING);
    assert.ok(pass());
  });

  it('a bad region in a table is refused with all fds closed', () => {
    const before = openFds();
    const bad = { ...a.region(), size: 1n };
    assert.throws(() => a.device.setMemTable([a.region(), bad]), /not aligned|overlaps/);
    assert.equal(openFds(), before);
  });
});

describe('descriptors', () => {
  it('500 sessions leave none open and no memory mapped', () => {
    const before = openFds();
    for (let i = 0; i < 500; i++) {
      a.open();
      a.device.setVringErr(i % 8, eventfd());
      a.device.setVringKick(1, eventfd());
      a.device.setVringCall(1, eventfd());
      if (i % 3 === 0) a.device.getVringBase(1);
      a.device.disconnected('over');
      assert.equal(openFds(), before);
    }
    assert.equal(bench.window.largestFree(), ALL);
    assert.deepEqual(events.slice(-2), ['down', 'disconnected']);
  });
});
