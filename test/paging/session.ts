// A sparse guest behind a real vhost-user socket: the messages a front end sends, and no more.

import { setTimeout as sleep } from 'node:timers/promises';
import * as vu from '../../src/abi/vhost-user.ts';
import {
  close,
  connectUnix,
  dup,
  eventfd,
  recvWithFds,
  sendWithFds,
  signal,
} from '../../src/linux/index.ts';
import { type Message, message, words } from '../switch/raw.ts';
import type { SparseGuest, SparseQueue } from './guest.ts';

export class Session {
  readonly guest: SparseGuest;
  readonly rx: SparseQueue;
  readonly tx: SparseQueue;
  readonly #socket: number;
  readonly #kicks = [eventfd(), eventfd()];

  constructor(guest: SparseGuest, path: string) {
    this.guest = guest;
    this.rx = guest.queue(0);
    this.tx = guest.queue(1);
    this.#socket = connectUnix(path);
  }

  #send({ bytes, fds = [] }: Message): void {
    sendWithFds(this.#socket, bytes, fds);
    for (const fd of fds) close(fd);
  }

  memTable(): void {
    const regions = this.guest.regions();
    const table = regions.flatMap(({ gpa, size, uva, mmapOffset }) => [gpa, size, uva, mmapOffset]);
    const fds = regions.map(({ fd }) => fd);
    this.#send(message(vu.VU_SET_MEM_TABLE, words(regions.length, 0, ...table), fds));
  }

  /** Features, memory and both rings; returns when all of it is done. */
  async open(features: bigint): Promise<void> {
    this.#send(message(vu.VU_SET_FEATURES, words(features | (1n << 30n))));
    this.memTable();
    for (const [index, queue] of [this.rx, this.tx].entries()) {
      const { flags, desc, used, avail, logGpa } = queue.address();
      this.#send(message(vu.VU_SET_VRING_NUM, words(index, this.guest.ringSize)));
      this.#send(message(vu.VU_SET_VRING_BASE, words(index, 0)));
      const address = words(index, flags, desc, used, avail, logGpa);
      this.#send(message(vu.VU_SET_VRING_ADDR, address));
      this.#send(message(vu.VU_SET_VRING_CALL, words(BigInt(index)), [eventfd()]));
      const kick = dup(this.#kicks[index]!);
      this.#send(message(vu.VU_SET_VRING_KICK, words(BigInt(index)), [kick]));
      this.#send(message(vu.VU_SET_VRING_ENABLE, words(index, 1)));
    }
    await this.settled();
  }

  /** Returns when all that was sent has been handled. Throws when the switch hung up. */
  async settled(): Promise<void> {
    this.#send(message(vu.VU_GET_FEATURES));
    const buffer = Buffer.alloc(64);
    for (;;) {
      const got = recvWithFds(this.#socket, buffer, 1);
      if (got === 'again') await sleep(1);
      else if (got.bytes === 0) throw new Error('the switch hung up');
      else return;
    }
  }

  kick(): void {
    for (const fd of this.#kicks) signal(fd);
  }

  close(): void {
    close(this.#socket);
    for (const fd of this.#kicks) close(fd);
    this.guest.close();
  }
}
