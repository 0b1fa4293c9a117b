// A guest over a real vhost-user socket whose memory file may be anything: it fills its rings once,
// through a mapping of its own, and then takes memory away. It never reads what the switch answers in its rings.

import { ftruncateSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { SLOT } from '../../src/abi/layout.ts';
import * as vu from '../../src/abi/vhost-user.ts';
import { DESC_F_AVAIL, DESC_F_WRITE, F_RING_PACKED, WRAP } from '../../src/abi/virtio.ts';
import {
  addressOf,
  close,
  connectUnix,
  dup,
  eventfd,
  mmapAnonymousFixed,
  mmapFixed,
  recvWithFds,
  sendWithFds,
  signal,
} from '../../src/linux/index.ts';
import { bit } from '../../src/virtio/features.ts';
import { BROADCAST, concat, frame, header, mac } from '../datapath/frames.ts';
import { type Message, message, words } from '../switch/raw.ts';
import { PLAIN } from '../virtio/bench.ts';

// Where `poke` maps files: 2 MiB at an address that suits huge pages, which cannot be written to else.
const pen = new Uint8Array(
  new WebAssembly.Memory({ initial: 64, maximum: 64, shared: true }).buffer,
);
const penAddress = addressOf(pen);
const penAt = SLOT - (penAddress % SLOT);

/** Writes into a file, at most to the next 2 MiB boundary. */
function poke(fd: number, offset: number, bytes: Uint8Array): void {
  const skew = offset % SLOT;
  mmapFixed(penAddress + penAt, SLOT, fd, offset - skew);
  pen.set(bytes, penAt + skew);
  mmapAnonymousFixed(penAddress + penAt, SLOT);
}

const RING_SIZE = 64;
const QUEUE = 0x1_0000;
/** Where buffers begin in the file; before it lie the rings. */
export const BUFFERS = 0x40_0000;
const BUFFER = 4096;
const UVA = 0x7e00_0000_0000n;

export interface MemoryGuestOptions {
  path: string;
  /** Guest memory from offset 0 on; the guest owns it. */
  fd: number;
  size: number;
  packed?: boolean;
  /** Host number, for its MAC address. */
  host?: number;
}

export class MemoryGuest {
  readonly #options: Required<MemoryGuestOptions>;
  readonly #socket: number;
  readonly #kicks = [eventfd(), eventfd()];
  #open = true;
  /** Bytes of a frame loaded. */
  #length = 0;

  constructor(options: MemoryGuestOptions) {
    this.#options = { packed: false, host: 77, ...options };
    this.#socket = connectUnix(options.path);
  }

  #send({ bytes, fds = [] }: Message): void {
    sendWithFds(this.#socket, bytes, fds);
    for (const fd of fds) close(fd);
  }

  /** Features, memory, an RX and a TX ring; returns when the switch has them. */
  async open(): Promise<this> {
    const { packed, size, fd } = this.#options;
    const features = PLAIN | (packed ? bit(F_RING_PACKED) : 0n);
    this.#send(message(vu.VU_SET_FEATURES, words(features | (1n << 30n))));
    const table = words(1, 0, 0n, BigInt(size), UVA, 0n);
    this.#send(message(vu.VU_SET_MEM_TABLE, table, [dup(fd)]));
    for (const [index, kick] of this.#kicks.entries()) {
      const at = UVA + BigInt(index * QUEUE);
      this.#send(message(vu.VU_SET_VRING_NUM, words(index, RING_SIZE)));
      this.#send(message(vu.VU_SET_VRING_BASE, words(index, packed ? WRAP * 0x1_0001 : 0)));
      const parts = words(index, 0, at, at + 0x8000n, at + 0x4000n, 0n);
      this.#send(message(vu.VU_SET_VRING_ADDR, parts));
      this.#send(message(vu.VU_SET_VRING_CALL, words(BigInt(index)), [eventfd()]));
      this.#send(message(vu.VU_SET_VRING_KICK, words(BigInt(index)), [dup(kick)]));
      this.#send(message(vu.VU_SET_VRING_ENABLE, words(index, 1)));
    }
    this.#send(message(vu.VU_GET_FEATURES));
    const answer = Buffer.alloc(64);
    for (let got = recvWithFds(this.#socket, answer, 1); got === 'again'; ) {
      await sleep(1);
      got = recvWithFds(this.#socket, answer, 1);
    }
    return this;
  }

  /** Whether the switch has hung up. */
  get cut(): boolean {
    try {
      const got = recvWithFds(this.#socket, Buffer.alloc(64), 1);
      return got !== 'again' && got.bytes === 0;
    } catch {
      return true;
    }
  }

  #buffer(queue: number, slot: number): number {
    return BUFFERS + (queue * RING_SIZE + slot) * BUFFER;
  }

  /** Fills the RX ring with buffers. */
  post(): void {
    this.#fill(0, 2048, DESC_F_WRITE);
  }

  /** Writes broadcast frames into the buffers of the TX ring, and posts them. */
  write(): void {
    this.load();
    this.offer();
  }

  /** Writes them, and posts none. */
  load(): void {
    const { fd, host } = this.#options;
    const bytes = concat(
      header(),
      frame({ from: mac(host), to: BROADCAST, type: 0x88b6, length: 200 }),
    );
    const frames = Buffer.alloc(RING_SIZE * BUFFER);
    for (let slot = 0; slot < RING_SIZE; slot++) frames.set(bytes, slot * BUFFER);
    poke(fd, this.#buffer(1, 0), frames);
    this.#length = bytes.length;
  }

  /** Posts the buffers of the TX ring, which need not be there any more. */
  offer(): void {
    this.#fill(1, this.#length, 0);
  }

  /** Fills the TX ring and kicks. */
  send(): void {
    this.write();
    this.kick();
  }

  #fill(queue: number, length: number, flags: number): void {
    const { fd, packed } = this.#options;
    const table = Buffer.alloc(RING_SIZE * 16);
    const avail = Buffer.alloc(4 + RING_SIZE * 2);
    avail.writeUInt16LE(RING_SIZE, 2);
    for (let slot = 0; slot < RING_SIZE; slot++) {
      table.writeBigUInt64LE(BigInt(this.#buffer(queue, slot)), slot * 16);
      table.writeUInt32LE(length, slot * 16 + 8);
      if (packed) {
        table.writeUInt16LE(slot, slot * 16 + 12);
        table.writeUInt16LE(flags | DESC_F_AVAIL, slot * 16 + 14);
      } else {
        table.writeUInt16LE(flags, slot * 16 + 12);
        avail.writeUInt16LE(slot, 4 + slot * 2);
      }
    }
    poke(fd, queue * QUEUE, table);
    if (!packed) poke(fd, queue * QUEUE + 0x4000, avail);
  }

  kick(): void {
    for (const fd of this.#kicks) signal(fd);
  }

  /** Takes all memory from offset `from` on away. */
  shrink(from: number): void {
    ftruncateSync(this.#options.fd, from);
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    close(this.#socket);
    for (const fd of this.#kicks) close(fd);
    close(this.#options.fd);
  }
}
