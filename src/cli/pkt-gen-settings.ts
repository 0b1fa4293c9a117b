// pkt-gen's options, checked and made into what a run needs.

import { readFileSync } from 'node:fs';
import { macFromName, nameFromPath } from '../limits.ts';
import type { NetmapOptions } from '../netmap/types.ts';
import { AddressError, parseIpRange, parseMacRange } from '../tools/addresses.ts';
import { type Family, headerBytes } from '../tools/packet.ts';
import { PcapError, readCapture } from '../tools/pcap.ts';
import { PING_BYTES } from '../tools/ping.ts';
import type { Mode, Settings, Traffic } from '../tools/settings.ts';
import { UsageError } from './cli.ts';

/** As commander has them: one property for each letter. */
export interface PktGenOptions {
  i: string;
  f: Mode;
  n: number;
  l?: number[];
  b?: number;
  4?: boolean;
  6?: boolean;
  s?: string;
  d?: string;
  S?: string;
  D: string;
  a?: number;
  p?: number;
  T: number;
  w: number;
  R?: number;
  P?: string;
  F: number;
  M?: number;
  H: string;
  C?: string;
  o: number;
  z?: boolean;
  Z?: boolean;
  X?: boolean;
  r?: boolean;
  A?: boolean;
  B?: boolean;
  N?: boolean;
  W?: boolean;
  v?: boolean;
  I?: boolean;
  c?: string;
  packed?: boolean;
  split?: boolean;
  json?: boolean;
}

/** netmap's data generation options, -o; those that mean nothing here are refused. */
const COPY = 4 | 8;
const DUMP = 64;
const RUBBISH = 256;
const RANDOM_SOURCE = 512;
const RANDOM_DESTINATION = 1024;
export const PPS_STATISTICS = 2048;
const UPDATE_CHECKSUMS = 4096;
const KNOWN =
  COPY | DUMP | RUBBISH | RANDOM_SOURCE | RANDOM_DESTINATION | PPS_STATISTICS | UPDATE_CHECKSUMS;

const DEFAULT_SIZE = 60;
const MAX_SIZE = 65536;
const DEFAULT_BURST = 512;
const ADDRESSES = {
  4: { s: '10.0.0.1', d: '10.1.0.1' },
  6: { s: 'fd00::1', d: 'fd00:1::1' },
} as const;
export const SENDERS: readonly Mode[] = ['tx', 'txseq', 'ping'];
const ONE_QUEUE: readonly Mode[] = ['txseq', 'ping', 'pong'];

export function settingsOf(options: PktGenOptions): Settings {
  refuse(options);
  const mode = options.f;
  return {
    mode,
    count: options.n,
    burst: options.b ?? DEFAULT_BURST,
    rate: options.R,
    fragments: options.F,
    fragmentSize: options.M,
    reportMs: options.T,
    header: options.H !== '0',
    rubbish: on(options.r, options, RUBBISH),
    copy: on(undefined, options, COPY),
    dump: on(options.X, options, DUMP),
    endOnSilence: options.W === true,
    traffic: trafficOf(options),
  };
}

export function openOptions(options: PktGenOptions): NetmapOptions {
  const config = options.C === undefined ? {} : parseConfig(options.C);
  const queues = options.p ?? config.queues;
  return {
    // No wait at all would be none for an answer either.
    timeoutMs: Math.max(options.w * 1000, 100),
    // A frame with its header in front takes one descriptor, not two.
    ...(options.H === '0' ? {} : { headers: 'kept' }),
    packed: ringFormat(options),
    ...(config.ringSize === undefined ? {} : { ringSize: config.ringSize }),
    ...(queues === undefined ? {} : { queues }),
  };
}

/** Packed rings are faster, most of all for who receives. */
export function ringFormat({ packed, split }: { packed?: boolean; split?: boolean }) {
  if (packed && split)
    throw new UsageError('--packed and --split: rings have one format: give one');
  return packed ? true : split ? false : 'auto';
}

function on(flag: boolean | undefined, options: PktGenOptions, bit: number): boolean {
  return flag === true || (options.o & bit) !== 0;
}

