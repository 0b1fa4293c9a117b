// Between QEMU and a port: passes vhost-user messages and their descriptors on, and leaves out a
// protocol feature that the port offers. QEMU is then the front end that knows no better.

import { VU_GET_PROTOCOL_FEATURES } from '../../src/abi/vhost-user.ts';
import {
  acceptUnix,
  close,
  connectUnix,
  EPOLLIN,
  EventLoop,
  listenUnix,
} from '../../src/linux/index.ts';
import { Connection } from '../../src/vhost-user/connection.ts';
import type { Message } from '../../src/vhost-user/index.ts';

export class Relay {
  /** How often each request was made. */
  readonly requests = new Map<number, number>();
  readonly #loop: EventLoop;
  readonly #listener: number;
  readonly #hidden: bigint;
  #ends: Connection[] = [];

  /** Listens on `path` for one front end at a time; `hidden`: the protocol feature's bit. */
  constructor(path: string, port: string, hidden: number) {
    this.#hidden = 1n << BigInt(hidden);
    this.#loop = new EventLoop({
      onError: (error) => {
        throw error;
      },
    });
    this.#listener = listenUnix(path);
    this.#loop.watch(this.#listener, EPOLLIN, () => {
      this.#join(acceptUnix(this.#listener), connectUnix(port));
    });
  }

  #join(front: number, back: number): void {
    const end = (fd: number, other: () => Connection, see: (message: Message) => void) =>
      new Connection(fd, this.#loop, {
        onMessage: (message) => {
          see(message);
          const header = Buffer.alloc(12);
          header.writeUInt32LE(message.request, 0);
          header.writeUInt32LE(message.flags, 4);
          header.writeUInt32LE(message.payload.length, 8);
          other().send(Buffer.concat([header, message.payload]), message.fds);
          for (const fd of message.fds) close(fd);
        },
        onClosed: (reason) => other().close(reason),
      });
    const frontEnd: Connection = end(
      front,
      () => backEnd,
      ({ request }) => this.requests.set(request, (this.requests.get(request) ?? 0) + 1),
    );
    const backEnd: Connection = end(
      back,
      () => frontEnd,
      ({ request, payload }) => {
        if (request !== VU_GET_PROTOCOL_FEATURES) return;
        const view = new DataView(payload.buffer, payload.byteOffset);
        view.setBigUint64(0, view.getBigUint64(0, true) & ~this.#hidden, true);
      },
    );
    this.#ends = [frontEnd, backEnd];
  }

  async close(): Promise<void> {
    for (const end of this.#ends) end.close('the relay ends');
    await this.#loop.close();
    close(this.#listener);
  }
}
