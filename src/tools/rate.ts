// Pacing: how many frames are due.

/** What a pause may leave to be made up for, seconds of the rate; more is forgotten. */
const DEBT = 1;

/**
 * Frames at `rate` a second from `start` (ns) on, the first at once. It counts from the start and not
 * from the last frame, so that a late wake-up makes no frame late after it.
 */
export class Pacer {
  readonly #rate: number;
  #start: number;
  #sent = 0;

  constructor(rate: number, start: number) {
    this.#rate = rate;
    this.#start = start;
  }

  /** Frames due at `now` and not sent yet. */
  due(now: number): number {
    const behind = this.#dueSince(now);
    const most = Math.max(this.#rate * DEBT, 1);
    if (behind <= most) return behind;
    this.#start += ((behind - most) / this.#rate) * 1e9;
    return Math.floor(most);
  }

  sent(frames: number): void {
    this.#sent += frames;
  }

  /** When `frames` will be due, ns. */
  when(frames: number): number {
    return this.#start + ((this.#sent + frames - 1) / this.#rate) * 1e9;
  }

  #dueSince(now: number): number {
    // The slack is a rounding error of when()'s quotient: at its time the frame is due.
    const elapsed = ((now - this.#start) / 1e9) * this.#rate + 1e-6;
    return Math.max(Math.floor(elapsed) + 1 - this.#sent, 0);
  }
}
