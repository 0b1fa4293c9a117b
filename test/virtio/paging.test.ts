// Guests larger than the window, on a window of a few slots: buffers on many more pages than there
// are slots, one worker polled by hand.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, it } from 'node:test';
import {
  PAGER_FREE,
  PAGER_LIMBO,
  PAGER_REGIONS,
  PAGER_SLOTS,
  RING_DROPS,
  WORKER_BASE,
  WORKER_EVICTIONS,
  WORKER_PAGES_IN,
} from '../../src/abi/layout.ts';
import { close, eventfd } from '../../src/linux/index.ts';
import { DROP_NAMES } from '../../src/observe/drops.ts';
import type { MemoryRegionFd } from '../../src/vhost-user/backend.ts';
import type { NetDevice } from '../../src/virtio/device.ts';
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
