// A worker's rounds: which TX rings it polls, when it asks for kicks instead, and its epoch.
//
// A ring is active (polled every round) or armed (its driver is asked to kick, epoll wakes us).
// Rings that stay empty are armed one by one, so idle ports cost nothing while others are busy.
//
// Quiesce: main changes what it likes in stopped rings and ports, bumps WORKER_GENERATION, and
// waits until WORKER_ACK follows or the worker is parked. Between two polls a worker keeps no
// reference to any ring, port or region; it rebuilds its list here before it touches one.

import {
  BROKEN_TRAP,
  MAX_LANES,
  MAX_PAIRS,
  MAX_RINGS,
  NO_RING,
  PAGER_REGIONS,
  PORT_ABSENT,
  PORT_LANE_COUNT,
  PORT_LANES,
  PORT_RINGS,
  PORT_STATE,
  RING_ARMED,
  RING_DISCARD,
  RING_EMPTY,
  RING_FLAGS,
  RING_LOCK,
  RING_PORT,
  RING_REASON,
  RING_RUNNING,
  RING_STATE,
  RING_WORKER,
  RINGF_POLLED,
  SCRATCH_ACTIVE,
  SCRATCH_LANES,
  SWITCH_PORTS,
  SWITCH_WORKERS,
  WORKER_ACK,
  WORKER_CURRENT,
  WORKER_FRAMES,
  WORKER_GENERATION,
  WORKER_LOCKED,
  WORKER_POLLS,
} from '../abi/layout';
import { LANE_ARMED, LANE_BROKEN, LANE_EMPTY, LANE_SIZE } from '../abi/netmap';
import { pollRing } from './forward';
import { laneArm, laneDisarm, laneFail, laneRun } from './lane';
import { latch } from './latch';
import { count, indexOf, portAt, ringAt, ringIndex, scratch, worker, workerId } from './layout';
import { isLeft } from './patience';
import { rarpDue, sendRarps } from './rarp';
import { arm, disarm } from './ring';
import { beginRound, slotsShort } from './slots';
import { nextRound, owes, skipRounds } from './work';

/** Polls in vain before a ring is armed while the worker stays busy with others. */
const PARK_AFTER: u32 = 256;

let active: u32 = 0;
/** Some port's guest has to be announced (rarp.ts). */
let rarps: bool = false;
/** Where the next round begins: of a port that may not have all its rings polled, all have their turn. */
let turn: u32 = 0;

function activeAt(i: u32): u32 {
  return scratch + SCRATCH_ACTIVE + i * 4;
}

function pollable(ring: u32): bool {
  // Acquired: a ring that main starts in the middle of a round shows all of its set-up with it.
  const state = atomic.load<u32>(ring + RING_STATE);
  return (
    (state == RING_RUNNING || state == RING_DISCARD) && load<u32>(ring, RING_WORKER) == workerId
  );
}

function add(ring: u32): void {
  store<u32>(worker, indexOf(ring), WORKER_CURRENT);
  disarm(ring);
  store<u32>(ring, 0, RING_EMPTY);
  store<u32>(activeAt(active), ring);
  active++;
}

// --- lanes: polled as long as they move something, then armed, as rings are -----------------------

let lanes: u32 = 0;
/** The one being run; 0 between. */
let running: u32 = 0;

function laneAt(i: u32): u32 {
  return load<u32>(scratch + SCRATCH_LANES + i * 4);
}

/** Those of `port` that are this worker's, spread as its rings are (virtio/device.ts). */
function addLanes(port: u32): void {
  const first = load<u32>(portAt(port), PORT_LANES);
  if (first == 0) return;
  const count = load<u32>(portAt(port), PORT_LANE_COUNT);
  for (let pair: u32 = 0; pair < count; pair++) {
    if ((port + pair) % load<u32>(SWITCH_WORKERS) != workerId) continue;
    const lane = first + pair * LANE_SIZE;
    store<u32>(scratch + SCRATCH_LANES + lanes * 4, lane);
    lanes++;
    laneDisarm(lane);
  }
}

function runLanes(): u32 {
  let moved: u32 = 0;
  for (let i: u32 = 0; i < lanes; i++) {
    const lane = laneAt(i);
    if (load<u32>(lane, LANE_ARMED) != 0 || load<u32>(lane, LANE_BROKEN) != 0) continue;
    running = lane;
    moved += laneRun(lane);
    running = 0;
    if (load<u32>(lane, LANE_EMPTY) >= PARK_AFTER) laneArm(lane);
  }
  return moved;
}

/** How many have something to move, the others armed. */
function armLanes(): u32 {
  let busy: u32 = 0;
  for (let i: u32 = 0; i < lanes; i++) {
    if (load<u32>(laneAt(i), LANE_ARMED) == 0 && !laneArm(laneAt(i))) busy++;
  }
  return busy;
}

function activateLane(number: u32): void {
  const port = number / MAX_PAIRS;
  const pair = number % MAX_PAIRS;
  const first = load<u32>(portAt(port), PORT_LANES);
  if (first != 0 && pair < load<u32>(portAt(port), PORT_LANE_COUNT)) {
    laneDisarm(first + pair * LANE_SIZE);
  }
}

