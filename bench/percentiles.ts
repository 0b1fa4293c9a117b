// What lies below how many of a hundred measurements.

export interface Percentiles {
  count: number;
  p50: number;
  p99: number;
  p999: number;
}

/** By rank, of numbers in any order; NaN of none. */
export function percentiles(numbers: readonly number[]): Percentiles {
  const sorted = Float64Array.from(numbers).sort();
  const at = (part: number) => sorted[Math.ceil(sorted.length * part) - 1] ?? Number.NaN;
  return { count: sorted.length, p50: at(0.5), p99: at(0.99), p999: at(0.999) };
}
