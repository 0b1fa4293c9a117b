// What a run is to do: the command line, checked.

import type { IpRange, MacRange } from './addresses.ts';
import type { Family } from './packet.ts';

export const FUNCTIONS = ['rx', 'tx', 'ping', 'pong', 'txseq', 'rxseq'] as const;
export type Mode = (typeof FUNCTIONS)[number];

export interface Traffic {
  family: Family;
  from: IpRange;
  to: IpRange;
  fromMac: MacRange;
  toMac: MacRange;
  randomSource: boolean;
  randomDestination: boolean;
  /** Bytes of a frame without its check sequence; where they differ, of the longest less one. */
  size: number;
  /** Frames of random sizes from this one to below `size`. */
  smallest?: number | undefined;
  /** Frames to replay instead. */
  frames?: readonly Uint8Array[] | undefined;
}

export interface Settings {
  mode: Mode;
  /** Frames, 0 for no end. */
  count: number;
  burst: number;
  /** Frames a second. */
  rate?: number | undefined;
  /** Slots a frame is spread over. */
  fragments: number;
  /** Bytes a slot may have, where that is less than its buffer's room. */
  fragmentSize?: number | undefined;
  reportMs: number;
  /** Write an empty virtio-net header in front of each frame. */
  header: boolean;
  /** Send what the buffers hold. */
  rubbish: boolean;
  /** Write each frame anew, although the last one in the buffer was the same. */
  copy: boolean;
  dump: boolean;
  /** Receivers end after a second without frames. */
  endOnSilence: boolean;
  traffic: Traffic;
}
