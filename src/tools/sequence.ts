// What a stream of sequence numbers lost, reordered or repeated.

/** How far back a late number is still told from one that came twice. */
const WINDOW = 1 << 16;

export class SequenceTracker {
  /** Times numbers were skipped. */
  gaps = 0;
  /** Numbers that were skipped and have not come since. */
  lost = 0;
  /** Numbers that came after a later one. */
  reordered = 0;
  duplicates = 0;
  /** Frames too short for a number. */
  short = 0;
  /** The last that was not as expected. */
  last: { expected: number; found: number } | undefined;
  #next: number | undefined;
  readonly #missing = new Uint8Array(WINDOW);

  add(number: number): void {
    // The first is taken as it comes.
    const expected = this.#next ?? number;
    const ahead = (number - expected) | 0;
    if (ahead < 0) {
      this.#late(number, expected, -ahead);
      return;
    }
    if (ahead > 0) {
      this.gaps++;
      this.lost += ahead;
      this.last = { expected, found: number };
      if (ahead >= WINDOW) this.#missing.fill(1);
      else for (let n = 0; n < ahead; n++) this.#missing[(expected + n) & (WINDOW - 1)] = 1;
    }
    this.#missing[number & (WINDOW - 1)] = 0;
    this.#next = (number + 1) >>> 0;
  }

  #late(number: number, expected: number, behind: number): void {
    this.last = { expected, found: number };
    const index = number & (WINDOW - 1);
    if (behind <= WINDOW && this.#missing[index] === 0) {
      this.duplicates++;
      return;
    }
    this.reordered++;
    if (behind > WINDOW) return;
    this.lost--;
    this.#missing[index] = 0;
  }
}
