// What a hostile guest must not reach, watched while the datapath works: canary pages below, above and
// in the gaps of all that guests share, the control area but for what a burst may change there, and
// the memory of the other guests but for their used rings and the buffers delivered to.
//
// Whatever runs the datapath on `rig` is compared with what stood there before. What nobody has a
// reason to touch is looked at once a case, when the next world is made or the test ends.

import assert from 'node:assert/strict';
import { after, afterEach } from 'node:test';
import {
  FDB_AGES,
  FDB_KEYS,
  HEAP_BASE,
  MAX_REGIONS,
  PAGE,
  PAGER_CLOCK,
  PAGER_LOCK,
  PAGER_WANTED,
  PORT_BASE,
  PORT_STRIDE,
  REGION_BASE,
  REGION_STRIDE,
  RING_ARMED,
  RING_BACKOFF,
  RING_BROKEN,
  RING_DROPS,
  RING_EMPTY,
  RING_ENOUGH,
  RING_FRAMES,
  RING_LAST_AVAIL,
  RING_LAST_BURST,
  RING_LOCK,
  RING_NEXT,
  RING_REASON,
  RING_RETRY,
  RING_SIGNALLED,
  RING_SINCE,
  RING_STATE,
  RING_STRIDE,
  RING_TO_PAGED,
  RING_USED_IDX,
  RINGS_PER_PORT,
  SCRATCH_BASE,
  SCRATCH_STRIDE,
  SLOT_STAMPS,
  SWITCH_FDB_COUNT,
  SWITCH_FDB_MOVES,
  WORKER_ACK,
  WORKER_BASE,
  WORKER_CURRENT,
  WORKER_LOCKED,
  WORKER_PAGING_NS,
  WORKER_POLLS,
  WORKER_ROUND,
} from '../../src/abi/layout.ts';
import { ringAddress } from '../../src/memory/control.ts';
import type { TestQueue } from '../datapath/queue.ts';
import { gpaOf, Rig, type TestPort, type TestRegion } from '../datapath/rig.ts';

type Range = [at: number, length: number];

const CANARY_BYTE = 0xca;
const CANARIES = Buffer.alloc(PAGE, CANARY_BYTE);
const ZEROES = Buffer.alloc(0x10_0000);
const REGIONS_OF_PORT = MAX_REGIONS * REGION_STRIDE;

/** Fields outside of rings that a burst may change. */
const HOST_FIELDS: Range[] = [
  [SWITCH_FDB_COUNT, 4],
  [SWITCH_FDB_MOVES, 4],
  [WORKER_BASE + WORKER_ACK, 4],
  [WORKER_BASE + WORKER_LOCKED, 4],
  [WORKER_BASE + WORKER_CURRENT, 4],
  [WORKER_BASE + WORKER_ROUND, 4],
  [WORKER_BASE + WORKER_POLLS, WORKER_PAGING_NS - WORKER_POLLS],
  // Of paged guests: lists of slots, and the clock.
  [PAGER_LOCK, PAGER_WANTED + 4 - PAGER_LOCK],
  [PAGER_CLOCK, 4],
];

/** Fields of a ring that its owner may change: positions, notification, counters. */
const RING_FIELDS: Range[] = [
  [RING_LAST_AVAIL, 4],
  [RING_USED_IDX, 4],
  [RING_NEXT, 4],
  [RING_SIGNALLED, 4],
  [RING_ARMED, 4],
  [RING_EMPTY, 4],
  [RING_TO_PAGED, 4],
  [RING_LAST_BURST, 4],
  [RING_SINCE, 4],
  [RING_ENOUGH, 4],
  [RING_RETRY, 4],
  [RING_BACKOFF, 4],
  [RING_FRAMES, RING_DROPS - RING_FRAMES],
  [RING_DROPS, RING_STRIDE - RING_DROPS],
];

interface Image {
  at: number;
  bytes: Buffer;
  what: string;
}

/** The datapath on a bench, watched. */
export const rig = new Rig({ margin: PAGE, watch });

