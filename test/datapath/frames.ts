// Frames and virtio-net headers as bytes, and how tests send and receive them.

import type { Part, TestQueue, Used } from './queue.ts';

/** A number from a seed (mulberry32): the same frame from the same seed. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return (x ^ (x >>> 14)) >>> 0;
  };
}

export function fill(bytes: Uint8Array, seed: number): void {
  const next = random(seed);
  for (let i = 0; i < bytes.length; i++) bytes[i] = next();
}

/** The address of host `n`: 02:00:00:00:hh:ll. */
export function mac(n: number): Uint8Array {
  return Uint8Array.of(2, 0, 0, 0, n >> 8, n & 255);
}

export const BROADCAST = new Uint8Array(6).fill(255);

export interface FrameSpec {
  to?: Uint8Array;
  from?: Uint8Array;
  type?: number;
  length?: number;
  seed?: number;
}

/** An Ethernet frame of `length` bytes, its payload drawn from `seed`. */
export function frame(spec: FrameSpec = {}): Uint8Array {
  const { to = mac(2), from = mac(1), type = 0x88b5, length = 64, seed = length } = spec;
  const bytes = new Uint8Array(length);
  fill(bytes, seed);
  bytes.set(to, 0);
  bytes.set(from, 6);
  bytes[12] = type >> 8;
  bytes[13] = type & 255;
  return bytes;
}

export interface HeaderSpec {
  flags?: number;
  gso?: number;
  hdrLen?: number;
  gsoSize?: number;
  start?: number;
  offset?: number;
  buffers?: number;
}

/** struct virtio_net_hdr, 10 or 12 bytes. */
export function header(spec: HeaderSpec = {}, length = 12): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  bytes[0] = spec.flags ?? 0;
  bytes[1] = spec.gso ?? 0;
  view.setUint16(2, spec.hdrLen ?? 0, true);
  view.setUint16(4, spec.gsoSize ?? 0, true);
  view.setUint16(6, spec.start ?? 0, true);
  view.setUint16(8, spec.offset ?? 0, true);
  view.setUint16(10, spec.buffers ?? 0, true);
  return bytes.subarray(0, length);
}

