// ping: one frame in flight, its number and time in the payload. pong: sends back what comes.

import type { NetmapRing } from '../netmap/types.ts';
import { NS_MOREFRAG } from '../netmap/types.ts';
import { type CopyFiller, HEADER } from './fill.ts';
import { Histogram } from './histogram.ts';
import type { Job } from './job.ts';
import { ETHERNET, headerBytes } from './packet.ts';
import { Pacer } from './rate.ts';
import type { UdpSource } from './source.ts';

/** Payload of a ping: number, seconds and nanoseconds, 32 bits each, as netmap's on a PC has them. */
export const PING_BYTES = 12;
/** Nanoseconds until a ping without an answer counts as lost. */
const TIMEOUT = 1e9;
/** Nanoseconds to look for the answer before waiting: a wake-up would be part of the round trip. */
const PING_SPIN = 1e6;
const ETHERTYPE = { 2048: 4, 34525: 6 } as const;

export class Pings {
  readonly total = new Histogram();
  readonly interval = new Histogram();
  lost = 0;
  /** Answers to those that counted as lost. */
  late = 0;
  #number = 0;
  #sent = 0;

  /** Writes a new ping's payload. */
  stamp(source: UdpSource, number: number, now: number): void {
    this.#number = number >>> 0;
    this.#sent = now;
    source.frame.setPayload(0, swap(this.#number));
    source.frame.setPayload(4, swap(Math.floor(now / 1e9)));
    source.frame.setPayload(8, swap(now % 1e9));
  }

  /** Looks at what came: true if it is the answer. */
  answered(bytes: Uint8Array, at: number, length: number, now: number): boolean {
    const family = familyOf(bytes, at, length);
    if (family === undefined || length < headerBytes(family) + PING_BYTES) return false;
    const view = new DataView(bytes.buffer, bytes.byteOffset + at + headerBytes(family));
    const sent = view.getUint32(4, true) * 1e9 + view.getUint32(8, true);
    if (view.getUint32(0, true) !== this.#number || sent !== this.#sent) {
      if (sent < this.#sent && view.getUint32(0, true) < this.#number) this.late++;
      return false;
    }
    this.total.add(now - sent);
    this.interval.add(now - sent);
    return true;
  }
}

/** Sends the next when the last is answered or lost, or at its rate. */
export async function ping(
  job: Job,
  source: UdpSource,
  filler: CopyFiller,
  pings: Pings,
): Promise<void> {
  const { port, settings, time, counts } = job;
  const ring = port.tx[0]!;
  job.start();
  const { rate } = settings;
  const pacer = rate === undefined ? undefined : new Pacer(rate, job.started);
  while (!job.ended && job.left > 0) {
    const now = time.now();
    if (now >= job.turnAt) await job.turn();
    if (pacer !== undefined && pacer.due(now) === 0) {
      await job.waitUntil(pacer.when(1));
      continue;
    }
    const from = ring.head;
    const sent = time.now();
    pings.stamp(source, counts.packets, sent);
    const frames = filler.fill(ring, 1);
    port.txSync(ring);
    if (frames === 0) {
      await job.wait({ tx: true });
      continue;
    }
    job.busy();
    pacer?.sent(1);
    counts.packets++;
    counts.events++;
    counts.bytes = filler.bytes;
    if (settings.dump) job.dump(ring, from, ring.head);
    await answer(job, pings, sent + TIMEOUT);
    job.busy();
  }
}

async function answer(job: Job, pings: Pings, deadline: number): Promise<void> {
  while (!job.ended) {
    for (const ring of job.port.rx) if (look(job, ring, pings)) return;
    const now = job.time.now();
    if (now >= deadline) {
      pings.lost++;
      return;
    }
    if (now >= job.turnAt) await job.turn();
    await job.wait({ rx: true }, PING_SPIN);
  }
}

/** Takes all that came. */
function look(job: Job, ring: NetmapRing, pings: Pings): boolean {
  const { bytes } = job.port.memory;
  let space = job.port.rxSync(ring);
  if (space === 0) return false;
  const now = job.time.now();
  const from = ring.head;
  let i = from;
  let found = false;
  for (; space > 0; space--) {
    if (pings.answered(bytes, ring.address(i), ring.length(i), now)) found = true;
    i = ring.next(i);
  }
  ring.head = i;
  ring.cur = i;
  if (job.settings.dump) job.dump(ring, from, i);
  return found;
}

/** Frames that find no room to go back wait where they are. */
export async function pong(job: Job): Promise<void> {
  const { port, time, counts, settings } = job;
  const tx = port.tx[0]!;
  // By ring: the next slot continues a frame.
  const within = port.rx.map(() => false);
  while (!job.ended && job.left > 0) {
    if (time.now() >= job.turnAt) await job.turn();
    let moved = 0;
    for (let k = 0; k < port.rx.length; k++) {
      const rx = port.rx[k]!;
      let left = Math.min(port.rxSync(rx), tx.space);
      if (left === 0) continue;
      if (counts.packets === 0) job.start();
      const from = rx.head;
      for (; left > 0 && job.left > 0; left--) {
        within[k] = sendBack(job, rx, tx, within[k]!);
        if (!within[k]) counts.packets++;
        moved++;
      }
      if (settings.dump) job.dump(rx, from, rx.head);
      counts.events++;
    }
    port.txSync(tx);
    if (moved > 0) job.busy();
    else await job.wait(tx.space > 0 ? { rx: true } : { tx: true });
  }
  port.txSync(tx);
}

/** Copies one slot; the first of a frame with its addresses swapped. True if the frame goes on. */
function sendBack(job: Job, rx: NetmapRing, tx: NetmapRing, within: boolean): boolean {
  const { bytes } = job.port.memory;
  const [i, k] = [rx.head, tx.head];
  const length = rx.length(i);
  const to = tx.address(k);
  bytes.copyWithin(to, rx.address(i), rx.address(i) + length);
  if (!within) {
    if (job.settings.header) bytes.fill(0, to - HEADER, to);
    swapAddresses(bytes, to, length);
    // Asked of all: nobody answers from a group address.
    if (length >= ETHERNET && (bytes[to + 6]! & 1) !== 0) {
      bytes.set(job.settings.traffic.fromMac.first, to + 6);
    }
  }
  tx.setLength(k, length);
  const more = rx.flags(i) & NS_MOREFRAG;
  tx.setFlags(k, more);
  rx.head = rx.cur = rx.next(i);
  tx.head = tx.cur = tx.next(k);
  job.counts.bytes += length;
  return more !== 0;
}

/** MAC and IP addresses change places; both checksums stay right, they are sums of the same words. */
export function swapAddresses(bytes: Uint8Array, at: number, length: number): void {
  if (length < ETHERNET) return;
  exchange(bytes, at, at + 6, 6);
  const family = familyOf(bytes, at, length);
  if (family === 4 && length >= ETHERNET + 20) exchange(bytes, at + 26, at + 30, 4);
  if (family === 6 && length >= ETHERNET + 40) exchange(bytes, at + 22, at + 38, 16);
}

function exchange(bytes: Uint8Array, a: number, b: number, length: number): void {
  for (let i = 0; i < length; i++) {
    const byte = bytes[a + i]!;
    bytes[a + i] = bytes[b + i]!;
    bytes[b + i] = byte;
  }
}

function familyOf(bytes: Uint8Array, at: number, length: number): 4 | 6 | undefined {
  if (length < ETHERNET) return undefined;
  const type = (bytes[at + 12]! << 8) | bytes[at + 13]!;
  return ETHERTYPE[type as keyof typeof ETHERTYPE];
}

/** The other byte order. */
function swap(value: number): number {
  return (
    (((value & 0xff) << 24) |
      ((value & 0xff00) << 8) |
      ((value >>> 8) & 0xff00) |
      ((value >>> 24) & 0xff)) >>>
    0
  );
}
