// What became of a port's link since the port was added, as PortInfo tells it.

import type { LinkDown, PortHistory } from '../types.ts';

export class History {
  #since = Date.now();
  #connections = 0;
  #lost = 0;
  #down: LinkDown | undefined;
  /** When it went down; as `#opened`, by performance.now(). */
  #downAt = 0;
  #restarts = 0;
  #opened = 0;
  #resumed: number | undefined;

  /** The switch, opened at `opened`, took the port up from one before it, and that `restarts` times by now. */
  restarted(restarts: number, opened: number): void {
    this.#restarts = restarts;
    this.#opened = opened;
  }

  get restarts(): number {
    return this.#restarts;
  }

  get connections(): number {
    return this.#connections;
  }

  connected(): void {
    this.#connections++;
    this.#since = Date.now();
  }

  disconnected(): void {
    this.#since = Date.now();
  }

  linkUp(): void {
    this.#since = Date.now();
    const now = performance.now();
    if (this.#down) this.#down = { ...this.#down, gap: now - this.#downAt };
    else if (this.#restarts > 0) this.#resumed = now - this.#opened;
  }

  linkDown(down: LinkDown): void {
    this.#since = Date.now();
    this.#down = down;
    this.#downAt = performance.now();
    if (down.cause === 'lost') this.#lost++;
  }

  read(): PortHistory {
    return {
      since: this.#since,
      connections: this.#connections,
      lost: this.#lost,
      ...(this.#down ? { down: this.#down } : {}),
      restarts: this.#restarts,
      ...(this.#resumed === undefined ? {} : { resumed: this.#resumed }),
    };
  }
}
