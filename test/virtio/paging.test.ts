// Guests larger than the window, on a window of a few slots: buffers on many more pages than there
// are slots, one worker polled by hand.

import assert from 'node:assert/strict';
import { readFileSync, readSync } from 'node:fs';
import { afterEach, beforeEach, describe, it } from 'node:test';
import {
  PAGE,
  PAGER_FREE,
  PAGER_LIMBO,
  PAGER_REGIONS,
  PAGER_SLOTS,
  REGION_BASE,
  REGION_TABLE,
  RING_DROPS,
  RING_RUNNING,
  TABLES_BASE,
  WORKER_BASE,
  WORKER_EVICTIONS,
  WORKER_PAGES_IN,
} from '../../src/abi/layout.ts';
import { VRING_F_LOG } from '../../src/abi/vhost-user.ts';
import { F_LOG_ALL } from '../../src/abi/virtio.ts';
import { close, dup, eventfd, memfd } from '../../src/linux/index.ts';
import { DROP_NAMES } from '../../src/observe/drops.ts';
import type { MemoryRegionFd } from '../../src/vhost-user/backend.ts';
import type { NetDevice } from '../../src/virtio/device.ts';
import { bit } from '../../src/virtio/features.ts';
import { concat, frame, header, mac } from '../datapath/frames.ts';
import { openFds } from '../linux/fds.ts';
import { GIB, MIB, SparseGuest, type SparseOptions } from '../paging/guest.ts';
import { Stream, type StreamOptions } from '../paging/stream.ts';
import { DeviceBench, PLAIN } from './bench.ts';

const SLOTS = 32;
let bench: DeviceBench;
let guests: SparseGuest[] = [];
let devices: NetDevice[] = [];
let fds = 0;
let pinned = 0;

beforeEach(() => {
  bench = new DeviceBench({ whole: 32 * MIB, slots: SLOTS });
  fds = openFds();
  pinned = bench.window.largestPinned();
});

afterEach(() => {
  for (const device of devices) device.disconnected('the test ends');
  for (const guest of guests) guest.close();
  devices = [];
  guests = [];
  assert.equal(openFds(), fds, 'descriptors left open');
  assert.equal(bench.control.get(PAGER_FREE), SLOTS, 'slots left in use');
  assert.equal(bench.control.get(PAGER_LIMBO), 0);
  assert.equal(bench.control.get(PAGER_REGIONS), 0);
  assert.equal(bench.window.largestPinned(), pinned, 'rings left mapped');
});

/** A guest on a port of its own, its first two rings running. */
function join(options: SparseOptions) {
  const guest = new SparseGuest(options);
  const { device } = bench.device();
  guests.push(guest);
  devices.push(device);
  device.connected(undefined);
  device.setFeatures(PLAIN);
  device.setMemTable(guest.regions());
  const [rx, tx] = [guest.queue(0), guest.queue(1)];
  for (const [index, queue] of [rx, tx].entries()) {
    device.setVringNum(index, guest.ringSize);
    device.setVringBase(index, 0);
    device.setVringAddr(index, queue.address());
    device.setVringCall(index, eventfd());
    device.setVringKick(index, eventfd());
    device.setVringEnable(index, true);
  }
  return { guest, device, rx, tx };
}

function pair(a: SparseOptions, b: SparseOptions, options: Partial<StreamOptions> = {}) {
  const [left, right] = [join({ seed: 1, ...a }), join({ seed: 2, ...b })];
  return {
    left,
    right,
    streams: [
      new Stream(left.tx, right.rx, { from: 1, to: 2, ...options }),
      new Stream(right.tx, left.rx, { from: 2, to: 1, ...options }),
    ],
  };
}

function drops(): Record<string, number> {
  const found: Record<string, number> = {};
  for (const ring of devices.flatMap(({ rings }) => rings)) {
    for (const [reason, name] of DROP_NAMES.entries()) {
      const n = ring.counter(RING_DROPS + reason * 8);
      if (n > 0) found[name] = (found[name] ?? 0) + n;
    }
  }
  return found;
}

