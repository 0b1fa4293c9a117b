// A RARP for a guest that has just arrived and does not announce itself (vhost-user SEND_RARP): a broadcast
// from its address, which tells every switch that hears it where the guest is now.
//
// Main notes the address in the port's block; the worker that polls the port's first pair makes the
// frame, so that rings have no writer but workers.

import {
  PORT_RARP,
  PORT_STATE,
  PORT_UP,
  SCRATCH_HEADERS,
  SWITCH_PORTS,
  SWITCH_WORKERS,
} from '../abi/layout';
import { originate } from './forward';
import { ETH, frameAt, HDR, KEPT } from './frame';
import { place } from './gather';
import { portAt, scratch, workerId } from './layout';

/** Without FCS. */
const MIN_ETHERNET: u32 = 60;

/** Whether a port whose first pair is this worker's has a RARP due. */
export function rarpDue(port: u32): bool {
  return port % load<u32>(SWITCH_WORKERS) == workerId && load<u64>(portAt(port), PORT_RARP) != 0;
}

/** Sends what is due; a port that is not up yet keeps its own. */
export function sendRarps(): void {
  const ports = load<u32>(SWITCH_PORTS);
  for (let port: u32 = 0; port < ports; port++) {
    if (!rarpDue(port) || load<u32>(portAt(port), PORT_STATE) != PORT_UP) continue;
    const due = atomic.xchg<u64>(portAt(port) + PORT_RARP, 0);
    makeRarp(due & 0xffff_ffff_ffff);
    originate(port);
  }
}

/** RFC 903: a reply (3) in which sender and target are both `mac`. Record 0. */
function makeRarp(mac: u64): void {
  const at = scratch + SCRATCH_HEADERS;
  memory.fill(at, 0, MIN_ETHERNET);
  store<u64>(at, 0xffff_ffff_ffff | (mac << 48));
  store<u32>(at, <u32>(mac >> 16), 8);
  store<u16>(at, bswap<u16>(0x8035), 12);
  store<u16>(at, bswap<u16>(1), 14); // Ethernet
  store<u16>(at, bswap<u16>(0x0800), 16); // IPv4
  store<u16>(at, 0x0406, 18); // bytes of their addresses: 6, 4
  store<u16>(at, bswap<u16>(3), 20);
  setMac(at + 22, mac);
  setMac(at + 32, mac);
  const frame = frameAt(0);
  v128.store(frame, i64x2.splat(0), HDR);
  v128.store(frame, v128.load(at), ETH);
  place(frame, at, MIN_ETHERNET - KEPT);
}

function setMac(at: u32, mac: u64): void {
  store<u32>(at, <u32>mac);
  store<u16>(at, <u16>(mac >> 32), 4);
}
