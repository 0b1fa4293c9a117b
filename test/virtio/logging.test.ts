// VHOST_F_LOG_ALL, SET_LOG_BASE and VRING_F_LOG as a front end uses them while its guest runs: what is marked is
// what changed in the guest's memory file, and what cannot be logged is refused while nothing is broken yet.

import assert from 'node:assert/strict';
import { readSync, writeSync } from 'node:fs';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE } from '../../src/abi/layout.ts';
import { VRING_F_LOG } from '../../src/abi/vhost-user.ts';
import { F_LOG_ALL } from '../../src/abi/virtio.ts';
import { close, drain, dup, eventfd, memfd } from '../../src/linux/index.ts';
import { Refusal } from '../../src/vhost-user/backend.ts';
import { bit } from '../../src/virtio/features.ts';
import { concat, frame, header, mac } from '../datapath/frames.ts';
import { openFds } from '../linux/fds.ts';
import { DeviceBench, FrontEnd, GPA, GUEST_BYTES, PLAIN } from './bench.ts';

const LOGGED = PLAIN | bit(F_LOG_ALL);
/** A bit for each page up to the end of the guest. */
const LOG_BYTES = (Number(GPA) + GUEST_BYTES) / PAGE / 8;
const FIRST = Number(GPA) / PAGE;
const FILE = LOG_BYTES + 2 * PAGE;

class Log {
  readonly fd = memfd('log', FILE);
  readonly offset: number;

  constructor(offset = 0) {
    this.offset = offset;
  }

  get area() {
    return { size: BigInt(LOG_BYTES), offset: BigInt(this.offset) };
  }

  /**
   * Takes the marks away and says which there were: pages of the guest, but for that in which the receiver's
   * other ring asks for kicks, whenever that is looked at.
   */
  take(): number[] {
    const bytes = Buffer.alloc(FILE);
    readSync(this.fd, bytes, 0, FILE, 0);
    writeSync(this.fd, Buffer.alloc(FILE), 0, FILE, 0);
    const found: number[] = [];
    for (const [i, bits] of bytes.entries()) {
      for (let n = 0; bits >> n !== 0; n++) {
        if ((bits >> n) & 1) found.push((i - this.offset) * 8 + n - FIRST);
      }
    }
    return found.filter((page) => page !== b.at(1).used / PAGE);
  }
}

function memoryOf({ fd }: FrontEnd): Buffer {
  const bytes = Buffer.alloc(GUEST_BYTES);
  readSync(fd, bytes, 0, GUEST_BYTES, 0);
  return bytes;
}

function changed(before: Buffer, now: Buffer): number[] {
  const found: number[] = [];
  for (let page = 0; page < GUEST_BYTES / PAGE; page++) {
    const [from, to] = [page * PAGE, (page + 1) * PAGE];
    if (Buffer.compare(before.subarray(from, to), now.subarray(from, to)) !== 0) found.push(page);
  }
  return found;
}

const bench = new DeviceBench();
const pinned = bench.window.largestPinned();
const a = new FrontEnd(bench, bench.device(1).device);
const { device, events } = bench.device(1);
const b = new FrontEnd(bench, device);
const logs = [new Log(), new Log(PAGE)] as const;
let seed = 1;

after(() => {
  close(a.fd);
  close(b.fd);
  for (const { fd } of logs) close(fd);
});

beforeEach(() => {
  a.open();
  b.open();
  for (const log of logs) log.take();
});

afterEach(() => {
  for (const guest of [a, b]) guest.device.disconnected('the test ends');
  assert.equal(bench.window.largestPinned(), pinned, 'a log is still mapped');
});

function setLog(log: Log, area = log.area): void {
  b.device.setLogBase(area, dup(log.fd));
}

/** Rings 0 and 1 of the receiver are logged where QEMU says that they are: at their own GPA. */
function logRings(on = true): void {
  for (const queue of [0, 1]) {
    const addresses = b.addresses(queue);
    const logGpa = GPA + BigInt(b.at(queue).used);
    b.device.setVringAddr(queue, { ...addresses, flags: on ? VRING_F_LOG : 0, logGpa });
  }
}

/** A frame from a to b; whether it arrived. */
function pass(): boolean {
  const before = b.usedIdx(0);
  b.post(0, 2048, true);
  const bytes = concat(header(), frame({ from: mac(1), to: mac(2), length: 300, seed: seed++ }));
  a.post(1, bytes.length, false, bytes);
  bench.settle();
  return b.usedIdx(0) === ((before + 1) & 0xffff);
}

/** Passes frames and compares memory; returns the pages that changed. */
function passAndDiff(): number[] {
  b.post(0, 2048, true);
  const bytes = concat(header(), frame({ from: mac(1), to: mac(2), length: 300, seed: seed++ }));
  a.post(1, bytes.length, false, bytes);
  const before = memoryOf(b);
  const used = b.usedIdx(0);
  bench.settle();
  assert.equal(b.usedIdx(0), (used + 1) & 0xffff);
  return changed(before, memoryOf(b));
}

