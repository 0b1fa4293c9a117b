// Netmap rings: syncs, whatever is behind the ring. abi/netmap.ts has the layout.
//
//   TX   ... done ...|hwtail| in flight ... |hwcur| filled ... |head| free ... |tail = hwtail|
//   RX   ... posted ...| stage, hwtail = tail | ... posted ... |hwcur| given back |head| held ... |tail|
//
// One slot always stays with the sync, so that full and empty differ. A frame of several slots
// (NS_MOREFRAG) moves whole or not at all.

import {
  KIND_PIPE,
  KIND_QUEUE,
  KR_ARMED,
  KR_DRV,
  KR_FLAGS,
  KR_HWCUR,
  KR_HWTAIL,
  KR_KIND,
  KR_RING,
  KR_SLOTS,
  KR_STAGE,
  KR_STATE,
  KR_SYNCS,
  KRE_NONE,
  KRF_RX,
  NMR_CUR,
  NMR_HEAD,
  NMR_TAIL,
  SYNC_DEVICE,
  SYNC_RING,
} from '../abi/netmap';
import { drvArm, drvDisarm } from './driver';
import { count } from './layout';
import { armPipe, rxPipe, txPipe } from './netmap-pipe';
import { rxQueue, txQueue } from './netmap-queue';
import { after, distance } from './netmap-slots';
import { rxTap, txTap } from './netmap-tap';

/** Whether the application put head and cur where it may: head in [hwcur, tail], cur in [head, tail]. */
function wellPlaced(kr: u32): bool {
  const ring = load<u32>(kr, KR_RING);
  const slots = load<u32>(kr, KR_SLOTS);
  const head = load<u32>(ring, NMR_HEAD);
  const cur = load<u32>(ring, NMR_CUR);
  const tail = load<u32>(ring, NMR_TAIL);
  if (head >= slots || cur >= slots || tail >= slots) return false;
  const hwcur = load<u32>(kr, KR_HWCUR);
  return (
    distance(hwcur, head, slots) <= distance(hwcur, tail, slots) &&
    distance(head, cur, slots) <= distance(head, tail, slots)
  );
}

function space(kr: u32): i32 {
  const ring = load<u32>(kr, KR_RING);
  return distance(load<u32>(ring, NMR_HEAD), load<u32>(ring, NMR_TAIL), load<u32>(kr, KR_SLOTS));
}

/**
 * TXSYNC: hands the slots before head over, takes back what was sent. Returns how many slots the
 * application owns then, or SYNC_*.
 */
export function nmTxSync(kr: u32): i32 {
  if (load<u32>(kr, KR_STATE) != KRE_NONE) return SYNC_DEVICE;
  if (!wellPlaced(kr)) return SYNC_RING;
  count(kr + KR_SYNCS, 1);
  const kind = load<u32>(kr, KR_KIND);
  if (kind == KIND_QUEUE) txQueue(kr);
  else if (kind == KIND_PIPE) txPipe(kr);
  else txTap(kr);
  store<u32>(load<u32>(kr, KR_RING), load<u32>(kr, KR_HWTAIL), NMR_TAIL);
  return load<u32>(kr, KR_STATE) == KRE_NONE ? space(kr) : SYNC_DEVICE;
}

/** RXSYNC: gives the slots before head back, takes what was received. Returns as nmTxSync does. */
export function nmRxSync(kr: u32): i32 {
  if (load<u32>(kr, KR_STATE) != KRE_NONE) return SYNC_DEVICE;
  if (!wellPlaced(kr)) return SYNC_RING;
  count(kr + KR_SYNCS, 1);
  const kind = load<u32>(kr, KR_KIND);
  let error: i32 = 0;
  if (kind == KIND_QUEUE) error = rxQueue(kr);
  else if (kind == KIND_PIPE) error = rxPipe(kr);
  else error = rxTap(kr);
  // A pipe's writer moves it meanwhile: looked at once.
  const tail = kind == KIND_PIPE ? atomic.load<u32>(kr + KR_HWTAIL) : load<u32>(kr, KR_HWTAIL);
  store<u32>(load<u32>(kr, KR_RING), tail, NMR_TAIL);
  if (load<u32>(kr, KR_STATE) != KRE_NONE) return SYNC_DEVICE;
  return error < 0 ? error : space(kr);
}

/** Slots that the application holds, as of the last sync. */
export function nmHeld(kr: u32): u32 {
  return <u32>space(kr);
}

/** Asks to be woken when the next sync would find something; true when one would now. */
export function nmArm(kr: u32): bool {
  const kind = load<u32>(kr, KR_KIND);
  const sends = (load<u32>(kr, KR_FLAGS) & KRF_RX) == 0;
  if (kind == KIND_PIPE) return armPipe(kr, sends);
  if (kind != KIND_QUEUE) return load<u32>(kr, KR_ARMED) == 0;
  const used = drvArm(load<u32>(kr, KR_DRV));
  // What was received needs a slot.
  return (
    used &&
    (sends || after(load<u32>(kr, KR_STAGE), load<u32>(kr, KR_SLOTS)) != load<u32>(kr, KR_HWCUR))
  );
}

/** No wake-ups, please. */
export function nmDisarm(kr: u32): void {
  const kind = load<u32>(kr, KR_KIND);
  if (kind == KIND_QUEUE) drvDisarm(load<u32>(kr, KR_DRV));
  else if (kind == KIND_PIPE) atomic.store<u32>(kr + KR_ARMED, 0);
}