/** Ports whose guests are hostile: their own memory is theirs, their rings may get latched. */
let hostile: readonly number[] = [];
let watching = false;
let cases = 0;

/** An empty switch, once the last one was found untouched; ports of these indices will be hostile. */
export function fresh(...bad: number[]): void {
  finish();
  rig.clear();
  hostile = bad;
}

/**
 * A port whose guest shares two regions, its arena and one page, a page that it does not share
 * between them; and `more`, which lie at least two pages behind the arena.
 */
export function guarded(
  features?: bigint,
  arena = 0x20_0000,
  more: readonly TestRegion[] = [],
): TestPort {
  const gpa = gpaOf(rig.ports.length);
  return rig.port({
    ...(features === undefined ? {} : { features }),
    arena,
    regions: [
      { gpa, size: arena, at: 0 },
      { gpa: gpa + BigInt(arena + PAGE), size: PAGE, at: arena + PAGE },
      ...more,
    ],
  });
}

/** Publishes what was added to a queue, with a kick if the device wants one. */
export function kick(queue: TestQueue): void {
  if (queue.publish()) rig.datapath.activate(queue.index);
}

afterEach(finish);
after(() => {
  assert.ok(cases > 0, 'nothing was watched');
  checkZero(SCRATCH_BASE + SCRATCH_STRIDE, HEAP_BASE, "other workers' scratch");
});

function bufferAt(at: number, length: number): Buffer {
  return Buffer.from(rig.bytes.buffer, at, length);
}

// --- while the datapath works ---------------------------------------------------------------------

/** Runs what lets the datapath work, and compares. */
export function watch<T>(work: () => T): T {
  // settle() is watched as one.
  if (watching || rig.ports.length === 0) return work();
  watching = true;
  try {
    for (const [at, length] of gaps()) rig.bytes.fill(CANARY_BYTE, at, at + length);
    const before = images();
    const states = ringStates();
    const allowed = changeable();
    const result = work();
    for (const image of before) compare(image, allowed);
    checkStates(states);
    checkCanaries();
    cases++;
    return result;
  } finally {
    watching = false;
  }
}

/** All that is compared before and after. */
function images(): Image[] {
  const found: Image[] = [];
  const take = (what: string, at: number, length: number) =>
    found.push({ what, at, bytes: Buffer.from(bufferAt(at, length)) });
  const { length } = rig.ports;
  take('switch and workers', PAGE, PORT_BASE - PAGE);
  take('ports', PORT_BASE, length * PORT_STRIDE);
  take('region tables', REGION_BASE, length * REGIONS_OF_PORT);
  take('rings', ringAddress(0), length * RINGS_PER_PORT * RING_STRIDE);
  for (const port of rig.ports) {
    if (hostile.includes(port.index)) continue;
    take(`memory of port ${port.index}`, port.base, port.top - port.base);
  }
  return found;
}

function changeable(): Range[] {
  const found = [...HOST_FIELDS];
  for (const port of rig.ports) {
    for (const queue of port.queues) {
      if (queue === undefined) continue;
      const block = ringAddress(queue.index);
      for (const [field, length] of RING_FIELDS) found.push([block + field, length]);
      // Judged by checkStates.
      found.push([block + RING_STATE, 4], [block + RING_REASON, 4]);
      if (!hostile.includes(port.index)) found.push(...queue.written, ...queue.buffers());
    }
  }
  return found;
}

function compare({ what, at, bytes }: Image, allowed: Range[]): void {
  const end = at + bytes.length;
  for (const [from, length] of allowed) {
    const to = Math.min(from + length, end);
    if (from < at || from >= end) continue;
    bytes.set(rig.bytes.subarray(from, to), from - at);
  }
  const now = bufferAt(at, bytes.length);
  if (now.equals(bytes)) return;
  const where = now.findIndex((byte, i) => byte !== bytes[i]);
  assert.fail(`${what}: byte 0x${(at + where).toString(16)} (+${where}) was written`);
}

