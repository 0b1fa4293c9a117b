// Which queue pair of a multiqueue port a frame goes to.
//
// A flow returns on the pair it was sent from (virtio 1.2 §5.1.6.5.5, automatic receive steering):
// each port has a table, indexed by a hash that is the same for both directions, of the pair that
// last transmitted it. A flow never heard goes by the hash over the enabled pairs.

import { FLOW_BASE, FLOW_ENTRIES, PORT_RX_LIST, SCRATCH_OUT } from '../abi/layout';
import { openRead, readInto } from './cursor';
import { ADDR, ETH, KEPT, LEN, PARTS, REST } from './frame';
import { portAt, scratch } from './layout';

function mix(x: u32): u32 {
  x ^= x >> 16;
  x *= 0x7feb_352d;
  x ^= x >> 15;
  x *= 0x846c_a68b;
  return x ^ (x >> 16);
}

/**
 * Address of the `n` bytes behind those in the record, from the third byte of the IP header on; 0
 * when the frame is too short. Read only to spread load: they may change under us, and then this
 * frame goes to another ring of the same guest.
 */
function behind(frame: u32, n: u32): u32 {
  if (load<u32>(frame, LEN) < KEPT + n) return 0;
  if (load<u32>(frame, REST) >= n) return load<u32>(frame, ADDR);
  // Headers in pieces: a flow has one hash however its frames are cut.
  const whole = scratch + SCRATCH_OUT;
  openRead(load<u32>(frame, PARTS));
  readInto(whole, n);
  return whole;
}

/** Hash of the frame's flow, equal in both directions: ports and addresses if TCP or UDP. */
export function flowHash(frame: u32): u32 {
  const type = bswap<u16>(load<u16>(frame + ETH, 12));
  if (type == 0x0800) {
    const ip = behind(frame, 22);
    if (ip == 0) return addressHash(frame);
    let key = load<u32>(ip, 10) ^ load<u32>(ip, 14);
    const proto = <u32>load<u8>(ip, 7);
    const fragment = bswap<u16>(load<u16>(ip, 4)) & 0x3fff;
    const options = (<u32>load<u8>(frame + ETH, 14) & 15) != 5;
    if (fragment == 0 && !options && (proto == 6 || proto == 17)) {
      key += (<u32>load<u16>(ip, 18) ^ <u32>load<u16>(ip, 20)) * 0x9e37_79b1;
    }
    return mix(key);
  }
  if (type == 0x86dd) {
    const ip = behind(frame, 42);
    if (ip == 0) return addressHash(frame);
    let key: u32 = 0;
    for (let i: u32 = 6; i < 38; i += 4) key ^= load<u32>(ip + i);
    const proto = <u32>load<u8>(ip, 4);
    if (proto == 6 || proto == 17) {
      key += (<u32>load<u16>(ip, 38) ^ <u32>load<u16>(ip, 40)) * 0x9e37_79b1;
    }
    return mix(key);
  }
  return addressHash(frame);
}

/** Of both Ethernet addresses, folded so that the direction does not matter. */
function addressHash(frame: u32): u32 {
  const macs = load<u32>(frame + ETH) ^ load<u32>(frame + ETH, 6);
  return mix(macs ^ <u32>(load<u16>(frame + ETH, 4) ^ load<u16>(frame + ETH, 10)));
}

/** Remembers that this flow transmitted on `pair` of `port`. */
export function heard(port: u32, pair: u32, hash: u32): void {
  const entry = FLOW_BASE + port * FLOW_ENTRIES + (hash & (FLOW_ENTRIES - 1));
  if (load<u8>(entry) != <u8>(pair + 1)) store<u8>(entry, <u8>(pair + 1));
}

/**
 * The pair of `port` that takes this flow, of the `pairs` enabled: more than 0, read once a burst
 * by the caller, for main may take it back to 0 at any time.
 */
export function steer(port: u32, hash: u32, pairs: u32): u32 {
  const at = portAt(port);
  const entry = <u32>load<u8>(FLOW_BASE + port * FLOW_ENTRIES + (hash & (FLOW_ENTRIES - 1)));
  if (entry != 0) {
    for (let i: u32 = 0; i < pairs; i++) {
      if (<u32>load<u8>(at + PORT_RX_LIST + i) == entry - 1) return entry - 1;
    }
  }
  return <u32>load<u8>(at + PORT_RX_LIST + (hash % pairs));
}
