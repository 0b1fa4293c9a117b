// How a driver of ours lays out a virtqueue in memory of its own.

import { DRV_TABLE } from '../abi/driver.ts';
import { PAGE } from '../abi/layout.ts';
import { DESC_SIZE, EVENT_SIZE, MAX_RING_SIZE, WRAP } from '../abi/virtio.ts';
import { roundUp } from '../memory/spans.ts';

/** Where a fresh packed ring begins: slot 0, wrap counter 1, the avail half and the used half. */
export const PACKED_BASE = (WRAP | (WRAP << 16)) >>> 0;

/** Bytes from the queue's start to each part and to the indirect tables behind them; and to its end. */
export function queueLayout(size: number, packed: boolean) {
  const avail = size * DESC_SIZE;
  const used = roundUp(avail + (packed ? EVENT_SIZE : 6 + size * 2), 4);
  const end = used + (packed ? EVENT_SIZE : 6 + size * 8);
  const tables = roundUp(end, PAGE);
  return {
    desc: 0,
    avail,
    used,
    tables,
    end: roundUp(tables + size * DRV_TABLE * DESC_SIZE, PAGE),
  };
}

/** Why a ring cannot have this size, as the end of a sentence; undefined when it can. */
export function ringSizeProblem(size: number, packed: boolean): string | undefined {
  if (Number.isInteger(size) && size >= (packed ? 2 : 8) && size <= MAX_RING_SIZE) {
    if (packed || (size & (size - 1)) === 0) return undefined;
  }
  const rule = packed ? '2 to 32768 (packed)' : 'a power of two from 8 to 32768';
  return `ringSize is ${size}; it must be ${rule}`;
}
