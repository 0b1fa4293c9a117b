// How many slots the rings of a port have.

import { F_INDIRECT_DESC, F_MRG_RXBUF } from '../abi/virtio.ts';
import { has } from '../virtio/features.ts';
import type { Headers } from './types.ts';

/**
 * With a shared header a frame takes two segments, so two descriptors a slot, or one where they go
 * into an indirect table. Merged receive buffers have one segment each, and tables are for several: FreeBSD
 * counts half the ring for them (if_vtnet, vtnet_rx_nsegs), and so do its users. With a header of its own in
 * front a frame is one segment, and a slot one descriptor.
 */
export function slotCounts(
  ringSize: number,
  features: bigint,
  headers: Headers,
): { tx: number; rx: number } {
  if (headers === 'kept') return { tx: ringSize, rx: ringSize };
  const half = ringSize >> 1;
  const indirect = has(features, F_INDIRECT_DESC);
  return {
    tx: indirect ? ringSize : half,
    rx: indirect && !has(features, F_MRG_RXBUF) ? ringSize : half,
  };
}
