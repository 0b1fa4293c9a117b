// An honest guest on the rig: our own driver (src/datapath/driver.ts) over buffers laid out once, with
// gaps between them that nobody may write.

import { DRV_ERRORS, DRV_LEN, SEG_WRITE } from '../../src/abi/driver.ts';
import { RINGF_IN_ORDER } from '../../src/abi/layout.ts';
import { driverOn, type TestQueue } from '../../test/datapath/queue.ts';
import type { Rig, TestPort } from '../../test/datapath/rig.ts';
import type { Memory } from '../memory.ts';
import { SECRET } from './guest-memory.ts';

const GAP = 64;
const SECRET_WORD = (SECRET * 0x01010101) | 0;

export interface Sample {
  header: Uint8Array;
  frame: Uint8Array;
}

export class Honest {
  readonly port: TestPort;
  readonly rx: TestQueue;
  readonly tx: TestQueue;
  /** Of the buffer last taken by `receive`: linear address and bytes written. */
  at = 0;
  length = 0;
  readonly #rig: Rig;
  readonly #memory: Memory;
  readonly #drivers: { rx: number; tx: number };
  readonly #buffer: number;
  readonly #buffers: number[] = [];
  readonly #rxLists: number[] = [];
  readonly #txLists: number[] = [];
  readonly #sent: { at: number; bytes: Buffer }[] = [];

  constructor(
    rig: Rig,
    port: TestPort,
    memory: Memory,
    how: { size: number; buffer: number; buffers: number; samples: readonly Sample[] },
  ) {
    this.#rig = rig;
    this.#memory = memory;
    this.port = port;
    this.rx = port.queue(0, { size: how.size });
    this.tx = port.queue(1, { size: how.size });
    this.#drivers = { rx: driverOn(this.rx), tx: driverOn(this.tx) };
    this.#buffer = how.buffer;
    for (let i = 0; i < how.buffers; i++) {
      const at = port.alloc(how.buffer + GAP, 64);
      memory.u32.fill(SECRET_WORD, (at + how.buffer) >>> 2, (at + how.buffer + GAP) >>> 2);
      this.#buffers.push(at);
      this.#rxLists.push(this.#list(at, how.buffer | SEG_WRITE));
      this.#post(i);
    }
    rig.datapath.drvPublish(this.#drivers.rx);
    for (const { header, frame } of how.samples) {
      const bytes = Buffer.concat([header.subarray(0, port.headerLength), frame]);
      const at = port.alloc(bytes.length, 64);
      memory.u8.set(bytes, at);
      this.#sent.push({ at, bytes });
      this.#txLists.push(this.#list(at, bytes.length));
    }
  }

  #list(at: number, length: number): number {
    const list = this.#rig.heap(8);
    this.#memory.u32[list >>> 2] = at;
    this.#memory.u32[(list >>> 2) + 1] = length;
    return list;
  }

  #post(buffer: number): void {
    this.#rig.datapath.drvAdd(this.#drivers.rx, this.#rxLists[buffer]!, 1, buffer, 0);
  }

  /** Adds sample `i` (not published); false when the ring is full. */
  send(i: number): boolean {
    return this.#rig.datapath.drvAdd(this.#drivers.tx, this.#txLists[i]!, 1, i, 0) >= 0;
  }

  publish(): void {
    this.#rig.datapath.drvPublish(this.#drivers.tx);
  }

  /** Frames that came back since the last call. */
  returned(): number {
    let n = 0;
    while (this.#rig.datapath.drvPop(this.#drivers.tx) >= 0) n++;
    return n;
  }

  /** Takes one buffer that was filled, and posts it again; false when there is none. */
  receive(): boolean {
    const buffer = this.#rig.datapath.drvPop(this.#drivers.rx);
    if (buffer < 0) return false;
    this.at = this.#buffers[buffer]!;
    this.length = this.#memory.u32[(this.#drivers.rx + DRV_LEN) >>> 2]!;
    this.#post(buffer);
    return true;
  }

  /** Makes visible what `receive` posted. */
  repost(): void {
    this.#rig.datapath.drvPublish(this.#drivers.rx);
  }

  /** Whether each used entry says what was written: with IN_ORDER it need not. */
  get saysLengths(): boolean {
    return (this.rx.flags & RINGF_IN_ORDER) === 0;
  }

  /** Whether the buffer last taken is exactly sample `i` of `from`, in one piece. */
  isSample(from: Honest, i: number): boolean {
    const { bytes } = from.#sent[i]!;
    const [skip, here] = [from.port.headerLength, this.port.headerLength];
    if (this.length !== bytes.length - skip + here) return false;
    return this.#memory.holds(this.at + here, bytes.subarray(skip));
  }

  /** Whether what was received holds SECRET: the last bytes, or with `all` every one. */
  leaks(all: boolean): boolean {
    const { u32 } = this.#memory;
    const end = (this.at + Math.min(this.length, this.#buffer)) >>> 2;
    const from = all ? this.at >>> 2 : Math.max(this.at >>> 2, end - 16);
    for (let i = from; i < end; i++) if (u32[i] === SECRET_WORD) return true;
    return false;
  }

  /** What is wrong with this guest's memory, or undefined. */
  damage(): string | undefined {
    const { u32 } = this.#memory;
    for (const [i, at] of this.#buffers.entries()) {
      const from = (at + this.#buffer) >>> 2;
      for (let k = from; k < from + GAP / 4; k++) {
        if (u32[k] !== SECRET_WORD) return `written behind receive buffer ${i}`;
      }
    }
    const lost = this.#sent.findIndex(({ at, bytes }) => !this.#memory.holds(at, bytes));
    if (lost >= 0) return `frame ${lost} overwritten in its sender's memory`;
    const errors = [this.#drivers.rx, this.#drivers.tx].map((drv) => u32[(drv + DRV_ERRORS) >>> 2]);
    return errors.some((n) => n !== 0) ? `used ids of nothing outstanding: ${errors}` : undefined;
  }
}