function rebuild(): void {
  active = 0;
  lanes = 0;
  rarps = false;
  const ports = load<u32>(SWITCH_PORTS);
  for (let port: u32 = 0; port < ports; port++) {
    if (load<u32>(portAt(port), PORT_STATE) == PORT_ABSENT) continue;
    addLanes(port);
    if (rarpDue(port)) rarps = true;
    const rings = load<u32>(portAt(port), PORT_RINGS);
    for (let queue: u32 = 1; queue < rings; queue += 2) {
      const ring = ringAt(ringIndex(port, queue));
      if (pollable(ring)) add(ring);
    }
  }
}

/** Takes note of what main changed since the last round. */
function follow(): void {
  const generation = atomic.load<u32>(worker + WORKER_GENERATION);
  if (generation == load<u32>(worker, WORKER_ACK)) return;
  // Acknowledge first: from here on only what stands in memory now is used.
  atomic.store<u32>(worker + WORKER_ACK, generation);
  rebuild();
}

/** One round over the active rings; returns the frames moved. */
export function poll(): u32 {
  follow();
  const paging = load<u32>(PAGER_REGIONS) != 0;
  if (rarps) {
    rarps = false;
    if (paging) beginRound();
    sendRarps();
  }
  let moved = visit(paging);
  if (moved == 0 && shortestWait > 0) {
    skipRounds(shortestWait - 1);
    moved = visit(paging);
  }
  count(worker + WORKER_POLLS, 1);
  if (moved > 0) count(worker + WORKER_FRAMES, moved);
  store<u32>(worker, NO_RING, WORKER_CURRENT);
  return moved;
}

/** Rounds until the next of those ports has its turn that the last visit passed over; 0: it did none. */
let shortestWait: u32 = 0;

/** Polls each active ring whose port owes nothing. */
function visit(paging: bool): u32 {
  nextRound();
  if (paging) beginRound();
  let moved: u32 = lanes > 0 ? runLanes() : 0;
  let shortest: u32 = u32.MAX_VALUE;
  turn++;
  let i = turn;
  for (let left = active; left > 0; left--) {
    if (i >= active) i = 0;
    // Between two rings no page is in use either: each has the slots it needs, not only the first.
    if (paging && left < active && slotsShort()) beginRound();
    const ring = load<u32>(activeAt(i));
    const wait = owes(load<u32>(ring, RING_PORT));
    if (wait > 0 && pollable(ring)) {
      shortest = min(shortest, wait);
      i++;
      continue;
    }
    // A trap leaves the round before its ring is off the list: it must not be polled again.
    const n = pollable(ring) ? pollRing(ring) : 0;
    moved += n;
    if (n == 0 && idle(ring, PARK_AFTER)) {
      active--;
      store<u32>(activeAt(i), load<u32>(activeAt(active)));
    } else {
      i++;
    }
  }
  if (turn >= active) turn = 0;
  shortestWait = shortest == u32.MAX_VALUE ? 0 : shortest;
  return moved;
}

/** Whether the ring leaves the active list: stopped, or empty for long and armed. */
function idle(ring: u32, patience: u32): bool {
  if (!pollable(ring)) return true;
  if (load<u32>(ring, RING_EMPTY) < patience || isLeft(ring)) return false;
  store<u32>(worker, indexOf(ring), WORKER_CURRENT);
  return !(load<u32>(ring, RING_FLAGS) & RINGF_POLLED) && arm(ring);
}

/** Arms every active ring; returns how many stay active because they have work or may not sleep. */
export function armAll(): u32 {
  follow();
  for (let i: u32 = 0; i < active; ) {
    if (idle(load<u32>(activeAt(i)), 0)) {
      active--;
      store<u32>(activeAt(i), load<u32>(activeAt(active)));
    } else {
      i++;
    }
  }
  return active + armLanes() + (rarps ? 1 : 0);
}

/** How many rings are polled. */
export function activeRings(): u32 {
  return active;
}

/** A kick arrived for ring `index`, or for lane `index` - MAX_RINGS: poll it from now on. Returns how many are polled. */
export function activate(index: u32): u32 {
  follow();
  if (index >= <u32>MAX_RINGS) {
    if (index < <u32>(MAX_RINGS + MAX_LANES)) activateLane(index - MAX_RINGS);
    return active;
  }
  const ring = ringAt(index);
  if (pollable(ring) && load<u32>(ring, RING_ARMED) != 0) add(ring);
  return active;
}

/**
 * After a trap: gives the lock back, latches the ring that was being worked on, and has the active
 * list rebuilt, whichever part of it the trap cut short.
 */
export function recover(): void {
  const locked = load<u32>(worker, WORKER_LOCKED);
  if (locked != NO_RING) {
    store<u32>(worker, NO_RING, WORKER_LOCKED);
    atomic.store<u32>(ringAt(locked) + RING_LOCK, 0);
  }
  if (running != 0) {
    laneFail(running);
    running = 0;
  }
  const current = load<u32>(worker, WORKER_CURRENT);
  if (current != NO_RING) {
    store<u32>(worker, NO_RING, WORKER_CURRENT);
    store<u32>(ringAt(current), 0, RING_REASON);
    latch(ringAt(current), BROKEN_TRAP);
  }
  atomic.store<u32>(worker + WORKER_ACK, load<u32>(worker, WORKER_GENERATION) - 1);
}
