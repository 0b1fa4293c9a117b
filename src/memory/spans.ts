// First-fit allocation of address ranges: the window's slots and the driver heap.

interface Span {
  start: number;
  end: number;
}

export class Spans {
  /** Free spans, sorted, never adjacent. */
  #free: Span[];

  constructor(start: number, end: number) {
    this.#free = [{ start, end }];
  }

  /** Length of the largest free span. */
  largest(): number {
    return this.#free.reduce((most, { start, end }) => Math.max(most, end - start), 0);
  }

  /**
   * Takes `length` from the first span where it fits with `start + bias` a multiple of `align`.
   * Returns the start, or undefined when it fits nowhere.
   */
  take(length: number, align: number, bias = 0): number | undefined {
    for (const [i, span] of this.#free.entries()) {
      const start = roundUp(span.start + bias, align) - bias;
      const end = start + length;
      if (end > span.end) continue;
      const rest = [
        { start: span.start, end: start },
        { start: end, end: span.end },
      ];
      this.#free.splice(i, 1, ...rest.filter(({ start, end }) => end > start));
      return start;
    }
    return undefined;
  }

  /** Gives back what `take` returned, with the same length. */
  give(start: number, length: number): void {
    const spans = [...this.#free, { start, end: start + length }];
    spans.sort((a, b) => a.start - b.start);
    this.#free = [];
    for (const span of spans) {
      const last = this.#free.at(-1);
      if (last?.end === span.start) last.end = span.end;
      else this.#free.push(span);
    }
  }
}

export function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}
