// Notices to people about a peer that may be hostile: the same sentence once, and only so many
// different ones, so that no peer can fill a log.

/** Different notices in one window; a window lasts WINDOW_MS. */
const PER_WINDOW = 16;
const WINDOW_MS = 10_000;
/** Sentences remembered so as not to repeat them. */
const MAX_REMEMBERED = 64;

export class Notices {
  readonly #emit: (message: string) => void;
  readonly #now: () => number;
  readonly #said = new Set<string>();
  #windowStart = Number.NEGATIVE_INFINITY;
  #inWindow = 0;
  #suppressed = 0;

  /** `now`: milliseconds of any clock. */
  constructor(emit: (message: string) => void, now: () => number = () => performance.now()) {
    this.#emit = emit;
    this.#now = now;
  }

  /** Passes a sentence on (or calls `tell` in its place), unless it was said before or too many were. */
  say(message: string, tell: (message: string) => void = this.#emit): void {
    if (this.#said.has(message)) return;
    const now = this.#now();
    if (now - this.#windowStart >= WINDOW_MS) {
      this.#windowStart = now;
      this.#inWindow = 0;
    }
    if (this.#inWindow >= PER_WINDOW) {
      this.#suppressed++;
      return;
    }
    this.#inWindow++;
    if (this.#said.size >= MAX_REMEMBERED) this.#said.clear();
    this.#said.add(message);
    if (this.#suppressed > 0) this.#emit(`${this.#suppressed} more notices were not shown`);
    this.#suppressed = 0;
    tell(message);
  }

  /** The spell of trouble is over: what was said may be said again. */
  forget(): void {
    this.#said.clear();
  }
}
