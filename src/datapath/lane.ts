// Lanes: a port of the switch whose other end is a netmap port (a TAP, somebody else's vhost-user back
// end). The switch is the device of an ordinary port; a worker is its driver, and moves each buffer
// on to the other end's ring and back. Nothing is copied here: the buffers change places.

import { BURST, MAX_RINGS, NO_RING, WORKER_CURRENT } from '../abi/layout';
import {
  LANE_ARMED,
  LANE_BROKEN,
  LANE_EMPTY,
  LANE_RX_A,
  LANE_RX_B,
  LANE_TX_A,
  LANE_TX_B,
} from '../abi/netmap';
import { signalLatched } from './host';
import { worker } from './layout';
import { nmArm, nmDisarm, nmHeld, nmRxSync, nmTxSync } from './netmap';
import { nmForward } from './netmap-slots';

/** Moves up to a burst each way; returns the slots moved. */
export function laneRun(lane: u32): u32 {
  store<u32>(worker, NO_RING, WORKER_CURRENT);
  const moved =
    way(lane, load<u32>(lane, LANE_RX_A), load<u32>(lane, LANE_TX_B)) +
    way(lane, load<u32>(lane, LANE_RX_B), load<u32>(lane, LANE_TX_A));
  store<u32>(lane, moved > 0 ? 0 : load<u32>(lane, LANE_EMPTY) + 1, LANE_EMPTY);
  return moved;
}

function way(lane: u32, rx: u32, tx: u32): u32 {
  const held = nmRxSync(rx);
  if (held == 0) return 0;
  if (held < 0) return laneFail(lane);
  let moved = nmForward(rx, tx, BURST, false);
  // Nothing moved: no room, unless something came back meanwhile.
  if (nmTxSync(tx) < 0) return laneFail(lane);
  if (moved == 0) {
    moved = nmForward(rx, tx, BURST, false);
    if (moved > 0 && nmTxSync(tx) < 0) return laneFail(lane);
  }
  // What was moved leaves its ring now: the next frame may be long in coming.
  if (moved > 0 && nmRxSync(rx) < 0) return laneFail(lane);
  return moved;
}

/** It is run no more; main is told. Returns 0. */
export function laneFail(lane: u32): u32 {
  if (load<u32>(lane, LANE_BROKEN) != 0) return 0;
  atomic.store<u32>(lane + LANE_BROKEN, 1);
  signalLatched(MAX_RINGS);
  return 0;
}

/** Asks for a wake-up; false when there is something to move now. */
export function laneArm(lane: u32): bool {
  if (load<u32>(lane, LANE_BROKEN) != 0) return true;
  const pending =
    armWay(load<u32>(lane, LANE_RX_A), load<u32>(lane, LANE_TX_B)) ||
    armWay(load<u32>(lane, LANE_RX_B), load<u32>(lane, LANE_TX_A));
  if (pending) laneDisarm(lane);
  else store<u32>(lane, 1, LANE_ARMED);
  return !pending;
}

/** Frames that wait for room wait for it alone: more of them change nothing. */
function armWay(rx: u32, tx: u32): bool {
  return nmHeld(rx) > 0 ? nmArm(tx) : nmArm(rx);
}

export function laneDisarm(lane: u32): void {
  store<u32>(lane, 0, LANE_ARMED);
  store<u32>(lane, 0, LANE_EMPTY);
  nmDisarm(load<u32>(lane, LANE_RX_A));
  nmDisarm(load<u32>(lane, LANE_TX_A));
  nmDisarm(load<u32>(lane, LANE_RX_B));
  nmDisarm(load<u32>(lane, LANE_TX_B));
}