describe('dirty logging', () => {
  it('goes on and off under a running guest, and marks what changed', () => {
    assert.ok(pass());
    setLog(logs[0]);
    assert.ok(pass());
    assert.deepEqual(logs[0].take(), []);
    b.device.setFeatures(LOGGED);
    // The ring itself only when its flag says so.
    const buffers = passAndDiff();
    const { used } = b.at(0);
    assert.deepEqual(
      logs[0].take(),
      buffers.filter((page) => page !== used / PAGE),
    );
    logRings();
    logs[0].take();
    for (let i = 0; i < 40; i++) assert.deepEqual(passAndDiff(), logs[0].take());
    logRings(false);
    assert.equal(passAndDiff().length, logs[0].take().length + 1);
    b.device.setFeatures(PLAIN);
    assert.ok(pass());
    assert.deepEqual(logs[0].take(), []);
  });

  it('another log takes over at once, from wherever it is in its file', () => {
    setLog(logs[0]);
    b.device.setFeatures(LOGGED);
    logRings();
    logs[0].take();
    for (let i = 0; i < 6; i++) {
      const [now, before] = i % 2 === 0 ? [logs[1], logs[0]] : logs;
      setLog(now);
      assert.deepEqual(passAndDiff(), now.take());
      assert.deepEqual(before.take(), []);
    }
    // The same again: QEMU 7.2 says so once a pair.
    setLog(logs[0]);
    setLog(logs[0]);
    assert.deepEqual(passAndDiff(), logs[0].take());
  });

  it('rings wait for the log of a start under LOG_ALL, and what starting writes is marked', async () => {
    setLog(logs[0]);
    b.device.setFeatures(LOGGED);
    logRings();
    // As QEMU does when a guest reboots while it migrates: stop, and all of it again, the log last.
    for (const queue of [0, 1]) b.device.getVringBase(queue);
    assert.equal(bench.window.largestPinned(), pinned, 'the log of before is still mapped');
    b.device.setFeatures(LOGGED);
    for (const queue of [0, 1]) {
      b.start(queue, queue === 0 ? b.usedIdx(0) : 0);
      logRings();
    }
    assert.equal(b.device.up, false);
    logs[1].take();
    // Whoever waits for longer says so.
    await sleep(1100);
    assert.match(events.at(-1)!, /its rings wait: .* SET_LOG_BASE/);
    setLog(logs[1]);
    assert.equal(b.device.up, true);
    assert.ok(logs[1].take().includes(b.at(0).used / PAGE));
    assert.deepEqual(passAndDiff(), logs[1].take());
    // Or logging is over before.
    for (const queue of [0, 1]) b.device.getVringBase(queue);
    for (const queue of [0, 1]) b.start(queue, queue === 0 ? b.usedIdx(0) : 0);
    assert.equal(b.device.up, false);
    b.device.setFeatures(PLAIN);
    assert.ok(pass());
  });

  it('what cannot be logged is refused, and all goes on as it was', () => {
    const fds = openFds();
    const refused = (work: () => void, why: RegExp) => {
      const before = bench.window.largestPinned();
      assert.throws(work, (error: Error) => error instanceof Refusal && why.test(error.message));
      assert.equal(bench.window.largestPinned(), before);
      assert.equal(openFds(), fds);
      assert.ok(pass());
    };
    const [log] = logs;
    const { size } = log.area;
    refused(() => b.device.setFeatures(LOGGED), /LOG_ALL .* SET_LOG_BASE has to come first/);
    refused(() => setLog(log, { size: 0n, offset: 0n }), /log is empty/);
    refused(() => setLog(log, { size, offset: (1n << 64n) - 8n }), /wraps around/);
    refused(() => setLog(log, { size: (1n << 64n) - 1n, offset: 8n }), /wraps around/);
    refused(() => setLog(log, { size: 1n << 40n, offset: 0n }), /is more than the/);
    refused(() => setLog(log, { size, offset: BigInt(FILE) }), /ends past its file/);
    refused(
      () => setLog(log, { size: size - 1n, offset: 0n }),
      /ends at GPA 0x803f8000, .* 0x80400000/,
    );
    refused(() => b.device.setLogBase(log.area, eventfd()), /ends past its file of 0 bytes/);

    setLog(log);
    b.device.setFeatures(LOGGED);
    log.take();
    // Memory that the log has no bits for.
    const more = {
      gpa: GPA + BigInt(GUEST_BYTES),
      size: BigInt(GUEST_BYTES),
      uva: 0x1000_0000_0000n,
      mmapOffset: 0n,
    };
    refused(
      () => b.device.addMemRegion({ ...more, fd: dup(b.fd) }),
      /a dirty log of .* ends at GPA/,
    );
    assert.equal(b.device.regions.has(more), false);
    // A ring that would be logged elsewhere.
    const past = { ...b.addresses(0), flags: VRING_F_LOG, logGpa: GPA + BigInt(GUEST_BYTES) };
    refused(
      () => b.device.setVringAddr(0, past),
      /ring 0 would be logged at GPA 0x80400000, past the end/,
    );
    const wraps = { ...past, logGpa: (1n << 64n) - 4n };
    refused(() => b.device.setVringAddr(0, wraps), /past the end/);
    log.take();
    logRings();
    log.take();
    assert.deepEqual(passAndDiff(), log.take());
  });

  it('an eventfd of SET_LOG_FD is signalled while logging is on', async () => {
    const fd = eventfd();
    b.device.setLogFd(dup(fd));
    const signalled = async () => {
      drain(fd);
      await new Promise((done) => setTimeout(done, 150));
      return drain(fd);
    };
    assert.equal(await signalled(), false);
    setLog(logs[0]);
    b.device.setFeatures(LOGGED);
    assert.equal(await signalled(), true);
    b.device.setFeatures(PLAIN);
    assert.equal(await signalled(), false);
    close(fd);
  });
});