function run(streams: Stream[], frames: number, burst = 12): void {
  for (let rounds = 0; streams.some(({ sent }) => sent < frames); rounds++) {
    assert.ok(rounds < frames, 'no progress');
    for (const stream of streams) {
      stream.post();
      stream.send(burst);
    }
    bench.settle();
    for (const stream of streams) stream.collect();
  }
}

/** This process's mappings of files of this name. */
function mappings(name: string): string[] {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(name));
}

const counter = (field: number) => bench.control.counter(WORKER_BASE + field);

describe('a guest on more pages than there are slots', () => {
  const shapes: [name: string, options: Partial<StreamOptions>][] = [
    ['one buffer a frame', {}],
    ['chains of up to 4 pieces', { pieces: 4 }],
    ['indirect tables', { pieces: 3, indirect: true }],
    ['receive buffers of 200 bytes, merged', { buffer: 200, longest: 600 }],
  ];
  for (const [name, options] of shapes) {
    it(`${name}: all frames intact, counters add up`, () => {
      const { left, streams } = pair(
        { size: 3 * GIB, ringSize: 256 },
        { size: 2 * GIB, ringSize: 256, skip: 5 * 4096 },
        options,
      );
      assert.equal(left.device.regions.pagedBytes, 3 * GIB);
      run(streams, 2000);
      const { rx_paging = 0, ...others } = drops();
      assert.deepEqual(others, {});
      const [sent, received] = ['sent', 'received'].map((field) =>
        streams.reduce((sum, stream) => sum + stream[field as 'sent' | 'received'], 0),
      );
      assert.equal(received! + rx_paging, sent);
      assert.ok(rx_paging < sent! / 50, `${rx_paging} of ${sent} found no slot`);
      // One page in for each eviction, but for those that are still mapped.
      const mapped = SLOTS - bench.control.get(PAGER_FREE);
      assert.equal(counter(WORKER_PAGES_IN), counter(WORKER_EVICTIONS) + mapped);
      assert.ok(counter(WORKER_EVICTIONS) > 1000, `${counter(WORKER_EVICTIONS)} evictions`);
    });
  }

  it('that migrates: the dirty log names the pages written, whatever slot showed them', () => {
    const options = { buffer: 200, longest: 600 };
    const { right, streams } = pair(
      { size: 3 * GIB, ringSize: 256 },
      { size: 3 * GIB, skip: 5 * PAGE },
      options,
    );
    const { guest, device, rx } = right;
    const size = (5 * GIB) / PAGE / 8;
    const log = memfd('log', size);
    device.setLogBase({ size: BigInt(size), offset: 0n }, dup(log));
    device.setFeatures(PLAIN | bit(F_LOG_ALL));
    const written = new Set<number>();
    const wrote = (offset: number, length: number) => {
      for (let at = offset; at < offset + length; at++)
        written.add((Number(guest.gpa(at)) / PAGE) | 0);
    };
    for (const [index, queue] of [rx, right.tx].entries()) {
      const logGpa = guest.gpa(queue.at.used);
      device.setVringAddr(index, { ...queue.address(), flags: VRING_F_LOG, logGpa });
      wrote(queue.at.used, 1);
    }
    const used = rx.used.bind(rx);
    rx.used = () => {
      const found = used();
      for (const { pieces, length } of found) wrote(pieces[0]!.offset, length);
      return found;
    };
    run(streams, 1000);
    assert.ok(counter(WORKER_EVICTIONS) > 500, `${counter(WORKER_EVICTIONS)} evictions`);
    const bits = Buffer.alloc(size);
    readSync(log, bits, 0, size, 0);
    close(log);
    const marked = [...bits.entries()].flatMap(([byte, set]) =>
      [0, 1, 2, 3, 4, 5, 6, 7].filter((n) => (set >> n) & 1).map((n) => byte * 8 + n),
    );
    assert.deepEqual(
      marked,
      [...written].sort((x, y) => x - y),
    );
    assert.ok(marked.at(-1)! > (4 * GIB) / PAGE, 'nothing above the hole');
  });

  it('pages that fit stay: none is mapped twice', () => {
    const { streams } = pair({ size: 3 * GIB, pages: 5 }, { size: 2 * GIB, pages: 5 });
    run(streams, 1000);
    assert.deepEqual(drops(), {});
    assert.equal(counter(WORKER_EVICTIONS), 0);
    // Ten pages, and those behind their edges.
    assert.ok(counter(WORKER_PAGES_IN) <= 20, `${counter(WORKER_PAGES_IN)} pages in`);
  });

  it('a guest that fits is mapped whole, and talks to one that does not', () => {
    const { right, streams } = pair({ size: 3 * GIB }, { size: 32 * MIB, pages: 8 });
    assert.equal(right.device.regions.pagedBytes, 0);
    assert.equal(bench.control.get(PAGER_REGIONS), 2);
    run(streams, 1000, 6);
    assert.deepEqual(drops(), {});
  });
});