function ringStates(): Map<number, number> {
  const states = new Map<number, number>();
  for (const port of rig.ports) {
    for (const queue of port.queues) {
      if (queue !== undefined) states.set(queue.index, queue.get(RING_STATE));
    }
  }
  return states;
}

/** Only a hostile guest's ring may be latched, and no lock is left behind. */
function checkStates(before: Map<number, number>): void {
  for (const port of rig.ports) {
    for (const queue of port.queues) {
      if (queue === undefined) continue;
      assert.equal(queue.get(RING_LOCK), 0, `ring ${queue.index} is still locked`);
      const state = queue.get(RING_STATE);
      if (state === before.get(queue.index)) continue;
      const latched = hostile.includes(port.index) && state === RING_BROKEN;
      assert.ok(latched, `ring ${queue.index} went to state ${state}`);
    }
  }
}

/** What lies between guests' regions, and below and above them. */
function gaps(): Range[] {
  const found: Range[] = [];
  for (const { base, arena, regions } of rig.ports) {
    const shared = regions.map(({ at, size }) => [base + at, base + at + size] as const);
    shared.sort(([a], [b]) => a - b);
    let from = base - PAGE;
    for (const [start, end] of shared) {
      found.push([from, start - from]);
      from = end;
    }
    const top = Math.max(base + arena, from);
    found.push([from, top + PAGE - from]);
  }
  return found;
}

function checkCanaries(): void {
  for (const [at, length] of gaps()) {
    for (let from = at; from < at + length; from += PAGE) {
      const part = Math.min(PAGE, at + length - from);
      const page = bufferAt(from, part);
      if (page.equals(CANARIES.subarray(0, part))) continue;
      const where = page.findIndex((byte) => byte !== CANARY_BYTE);
      assert.fail(`canary page: byte 0x${(from + where).toString(16)} was written`);
    }
  }
}

// --- once a case ----------------------------------------------------------------------------------

function finish(): void {
  const { length } = rig.ports;
  if (length === 0) return;
  checkZero(PORT_BASE + length * PORT_STRIDE, REGION_BASE, 'ports that are not there');
  checkZero(REGION_BASE + length * REGIONS_OF_PORT, SLOT_STAMPS, 'region tables of no port');
  checkZero(ringAddress(length * RINGS_PER_PORT), FDB_KEYS, 'rings of no port, flow tables');
  checkFdb();
  for (const port of rig.ports) {
    if (hostile.includes(port.index)) continue;
    const what = `memory of port ${port.index} never posted`;
    checkZero(port.top, port.base + port.arena, what);
    checkZero(port.base + port.arena + PAGE, port.base + port.arena + 2 * PAGE, what);
  }
}

function checkZero(from: number, to: number, what: string): void {
  for (let at = from; at < to; at += ZEROES.length) {
    const part = bufferAt(at, Math.min(ZEROES.length, to - at));
    if (part.equals(ZEROES.subarray(0, part.length))) continue;
    const where = part.findIndex((byte) => byte !== 0);
    assert.fail(`${what}: byte 0x${(at + where).toString(16)} was written`);
  }
}

/** Addresses are learned on ports that are there, and nothing else is in the table. */
function checkFdb(): void {
  const keys = new Uint32Array(rig.bytes.buffer, FDB_KEYS, (FDB_AGES - FDB_KEYS) / 4);
  const ages = new Uint32Array(rig.bytes.buffer, FDB_AGES, (SCRATCH_BASE - FDB_AGES) / 4);
  for (let i = 0; i < keys.length; i += 2) {
    const high = keys[i + 1]!;
    if (keys[i] === 0 && high === 0) {
      if (ages[i / 2] !== 0) assert.fail(`FDB: age of no entry ${i / 2}`);
      continue;
    }
    const port = (high >>> 16) - 1;
    if (port < 0 || port >= rig.ports.length) assert.fail(`FDB: an entry of port ${port}`);
  }
}
