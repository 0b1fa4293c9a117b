// The control plane's event loop: one epoll_wait outstanding on a pool thread feeds callbacks on
// the thread that made the loop.
//
// Events are matched by token, not by fd: when one callback of a batch closes an fd and the next
// opens another of the same number, what is left of the batch must not reach the newcomer.

import { Epoll } from './epoll.ts';
import { close, drain, eventfd, signal } from './eventfd.ts';

/** Called with the EPOLL bits that are ready. */
export type Watcher = (events: number) => void;

// Batches handled without a pool thread in between, so that a burst of messages costs one hop;
// bounded, so that Node's own sources are not starved.
const WARM_BATCHES = 8;
const WAKE_TOKEN = 0;

/** One per process is meant: each occupies a thread of libuv's pool of four while it is open. */
export class EventLoop {
  readonly #epoll = new Epoll(64);
  readonly #wake = eventfd();
  readonly #watchers = new Map<number, Watcher>();
  readonly #onError: (error: unknown) => void;
  readonly #finished: Promise<void>;
  // A process that exits waits for the pool's threads: let ours go.
  readonly #onExit = () => signal(this.#wake);
  #nextToken = 1;
  #open = true;

  /** `onError` gets what a callback threw; without one it is reported on stderr. */
  constructor(options: { onError?: (error: unknown) => void } = {}) {
    this.#onError = options.onError ?? ((error) => console.error(error));
    this.#epoll.add(this.#wake, 1, WAKE_TOKEN);
    process.on('exit', this.#onExit);
    this.#finished = this.#run();
  }

  /** False from the call of close() on. */
  get open(): boolean {
    return this.#open;
  }

  /**
   * Calls `watcher` with the ready EPOLL bits of fd until the function returned is called, which
   * must happen before the fd is closed. Throws SystemError (EEXIST: fd is watched already).
   */
  watch(fd: number, events: number, watcher: Watcher): () => void {
    if (!this.#open) throw new Error('the event loop is closed');
    const token = this.#newToken();
    this.#epoll.add(fd, events, token);
    this.#watchers.set(token, watcher);
    return () => {
      // After close() there is no epoll left to remove it from.
      if (this.#watchers.delete(token) && this.#open) this.#epoll.remove(fd);
    };
  }

  #newToken(): number {
    do {
      this.#nextToken = (this.#nextToken + 1) >>> 0;
    } while (this.#nextToken === WAKE_TOKEN || this.#watchers.has(this.#nextToken));
    return this.#nextToken;
  }

  /** Ends the loop; resolves once no thread waits any more. Watched fds stay their owners'. */
  close(): Promise<void> {
    if (this.#open) {
      this.#open = false;
      this.#watchers.clear();
      signal(this.#wake);
    }
    return this.#finished;
  }

  async #run(): Promise<void> {
    try {
      while (this.#open) {
        let count = await this.#epoll.waitAsync(-1);
        for (let warm = 0; count > 0 && this.#open; warm++) {
          this.#deliver(count);
          count = this.#open && warm < WARM_BATCHES ? this.#epoll.wait(0) : 0;
        }
      }
    } catch (error) {
      this.#open = false;
      this.#report(error);
    }
    process.off('exit', this.#onExit);
    this.#epoll.close();
    close(this.#wake);
  }

  #deliver(count: number): void {
    for (let i = 0; i < count; i++) {
      const token = this.#epoll.data(i);
      if (token === WAKE_TOKEN) {
        drain(this.#wake);
        continue;
      }
      try {
        this.#watchers.get(token)?.(this.#epoll.events(i));
      } catch (error) {
        this.#report(error);
      }
    }
  }

  #report(error: unknown): void {
    try {
      this.#onError(error);
    } catch (second) {
      console.error(error, second);
    }
  }
}
