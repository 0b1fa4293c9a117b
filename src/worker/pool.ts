// The datapath threads as main sees them: start, quiesce, watch kicks, stop.

import { Worker } from 'node:worker_threads';
import {
  NO_RING,
  SWITCH_WORKERS,
  WORKER_ACK,
  WORKER_BASE,
  WORKER_GENERATION,
  WORKER_PARKED,
  WORKER_SLEEPS,
  WORKER_SPIN,
  WORKER_STOP,
  WORKER_STRIDE,
} from '../abi/layout.ts';
import { aioContext, close, EPOLLET, EPOLLIN, Epoll, eventfd, signal } from '../linux/index.ts';
import type { Control } from '../memory/control.ts';
import type { WorkerData } from './worker.ts';

/** Nanoseconds a worker polls on before it sleeps, while that pays (worker.ts). */
const SPIN = 20_000;
/** A poll round takes microseconds; a worker silent for this long is lost. Milliseconds. */
const QUIESCE_LIMIT = 10_000;
/** Loads before the wait for a worker starts to sleep. */
const QUIESCE_SPIN = 2000;

interface Member {
  block: number;
  thread: Worker;
  epoll: Epoll;
  wake: number;
  gone: boolean;
  done: Promise<void>;
}

export class WorkerPool {
  readonly #control: Control;
  readonly #members: Member[] = [];

  /** Starts `count` threads; `mainFd` is the eventfd they signal when a ring is latched. */
  constructor(control: Control, count: number, mainFd: number, onExit: (error: Error) => void) {
    this.#control = control;
    control.set(SWITCH_WORKERS, count);
    for (let id = 0; id < count; id++) {
      const block = WORKER_BASE + id * WORKER_STRIDE;
      const epoll = new Epoll();
      const wake = eventfd();
      // Kicks carry their ring's index; this carries none.
      epoll.add(wake, EPOLLIN | EPOLLET, NO_RING);
      // Nothing to run before its first poll: until then it counts as parked.
      control.set(block + WORKER_PARKED, 1);
      control.set(block + WORKER_SPIN, SPIN);
      const thread = new Worker(new URL('./worker.ts', import.meta.url), {
        workerData: {
          id,
          memory: control.memory,
          epollFd: epoll.fd,
          aio: aioContext(),
          mainFd,
        } satisfies WorkerData,
      });
      const done = new Promise<void>((resolve) => {
        thread.once('exit', () => {
          member.gone = true;
          resolve();
        });
      });
      thread.on('error', (error: Error) => onExit(error));
      const member: Member = { block, thread, epoll, wake, gone: false, done };
      this.#members.push(member);
    }
  }

  get size(): number {
    return this.#members.length;
  }

  /**
   * Returns once no worker uses anything that was unpublished before the call: each has finished
   * its round and looked at the generation, or is parked and will look before it touches a ring.
   */
  quiesce(): void {
    const waiting = this.#members
      .filter(({ gone }) => !gone)
      .map((member) => {
        const generation = this.#control.add(member.block + WORKER_GENERATION, 1);
        signal(member.wake);
        return { ...member, generation };
      });
    for (const { block, generation } of waiting) {
      const start = performance.now();
      for (let spins = 0; !this.#passed(block, generation); spins++) {
        if (spins < QUIESCE_SPIN) continue;
        this.#control.pause(block + WORKER_ACK, this.#control.get(block + WORKER_ACK), 0.05);
        if (performance.now() - start > QUIESCE_LIMIT) {
          throw new Error('a datapath worker does not respond');
        }
      }
    }
  }

  #passed(block: number, generation: number): boolean {
    return (
      this.#control.get(block + WORKER_ACK) === generation ||
      this.#control.get(block + WORKER_PARKED) === 1
    );
  }

  /** Resolves once every thread has loaded the datapath and waits for work; before there are rings. */
  async ready(): Promise<void> {
    const sleeping = ({ block, gone }: Member) =>
      gone || this.#control.counter(block + WORKER_SLEEPS) > 0;
    while (!this.#members.every(sleeping)) await new Promise((done) => setTimeout(done, 1));
  }

  /** Lets worker `id` wake up for ring `ring` when `fd` is signalled; edge triggered, never read. */
  watch(id: number, fd: number, ring: number): void {
    this.#members[id]!.epoll.add(fd, EPOLLIN | EPOLLET, ring);
  }

  /** Before the fd is closed. */
  unwatch(id: number, fd: number): void {
    this.#members[id]!.epoll.remove(fd);
  }

  /** Ends all threads. */
  async close(): Promise<void> {
    for (const { block, wake } of this.#members) {
      this.#control.set(block + WORKER_STOP, 1);
      signal(wake);
    }
    await Promise.all(this.#members.map(({ done }) => done));
    for (const { epoll, wake } of this.#members) {
      epoll.close();
      close(wake);
    }
  }
}
