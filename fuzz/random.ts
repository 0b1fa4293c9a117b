// Numbers from a seed (mulberry32), without an allocation.

export class Random {
  readonly #state: Int32Array;

  constructor(seed: number) {
    this.#state = Int32Array.of(seed | 0);
  }

  /** Goes on as number `part` of what `seed` begins, whatever was drawn before. */
  restart(seed: number, part: number): void {
    this.#state[0] = Math.imul(seed ^ Math.imul(part + 1, 0x9e3779b1), 0x85ebca6b);
    this.next();
  }

  /** 32 bits, signed. */
  next(): number {
    const state = (this.#state[0]! + 0x6d2b79f5) | 0;
    this.#state[0] = state;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return x ^ (x >>> 14);
  }

  /** A whole number below `n`, 1 to 65536. */
  below(n: number): number {
    return Math.imul(this.next() >>> 16, n) >>> 16;
  }

  /** True once in `n` times. */
  once(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}