export function concat(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

export interface SendSpec {
  header?: Uint8Array;
  /** Where the bytes, header included, are cut; equal cuts make empty descriptors. */
  cuts?: number[];
  /** Descriptors before the indirect table; default: all of them. */
  inner?: number;
}

/** Adds one frame to a TX queue (not published); returns the head, -1 when the ring is full. */
export function send(tx: TestQueue, bytes: Uint8Array, spec: SendSpec = {}): number {
  const { header: head = new Uint8Array(tx.port.headerLength), cuts = [], inner } = spec;
  return tx.add(place(tx, concat(head, bytes), cuts), inner);
}

/** Writes bytes to the queue's memory, apart at every cut. */
export function place(tx: TestQueue, bytes: Uint8Array, cuts: number[]): Part[] {
  const ends = [...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length];
  ends.sort((a, b) => a - b);
  let from = 0;
  return ends.map((end) => {
    const part = bytes.subarray(from, end);
    from = end;
    const at = tx.port.alloc(part.length + 3);
    tx.port.rig.bytes.set(part, at);
    return { addr: tx.port.gpa(at), len: part.length };
  });
}

/** What untouched receive memory holds. */
export const CANARY = 0xc7;
const GAP = 24;

interface Posted {
  /** Linear address and length of each descriptor's buffer. */
  parts: { at: number; len: number }[];
}

export interface Received {
  frame: Uint8Array;
  header: Uint8Array;
  buffers: number;
}

/** The receiving end of a queue: posts buffers between canaries, and puts frames together. */
export class Receiver {
  readonly rx: TestQueue;
  /** Frames taken with used.len 0: buffers that came back empty. */
  empty = 0;
  readonly #posted = new Map<number, Posted>();
  #taken: { used: Used; posted: Posted }[] = [];

  constructor(rx: TestQueue) {
    this.rx = rx;
    rx.buffers = () =>
      [...this.#posted.values()].flatMap(({ parts }) =>
        parts.map(({ at, len }): [number, number] => [at, len]),
      );
  }

  /** Posts one buffer made of descriptors of these lengths; -1 when the ring is full. */
  post(lengths: number[], inner?: number): number {
    const { port } = this.rx;
    const parts = lengths.map((len) => {
      const at = port.alloc(len + 2 * GAP) + GAP;
      port.rig.bytes.fill(CANARY, at - GAP, at + len + GAP);
      return { at, len };
    });
    const head = this.rx.add(
      parts.map(({ at, len }) => ({ addr: port.gpa(at), len, write: true })),
      inner,
    );
    if (head >= 0) this.#posted.set(head, { parts });
    return head;
  }

  /** Posts `count` buffers of one descriptor and publishes them. */
  fill(count: number, length = 2048): this {
    for (let i = 0; i < count; i++) this.post([length]);
    this.rx.publish();
    return this;
  }

  /**
   * Takes what arrived, as frames. Throws when a byte outside of what a used entry covers was
   * written, when num_buffers is not the number of buffers, or when one but the last is not full.
   */
  take(): Received[] {
    for (const used of this.rx.used()) {
      const posted = this.#posted.get(used.head);
      if (!posted) throw new Error(`head ${used.head} was not posted here`);
      this.#posted.delete(used.head);
      this.#untouched(posted, used.len);
      if (used.len === 0) this.empty++;
      this.#taken.push({ used, posted });
    }
    const found: Received[] = [];
    const { headerLength, features } = this.rx.port;
    while (this.#taken.length > 0) {
      const first = this.#read(this.#taken[0]!);
      if (first.length === 0) {
        this.#taken.shift();
        continue;
      }
      const mergeable = ((features >> 15n) & 1n) === 1n;
      const buffers = headerLength === 12 ? first[10]! | (first[11]! << 8) : 1;
      if (buffers < 1 || (!mergeable && buffers !== 1)) throw new Error(`num_buffers ${buffers}`);
      if (buffers > this.#taken.length) throw new Error(`${buffers} buffers, not all of them used`);
      const chunks = this.#taken.splice(0, buffers);
      for (const chunk of chunks.slice(0, -1)) {
        if (chunk.used.len !== room(chunk.posted)) throw new Error('a buffer was left part empty');
      }
      const bytes = concat(...chunks.map((chunk) => this.#read(chunk)));
      found.push({
        header: bytes.subarray(0, headerLength),
        frame: bytes.subarray(headerLength),
        buffers,
      });
    }
    return found;
  }

  /** Throws unless every buffer still posted is as it was. */
  checkPosted(): void {
    for (const posted of this.#posted.values()) this.#untouched(posted, 0);
  }

  #read({ used, posted }: { used: Used; posted: Posted }): Uint8Array {
    const { bytes } = this.rx.port.rig;
    let left = used.len;
    const chunks = posted.parts.map(({ at, len }) => {
      const part = Math.min(left, len);
      left -= part;
      return new Uint8Array(bytes.slice(at, at + part));
    });
    return concat(...chunks);
  }

  #untouched(posted: Posted, written: number): void {
    const { bytes } = this.rx.port.rig;
    if (written > room(posted)) throw new Error(`used.len ${written} exceeds the buffer`);
    let left = written;
    for (const { at, len } of posted.parts) {
      const part = Math.min(left, len);
      left -= part;
      const ranges: [number, number][] = [
        [at - GAP, at],
        [at + part, at + len + GAP],
      ];
      for (const [from, to] of ranges) {
        for (let i = from; i < to; i++) {
          if (bytes[i] !== CANARY)
            throw new Error(`byte ${i - at} of a ${len} byte buffer written`);
        }
      }
    }
  }
}

function room({ parts }: Posted): number {
  return parts.reduce((sum, { len }) => sum + len, 0);
}
