// Round trips: counted in buckets, so that a long run takes no more memory than a short one.

/** Buckets each power of two is cut into: a percentile is right within 1 %. */
const PARTS = 128;
const PART_BITS = 7;
/** Powers of two: up to 2^48 ns, three days. */
const POWERS = 48;

export class Histogram {
  readonly #counts = new Uint32Array((POWERS - PART_BITS + 1) * PARTS);
  count = 0;
  sum = 0;
  min = Number.POSITIVE_INFINITY;
  max = 0;

  add(ns: number): void {
    const value = Math.max(Math.round(ns), 0);
    const index = bucketOf(value);
    this.#counts[Math.min(index, this.#counts.length - 1)]!++;
    this.count++;
    this.sum += value;
    if (value < this.min) this.min = value;
    if (value > this.max) this.max = value;
  }

  get mean(): number {
    return this.count === 0 ? 0 : this.sum / this.count;
  }

  /** The value that `percent` of all are at or below. */
  percentile(percent: number): number {
    let left = Math.ceil((percent / 100) * this.count);
    for (let index = 0; index < this.#counts.length; index++) {
      left -= this.#counts[index]!;
      if (left <= 0 && this.count > 0) return Math.min(topOf(index), this.max);
    }
    return this.max;
  }

  /** Counts by power of two, from the first that has any to the last. */
  powers(): { first: number; counts: number[] } {
    const counts = new Array<number>(POWERS).fill(0);
    this.#counts.forEach((count, index) => {
      if (count > 0) counts[Math.floor(Math.log2(Math.max(topOf(index), 1)))]! += count;
    });
    const first = counts.findIndex((count) => count > 0);
    if (first < 0) return { first: 0, counts: [] };
    return { first, counts: counts.slice(first, counts.findLastIndex((count) => count > 0) + 1) };
  }

  clear(): void {
    this.#counts.fill(0);
    this.count = 0;
    this.sum = 0;
    this.min = Number.POSITIVE_INFINITY;
    this.max = 0;
  }
}

/** Below 2 * PARTS each value has its own; from there on a power of two has PARTS. */
function bucketOf(value: number): number {
  if (value < PARTS) return value;
  const power = Math.floor(Math.log2(value));
  return (power - PART_BITS + 1) * PARTS + Math.floor(value / 2 ** (power - PART_BITS)) - PARTS;
}

/** The largest value of a bucket. */
function topOf(index: number): number {
  if (index < PARTS) return index;
  const shift = Math.floor(index / PARTS) - 1;
  return ((index % PARTS) + PARTS + 1) * 2 ** shift - 1;
}