function refuse(options: PktGenOptions): void {
  if (options.I) throw new UsageError('-I: there are no indirect buffers here: leave it out');
  if (options.c !== undefined) {
    throw new UsageError('-c: one thread sends and receives, on the CPU -a names: leave it out');
  }
  if ((options.o & ~KNOWN) !== 0) {
    throw new UsageError(
      `-o ${options.o}: ${options.o & ~KNOWN} has no meaning here: give a sum of ` +
        '4 or 8 (copy), 64 (-X), 256 (-r), 512 (-z), 1024 (-Z), 2048 (-A), 4096',
    );
  }
  if (options[4] && options[6]) throw new UsageError('-4 and -6: frames are of one kind: give one');
  if (ONE_QUEUE.includes(options.f) && (options.p ?? 1) > 1) {
    throw new UsageError(`-p ${options.p}: ${options.f} uses one queue pair: leave it out`);
  }
  if (options.f === 'ping' && (options.b ?? 1) > 1) {
    throw new UsageError(`-b ${options.b}: ping has one frame in flight: leave it out`);
  }
  if (options.P !== undefined && options.f !== 'tx') {
    throw new UsageError(`-P goes with -f tx, not with -f ${options.f}`);
  }
}

function trafficOf(options: PktGenOptions): Traffic {
  const family = options[6] ? 6 : 4;
  const defaults = ADDRESSES[family];
  const name = nameFromPath(options.i.replace(/^\w+:/, '').replace(/@.*$/, ''));
  return {
    family,
    from: named('-s', () => parseIpRange(options.s ?? defaults.s, family)),
    to: named('-d', () => parseIpRange(options.d ?? defaults.d, family)),
    fromMac: named('-S', () => parseMacRange(options.S ?? macFromName(name))),
    toMac: named('-D', () => parseMacRange(options.D)),
    randomSource: on(options.z, options, RANDOM_SOURCE),
    randomDestination: on(options.Z, options, RANDOM_DESTINATION),
    ...sizesOf(options, family),
    ...(options.P === undefined ? {} : { frames: loadCapture(options.P) }),
  };
}

/** `10.0.0.1 -> 10.1.0.1 (52:54:00:ca:97:81 -> ff:ff:ff:ff:ff:ff)` */
export function routeOf({ s, d, S, D }: PktGenOptions, { family, fromMac }: Traffic): string {
  const defaults = ADDRESSES[family];
  const mac = Array.from(fromMac.first, (byte) => byte.toString(16).padStart(2, '0')).join(':');
  return `${s ?? defaults.s} -> ${d ?? defaults.d} (${S ?? mac} -> ${D})`;
}

function named<T>(option: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof AddressError) throw new UsageError(`${option}: ${error.message}`);
    throw error;
  }
}

/** Headers, and what goes first in the payload. */
export function leastBytes(mode: Mode, family: Family): number {
  return headerBytes(family) + ({ txseq: 4, ping: PING_BYTES }[mode as string] ?? 0);
}

function sizesOf(options: PktGenOptions, family: Family): Pick<Traffic, 'size' | 'smallest'> {
  const least = leastBytes(options.f, family);
  const [size = Math.max(DEFAULT_SIZE, least), smallest, more] = options.l ?? [];
  if (more !== undefined) throw new UsageError('-l is given three times: give one or two sizes');
  for (const given of options.l ?? []) {
    if (!SENDERS.includes(options.f) || given >= least) continue;
    const what = `a frame of -f ${options.f} with IPv${family} and UDP`;
    throw new UsageError(
      `-l ${given}: ${what} has at least ${least} bytes: give ${least} to 65536`,
    );
  }
  if (smallest !== undefined && smallest > size) {
    throw new UsageError(
      `-l ${size} -l ${smallest}: the second is the smaller one: turn them round`,
    );
  }
  return { size: Math.min(size, MAX_SIZE), smallest };
}

function loadCapture(path: string): Uint8Array[] {
  try {
    return readCapture(readFileSync(path));
  } catch (error) {
    if (error instanceof PcapError) {
      throw new UsageError(`-P: '${path}' ${error.message}: give a capture of Ethernet frames`);
    }
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new UsageError(`-P: '${path}' cannot be read (${code}): give a file of pcap or pcapng`);
  }
}

/** tx_slots[,rx_slots[,tx_rings[,rx_rings]]]; a zero or nothing stands for the default. */
function parseConfig(text: string): { ringSize?: number; queues?: number } {
  if (!/^\d*(,\d*){0,3}$/.test(text)) {
    throw new UsageError(`-C ${text}: give slots, slots, rings, rings as in 512 or 512,512,2,2`);
  }
  const [slots, rxSlots, rings, rxRings] = text.split(',').map(Number);
  for (const [tx, rx, what] of [
    [slots, rxSlots, 'slots'],
    [rings, rxRings, 'rings'],
  ] as const) {
    if (!rx || rx === tx) continue;
    throw new UsageError(`-C ${text}: a queue pair has as many ${what} to send as to receive`);
  }
  return { ...(slots ? { ringSize: slots } : {}), ...(rings ? { queues: rings } : {}) };
}