describe('a frame on many pages', () => {
  /** Sends frame `bytes` in pieces on `count` pages, named by an indirect table. */
  function sendSpread(from: ReturnType<typeof join>, bytes: Uint8Array, count: number): void {
    const each = Math.ceil(bytes.length / count);
    const pages = new Set<number>();
    const pieces = [];
    for (let at = 0; at < bytes.length; at += each) {
      let piece = from.guest.take(each);
      while (pages.has(Math.floor(piece.offset / (2 * MIB)))) piece = from.guest.take(each);
      pages.add(Math.floor(piece.offset / (2 * MIB)));
      const part = { offset: piece.offset, length: Math.min(each, bytes.length - at) };
      from.guest.write(part.offset, bytes.subarray(at, at + part.length));
      pieces.push(part);
    }
    from.tx.add(pieces, false, true);
    from.tx.publish();
  }

  const bytes = concat(header(), frame({ from: mac(1), to: mac(2), length: 1200 }));

  for (const [count, arrives] of [
    [12, true],
    [15, true],
    [20, false],
    [200, false],
  ] as const) {
    it(`${count} of them, with ${SLOTS} slots: ${arrives ? 'arrives' : 'tx_paging'}`, () => {
      const from = join({ size: 3 * GIB, pages: 400, edges: false });
      const to = join({ size: 2 * GIB, seed: 2 });
      to.rx.add([to.guest.take(2048)], true);
      to.rx.publish();
      sendSpread(from, bytes, count);
      bench.settle();
      assert.equal(from.tx.used().length, 1);
      assert.deepEqual(drops(), arrives ? {} : { tx_paging: 1 });
      const [got] = to.rx.used();
      assert.equal(got !== undefined, arrives);
      if (got) {
        const { offset } = got.pieces[0]!;
        assert.deepEqual(
          to.guest.read(offset, got.length).subarray(12),
          Buffer.from(bytes.subarray(12)),
        );
      }
      // The ring goes on.
      if (!got) to.rx.publish();
      else {
        to.rx.add([to.guest.take(2048)], true);
        to.rx.publish();
      }
      sendSpread(from, bytes, 2);
      bench.settle();
      assert.equal(from.tx.used().length, 1);
      assert.equal(to.rx.used().length, 1);
    });
  }

  it('in a receive buffer: the frame drops as rx_paging, the buffer comes back empty', () => {
    const [from, to] = [join({ size: 3 * GIB }), join({ size: 3 * GIB, pages: 400, seed: 2 })];
    const parts = Array.from({ length: 80 }, () => to.guest.take(16));
    to.rx.add(parts, true, true);
    to.rx.publish();
    sendSpread(from, bytes, 1);
    bench.settle();
    assert.deepEqual(drops(), { rx_paging: 1 });
    assert.deepEqual(
      to.rx.used().map(({ length }) => length),
      [0],
    );
  });
});

