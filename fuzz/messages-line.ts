// The socket between a fuzzed front end and its session: what is sent is handled at once, and what comes
// back is held against the rules of replies.

import assert from 'node:assert/strict';
import * as vu from '../src/abi/vhost-user.ts';
import { close, type EventLoop, recvWithFds, sendWithFds, socketPair } from '../src/linux/index.ts';
import { ruleOf, Session } from '../src/vhost-user/index.ts';
import type { NetDevice } from '../src/virtio/device.ts';

/** A reply as it came. */
export type Reply = [request: number, flags: number, payload: Buffer];

/** A loop whose sources are looked at when the fuzzer says so. */
class HandLoop {
  readonly #watchers = new Map<number, () => void>();

  watch(fd: number, _events: number, watcher: () => void): () => void {
    this.#watchers.set(fd, watcher);
    return () => {
      if (this.#watchers.get(fd) === watcher) this.#watchers.delete(fd);
    };
  }

  turn(): void {
    for (const watcher of [...this.#watchers.values()]) watcher();
  }
}

/** One connected front end, and what its session said. */
export class Line {
  readonly fd: number;
  readonly session: Session;
  readonly said: string[] = [];
  readonly #loop = new HandLoop();
  readonly #buffer = Buffer.alloc(65536);
  #open = true;

  constructor(device: NetDevice) {
    const [ours, theirs] = socketPair();
    this.fd = theirs;
    this.session = new Session({
      fd: ours,
      loop: this.#loop as unknown as EventLoop,
      backend: device,
      onNotice: (message) => this.said.push(message),
      onClosed: (reason) => this.said.push(reason),
    });
  }

  /** Sends, lets the session handle it, returns the replies. */
  send(bytes: Uint8Array, fds: number[] = []): Reply[] {
    try {
      assert.equal(sendWithFds(this.fd, bytes, fds), bytes.length);
    } catch (error) {
      // EPIPE: it has hung up.
      assert.equal(this.session.open, false, String(error));
    }
    this.#loop.turn();
    return this.#replies();
  }

  #replies(): Reply[] {
    const replies: Reply[] = [];
    let got: ReturnType<typeof recvWithFds>;
    try {
      got = recvWithFds(this.fd, this.#buffer, 1);
    } catch {
      return replies; // ECONNRESET: closed with something unread.
    }
    if (got === 'again') return replies;
    assert.equal(got.fds.length, 0, 'a reply came with a descriptor');
    for (let at = 0; at < got.bytes; ) {
      const size = this.#buffer.readUInt32LE(at + 8);
      const payload = Buffer.from(this.#buffer.subarray(at + 12, at + 12 + size));
      replies.push([this.#buffer.readUInt32LE(at), this.#buffer.readUInt32LE(at + 4), payload]);
      at += 12 + size;
    }
    return replies;
  }

  hangUp(): void {
    if (!this.#open) return;
    this.#open = false;
    close(this.fd);
    this.#loop.turn();
    assert.equal(this.session.open, false, 'the session did not notice the end');
  }
}

/** What must come back, for as long as the peer's bytes are whole messages. */
export class Replies {
  #whole = true;
  #acknowledged = false;

  check(bytes: Buffer, replies: Reply[], open: boolean): void {
    this.#whole &&= bytes.length >= vu.HEADER_SIZE && bytes.length === 12 + bytes.readUInt32LE(8);
    for (const [, flags] of replies) assert.equal(flags, vu.REPLY_FLAGS);
    if (!this.#whole) return;
    const request = bytes.readUInt32LE(0);
    const asks = (bytes.readUInt32LE(4) & vu.FLAG_NEED_REPLY) !== 0;
    if (!open) {
      // What was refused in the same turn may not have been told.
      assert.equal(replies.length, 0, `${request} was answered and the connection closed`);
      return;
    }
    const before = this.#acknowledged;
    if (request === vu.VU_SET_PROTOCOL_FEATURES) {
      const refused = replies.length === 1 && replies[0]![2].readBigUInt64LE() !== 0n;
      if (!refused) this.#acknowledged = (bytes.readUInt32LE(12) & (1 << vu.PF_REPLY_ACK)) !== 0;
      assert.ok(!refused || before, 'a refusal that nobody could be told of');
    }
    const own = ruleOf(request)?.reply !== undefined;
    const wanted = own || (asks && this.#acknowledged) ? 1 : 0;
    assert.equal(replies.length, wanted, `${request}: ${replies.length} replies, not ${wanted}`);
    if (wanted === 1) assert.equal(replies[0]![0], request);
  }
}
