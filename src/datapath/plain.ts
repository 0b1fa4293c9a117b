// The common delivery: whole frames in one segment, without offloads, each into one buffer.
//
// Everything else is deliver.ts's. This loop is half of what a small frame costs; apart from the rest it
// has few enough variables to stay in registers.

import { HDR_LEN } from '../abi/virtio';
import { copy } from './copy';
import { ADDR, COUNT, ETH, HDR, KEPT, LEN, REST } from './frame';
import { BUF_LEN, bufferAt, gathered, takeBuffersTo, taken } from './room';

/**
 * Writes a frame's header, its buffers counted as one, in front of it. A buffer that comes round again
 * mostly holds the same already: not to write it leaves the line in the driver's cache too. 7 ns a frame.
 */
export function writeHeader(to: u32, frame: u32, hdrLen: u32): void {
  const first = load<u64>(frame, HDR);
  if (load<u64>(to) != first) store<u64>(to, first);
  const offset = load<u16>(frame, HDR + 8);
  if (hdrLen == HDR_LEN) {
    const second = <u32>offset | 0x1_0000;
    if (load<u32>(to, 8) != second) store<u32>(to, second, 8);
  } else if (load<u16>(to, 8) != offset) {
    store<u16>(to, offset, 8);
  }
}

/** Bytes of the frames that the last deliverPlain delivered. */
export let plainBytes: u32 = 0;

/**
 * Delivers of the `n` frames whose records `list` names those before the first that is not common, or
 * whose buffer is not. Returns how many.
 */
export function deliverPlain(list: u32, n: u32, hdrLen: u32): u32 {
  let next = taken;
  const end = list + min(n, gathered - next) * 4;
  let at = list;
  let bytes: u32 = 0;
  for (; at < end; at += 4) {
    const frame = load<u32>(at);
    const buffer = bufferAt(next);
    const len = load<u32>(frame, LEN);
    const linear = load<u32>(buffer);
    const need = len + hdrLen;
    if (
      load<u16>(frame, HDR) != 0 ||
      len < KEPT ||
      load<u32>(frame, COUNT) > 1 ||
      linear == 0 ||
      load<u32>(buffer, BUF_LEN) < need
    ) {
      break;
    }
    writeHeader(linear, frame, hdrLen);
    const to = linear + hdrLen;
    const from = load<u32>(frame, ADDR);
    const rest = load<u32>(frame, REST);
    v128.store(to, v128.load(frame, ETH));
    if (rest - 32 <= 32) {
      // 32 to 64 bytes, those of the smallest frames: two pairs that overlap, without a call. 2 ns a frame.
      const last = rest - 32;
      const a = v128.load(from);
      const b = v128.load(from, 16);
      const c = v128.load(from + last);
      const d = v128.load(from + last, 16);
      v128.store(to, a, 16);
      v128.store(to, b, 32);
      v128.store(to + last, c, 16);
      v128.store(to + last, d, 32);
    } else {
      copy(to + KEPT, from, rest);
    }
    store<u32>(buffer, need, BUF_LEN);
    bytes += len;
    next++;
  }
  takeBuffersTo(next);
  plainBytes = bytes;
  return (at - list) >> 2;
}
