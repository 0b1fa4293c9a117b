// The control area seen from TypeScript: one linear memory, three views on it.

import { MEMORY_PAGES, RING_BASE, RING_STRIDE, RINGS_PER_PORT } from '../abi/layout.ts';

/** Ring index of virtqueue `queue` of port `port`. */
export function ringIndex(port: number, queue: number): number {
  return port * RINGS_PER_PORT + queue;
}

/** Linear address of a ring block. */
export function ringAddress(index: number): number {
  return RING_BASE + index * RING_STRIDE;
}

export class Control {
  readonly memory: WebAssembly.Memory;
  readonly bytes: Uint8Array<ArrayBufferLike>;
  readonly #u32: Int32Array<ArrayBufferLike>;
  readonly #u64: BigUint64Array<ArrayBufferLike>;
  readonly #f64: Float64Array<ArrayBufferLike>;

  /** Wraps a memory another thread made, or makes the 4 GiB one (address space, not RAM). */
  constructor(memory?: WebAssembly.Memory) {
    this.memory =
      memory ??
      new WebAssembly.Memory({ initial: MEMORY_PAGES, maximum: MEMORY_PAGES, shared: true });
    const { buffer } = this.memory;
    this.bytes = new Uint8Array(buffer);
    this.#u32 = new Int32Array(buffer);
    this.#u64 = new BigUint64Array(buffer);
    this.#f64 = new Float64Array(buffer);
  }

  /** Atomic u32 at a 4-byte aligned linear address. */
  get(address: number): number {
    return Atomics.load(this.#u32, address >>> 2) >>> 0;
  }

  set(address: number, value: number): void {
    Atomics.store(this.#u32, address >>> 2, value | 0);
  }

  add(address: number, by: number): number {
    return (Atomics.add(this.#u32, address >>> 2, by) + by) >>> 0;
  }

  /** Takes the lock at `address`, which workers hold for a bounded number of loads and stores. */
  lock(address: number): void {
    while (Atomics.compareExchange(this.#u32, address >>> 2, 0, 1) !== 0) {}
  }

  unlock(address: number): void {
    this.set(address, 0);
  }

  /** Sleeps up to `ms` while the u32 at `address` is `value`. */
  pause(address: number, value: number, ms: number): void {
    Atomics.wait(this.#u32, address >>> 2, value | 0, ms);
  }

  get16(address: number): number {
    return this.bytes[address]! | (this.bytes[address + 1]! << 8);
  }

  get64(address: number): bigint {
    return Atomics.load(this.#u64, address >>> 3);
  }

  set64(address: number, value: bigint): void {
    Atomics.store(this.#u64, address >>> 3, value);
  }

  /** A u64 counter as a number, exact to 2^53. */
  counter(address: number): number {
    return Number(Atomics.load(this.#u64, address >>> 3));
  }

  float(address: number): number {
    return this.#f64[address >>> 3]!;
  }

  setFloat(address: number, value: number): void {
    this.#f64[address >>> 3] = value;
  }

  addFloat(address: number, by: number): void {
    this.#f64[address >>> 3]! += by;
  }
}