describe('rings of paged guests', () => {
  it('that move leave no view of where they were', () => {
    const { device, guest } = join({ size: 3 * GIB });
    const left = bench.window.largestPinned();
    for (let i = 0; i < 50; i++) {
      device.getVringBase(0);
      device.setVringAddr(0, guest.queue(2 + (i % 5)).address());
      device.setVringKick(0, eventfd());
      assert.equal(device.rings[0]!.state, RING_RUNNING);
      assert.ok(bench.window.largestPinned() >= left - 16 * 4096);
    }
    device.getVringBase(0);
    device.getVringBase(1);
    assert.equal(bench.window.largestPinned(), pinned);
  });

  it('are refused in one sentence when there is no room for them', () => {
    // All of the pinned part, and of the whole one.
    const hold: { unmap(): void }[] = [];
    const file = memfd('hold', 64 * MIB);
    for (const room of [64 * MIB, 32 * MIB]) hold.push(bench.window.pin(file, 0, room, 4096));
    assert.throws(
      () => join({ size: 3 * GIB }),
      /^Refusal: desc of ring 0 in the memory region at GPA 0x0 .* cannot be mapped/,
    );
    for (const held of hold) held.unmap();
    close(file);
  });

  it('are outside of memory when their region is gone, and run again with it', () => {
    const { left, streams } = pair({ size: 3 * GIB }, { size: 3 * GIB });
    run(streams, 50);
    left.device.setMemTable([]);
    assert.equal(left.device.up, false);
    left.device.setMemTable(left.guest.regions());
    assert.equal(left.device.up, true);
    run(streams, 100);
  });
});

describe('an in-process guest', () => {
  it('is mapped whole or refused', () => {
    const guest = new SparseGuest({ size: 64 * MIB });
    guests.push(guest);
    const { device } = bench.device(1, undefined, true);
    devices.push(device);
    assert.throws(
      () => device.setMemTable(guest.regions()),
      /does not fit: 32 MiB of the window are free in one piece/,
    );
  });
});

describe('memory that changes while it is paged', () => {
  it('a region that goes away leaves no page mapped, not even one given up', () => {
    const { left, right, streams } = pair({ size: 3 * GIB }, { size: 3 * GIB });
    run(streams, 200);
    const busy = bench.control.get(PAGER_SLOTS) - bench.control.get(PAGER_FREE);
    assert.ok(busy > 0);
    left.device.setMemTable([]);
    right.device.setMemTable([]);
    assert.equal(bench.control.get(PAGER_FREE), SLOTS);
    assert.deepEqual(mappings('memfd:sparse'), []);
  });

  it('a new table under traffic: the same frames go on', () => {
    const { left, right, streams } = pair({ size: 3 * GIB }, { size: 3 * GIB });
    for (let i = 1; i <= 20; i++) {
      for (const stream of streams) stream.post();
      streams[0]!.send(2);
      left.device.setMemTable(left.guest.regions());
      right.device.setMemTable(right.guest.regions());
      run(streams, i * 30);
    }
    const { rx_paging = 0, ...others } = drops();
    assert.deepEqual(others, {});
    assert.equal(streams[0]!.received + streams[1]!.received + rx_paging, sum(streams));
  });

  it('a hundred tables leave no page table behind', () => {
    const { device, guest } = join({ size: 3 * GIB });
    const table = () => bench.control.get(REGION_BASE + REGION_TABLE);
    const first = table();
    assert.ok(first >= TABLES_BASE);
    for (let i = 0; i < 100; i++) {
      device.setMemTable(guest.regions());
      assert.equal(table(), first);
    }
  });

  it('regions one by one: what is left goes on, what is gone drops by name', () => {
    const { left, streams } = pair({ size: 3 * GIB }, { size: 2 * GIB });
    run(streams, 100);
    const [low, high] = left.guest.regions() as [MemoryRegionFd, MemoryRegionFd];
    close(low.fd);
    left.device.addMemRegion(high);
    const { fd: _, ...region } = high;
    left.device.removeMemRegion(region);
    const sent = sum(streams);
    const received = streams[0]!.received + streams[1]!.received;
    for (let i = 0; i < 20; i++) {
      for (const stream of streams) stream.post();
      for (const stream of streams) stream.send(4);
      bench.settle();
      for (const stream of streams) stream.collect();
    }
    const { tx_bad_address = 0, rx_bad_chain = 0, rx_paging = 0, ...others } = drops();
    assert.deepEqual(others, {});
    assert.ok(tx_bad_address > 10, `${tx_bad_address} dropped`);
    assert.equal(
      streams[0]!.received + streams[1]!.received + tx_bad_address + rx_bad_chain + rx_paging,
      sum(streams),
    );
    assert.ok(streams[0]!.received + streams[1]!.received > received && sum(streams) > sent);
  });
});

function sum(streams: Stream[]): number {
  return streams.reduce((total, { sent }) => total + sent, 0);
}
