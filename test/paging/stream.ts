// Frames from one sparse guest to another, each checked byte by byte when it arrives.

import assert from 'node:assert/strict';
import { fill } from '../datapath/frames.ts';
import type { Piece, SparseGuest, SparseQueue } from './guest.ts';

const HEADER = 12;

export interface StreamOptions {
  /** Addresses as host numbers (datapath/frames.ts). */
  from: number;
  to: number;
  /** Pieces a frame is sent in at most, 1-4. Default 1. */
  pieces?: number;
  /** Share of frames in indirect tables. Default: none. */
  indirect?: boolean;
  /** Bytes of a receive buffer; below the frame's length several are merged. Default 2048. */
  buffer?: number;
  /** Frame lengths, 60 to this. Default 1500. */
  longest?: number;
}

/** One direction: its sender's TX and receiver's RX queue, driven from the outside. */
export class Stream {
  sent = 0;
  received = 0;
  readonly #options: Required<StreamOptions>;
  readonly #tx: SparseQueue;
  readonly #rx: SparseQueue;
  /** Sequence number expected at least. */
  #next = 0;

  constructor(tx: SparseQueue, rx: SparseQueue, options: StreamOptions) {
    this.#tx = tx;
    this.#rx = rx;
    this.#options = { pieces: 1, indirect: false, buffer: 2048, longest: 1500, ...options };
  }

  /** Frames the switch has not given back to the sender. */
  get pending(): number {
    return this.#tx.outstanding;
  }

  /** Counts from here on; what was sent before counts as received. */
  restart(): void {
    this.received = this.sent;
  }

  get #from(): SparseGuest {
    return this.#tx.guest;
  }

  get #to(): SparseGuest {
    return this.#rx.guest;
  }

  /** Posts receive buffers while there is room. */
  post(): void {
    while (this.#rx.free > 0) this.#rx.add([this.#to.take(this.#options.buffer)], true);
    this.#rx.publish();
  }

  /** Sends up to `n` frames; returns how many fit. */
  send(n: number): number {
    const { pieces, indirect } = this.#options;
    let i = 0;
    for (; i < n && this.#tx.free > 0; i++) {
      const bytes = Buffer.concat([Buffer.alloc(HEADER), this.#frame(this.sent)]);
      const count = 1 + (this.#from.random() % pieces);
      const each = Math.ceil(bytes.length / count);
      const parts: Piece[] = [];
      for (let at = 0; at < bytes.length; at += each) {
        const piece = this.#from.take(Math.min(each, bytes.length - at));
        this.#from.write(piece.offset, bytes.subarray(at, at + piece.length));
        parts.push(piece);
      }
      this.#tx.add(parts, false, indirect && this.sent % 3 === 0);
      this.sent++;
    }
    this.#tx.publish();
    return i;
  }

  /** Takes back what was sent and checks what arrived; returns how many frames did. */
  collect(): number {
    for (const { pieces } of this.#tx.used()) for (const piece of pieces) this.#from.give(piece);
    const before = this.received;
    const used = this.#rx.used();
    while (used.length > 0) {
      const first = this.#read(used[0]!);
      // A malformed buffer comes back empty.
      const buffers = used.splice(0, first.length === 0 ? 1 : first.readUInt16LE(10));
      if (first.length > 0)
        this.#check(Buffer.concat(buffers.map((buffer) => this.#read(buffer))).subarray(HEADER));
      for (const { pieces } of buffers) for (const piece of pieces) this.#to.give(piece);
    }
    return this.received - before;
  }

  #read({ pieces, length }: { pieces: Piece[]; length: number }): Buffer {
    return this.#to.read(pieces[0]!.offset, length);
  }

  #check(got: Buffer): void {
    // Flooded, before its receiver was heard.
    if (got[5] !== this.#options.to) return;
    const sequence = got.readUInt32LE(14);
    assert.ok(sequence >= this.#next && sequence < this.sent, `frame ${sequence}`);
    assert.deepEqual(got, this.#frame(sequence));
    this.#next = sequence + 1;
    this.received++;
  }

  #frame(sequence: number): Buffer {
    const { from, to, longest } = this.#options;
    const bytes = Buffer.alloc(60 + ((sequence * 7919) % (longest - 59)));
    fill(bytes, sequence + from * 65536);
    bytes.set([2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    bytes.writeUInt32LE(sequence, 14);
    return bytes;
  }
}
