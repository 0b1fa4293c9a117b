// One frame of a burst, in the worker's scratch: 64 B, private, so what is checked is what is sent.
//
//    0 HDR    12 B  the virtio-net header as the guest wrote it, zero padded to 12
//   16 ETH    16 B  the first 16 bytes of the frame (zero padded): addresses and type
//   32 ADDR   u32   when there is one segment: {ADDR, REST} is that segment
//   36 REST   u32
//   40 COUNT  u32   segments of what follows the first 16 bytes
//   44 PARTS  u32   where they are: {linear u32, len u32} each
//   48 LEN    u32   Ethernet frame length, no virtio header, no FCS
//   52 DEST   u32   port, or DEST_FLOOD, or DEST_DROP
//   56 HASH   u32   flow hash; with DEST_DROP the reason

import { BURST, SCRATCH_ALL, SCRATCH_FRAMES } from '../abi/layout';
import { scratch } from './layout';

export const FRAME_SIZE: u32 = 64;
export const HDR: u32 = 0;
export const ETH: u32 = 16;
export const ADDR: u32 = 32;
export const REST: u32 = 36;
export const COUNT: u32 = 40;
export const PARTS: u32 = 44;
export const LEN: u32 = 48;
export const DEST: u32 = 52;
export const HASH: u32 = 56;

export const DEST_FLOOD: u32 = 0xffff_fffe;
export const DEST_DROP: u32 = 0xffff_ffff;

/** Bytes of the frame kept in the record. */
export const KEPT: u32 = 16;

export function frameAt(i: u32): u32 {
  return scratch + SCRATCH_FRAMES + i * FRAME_SIZE;
}

/** Lists the records of all frames: what most bursts go to one ring with. */
export function listFrames(): void {
  for (let i: u32 = 0; i < <u32>BURST; i++) store<u32>(scratch + SCRATCH_ALL + i * 4, frameAt(i));
}

/** Frames of this burst that are dropped. */
export let dropped: u32 = 0;

export function noneDropped(): void {
  dropped = 0;
}

export function drop(frame: u32, reason: u32): void {
  dropped++;
  store<u32>(frame, DEST_DROP, DEST);
  store<u32>(frame, reason, HASH);
}
