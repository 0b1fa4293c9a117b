// What the front ends of one port may take of the main thread and of the workers' patience: time of the
// CPU, so much at once and then a small share. Whoever has used it up is not read for a while.
//
// CPU time, not time of the clock: on a crowded machine a front end does not pay for waiting.

/** CPU microseconds at once: a port of 8 queue pairs starts with some 500 requests, 50 ms in all. */
const BURST = 300_000;
/** CPU microseconds gained in a millisecond: 2 %. */
const RATE = 20;
/** Microseconds charged for each request beside its own: the loop's and the workers' wake-up. */
const REQUEST = 50;

export interface BudgetOptions {
  /** CPU microseconds at once; Infinity for no limit. */
  burst?: number;
  /** CPU microseconds used by this thread. */
  cpu?: () => number;
  /** Milliseconds of any clock. */
  now?: () => number;
}

export class Budget {
  /** Milliseconds that an exhausted front end is not read. */
  static readonly PAUSE = 50;

  readonly #burst: number;
  readonly #cpu: () => number;
  readonly #now: () => number;
  #left: number;
  #at: number;
  #used = 0;

  constructor(options: BudgetOptions = {}) {
    const { burst = BURST, cpu = threadTime, now = () => performance.now() } = options;
    this.#burst = burst;
    this.#left = burst;
    this.#cpu = cpu;
    this.#now = now;
    this.#at = now();
  }

  /** Microseconds charged so far. */
  get used(): number {
    return this.#used;
  }

  /** Runs `work` and charges what it took. */
  charge<T>(work: () => T): T {
    const start = this.#cpu();
    try {
      return work();
    } finally {
      const cost = REQUEST + this.#cpu() - start;
      this.#used += cost;
      this.#left -= cost;
    }
  }

  /** Whether more was used than there was. A debt has an end, too: at most a burst is owed. */
  get exhausted(): boolean {
    const now = this.#now();
    const left = Math.max(-this.#burst, this.#left) + (now - this.#at) * RATE;
    this.#left = Math.min(this.#burst, left);
    this.#at = now;
    return this.#left <= 0;
  }
}

function threadTime(): number {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}
