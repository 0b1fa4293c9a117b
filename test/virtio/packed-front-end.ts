// The front end by hand, with packed rings: one buffer after the other round the ring.

import {
  DESC_F_AVAIL,
  DESC_F_USED,
  DESC_F_WRITE,
  DESC_SIZE,
  F_RING_PACKED,
  WRAP,
} from '../../src/abi/virtio.ts';
import type { NetDevice } from '../../src/virtio/device.ts';
import { bit } from '../../src/virtio/features.ts';
import { type DeviceBench, FrontEnd, GPA, PLAIN } from './bench.ts';

const PAGE = 4096;
export const PACKED = PLAIN | bit(F_RING_PACKED);

export class PackedFrontEnd extends FrontEnd {
  readonly #bench: DeviceBench;
  /** By ring: buffers posted and taken back, ever, from slot 0 of the first lap on. */
  readonly #posted: number[] = [];
  readonly #used: number[] = [];

  constructor(bench: DeviceBench, device: NetDevice, size = 16, fd?: number) {
    super(bench, device, size, fd);
    this.#bench = bench;
  }

  override open(acked = PACKED): this {
    return super.open(acked);
  }

  override start(queue: number, base = WRAP): void {
    super.start(queue, base);
  }

  /** Slot and wrap counter (virtio 1.2 §2.8.1) of the `n`th buffer. */
  position(n: number): number {
    return (n % this.size) | (Math.floor(n / this.size) % 2 === 0 ? WRAP : 0);
  }

  /** What GET_VRING_BASE answers when `n` buffers were taken and given back. */
  base(n: number): number {
    return this.position(n) * 0x1_0001;
  }

  #slot(queue: number, n: number): number {
    return this.linear(this.at(queue).desc) + (n % this.size) * DESC_SIZE;
  }

  override post(
    queue: number,
    length: number,
    write: boolean,
    head: Uint8Array = new Uint8Array(),
    flags = 0,
  ): void {
    const view = new DataView(this.#bench.control.memory.buffer);
    const n = this.#posted[queue] ?? 0;
    const buffer = this.at(queue).buffers + (n % this.size) * PAGE;
    const at = this.#slot(queue, n);
    this.#bench.control.bytes.set(head, this.linear(buffer));
    view.setBigUint64(at, GPA + BigInt(buffer), true);
    view.setUint32(at + 8, length, true);
    view.setUint16(at + 12, n % this.size, true);
    const lap = this.position(n) & WRAP ? DESC_F_AVAIL : DESC_F_USED;
    view.setUint16(at + 14, flags | lap | (write ? DESC_F_WRITE : 0), true);
    this.#posted[queue] = n + 1;
  }

  /** Buffers that came back, ever; throws when one is not the one that is next. */
  override usedIdx(queue: number): number {
    let used = this.#used[queue] ?? 0;
    for (; used < (this.#posted[queue] ?? 0); used++) {
      const at = this.#slot(queue, used);
      const lap = this.position(used) & WRAP ? DESC_F_AVAIL | DESC_F_USED : 0;
      const flags = this.#bench.control.get16(at + 14) & (DESC_F_AVAIL | DESC_F_USED);
      if (flags !== lap) break;
      const id = this.#bench.control.get16(at + 12);
      if (id !== used % this.size)
        throw new Error(`id ${id} came back, ${used % this.size} was next`);
    }
    this.#used[queue] = used;
    return used & 0xffff;
  }

  /** The device event area of a ring: {off_wrap, flags}. */
  deviceEvent(queue: number): { offWrap: number; flags: number } {
    const at = this.linear(this.at(queue).used);
    const { control } = this.#bench;
    return { offWrap: control.get16(at), flags: control.get16(at + 2) };
  }
}
