// One vhost-user socket: the stream of bytes and descriptors made into messages, either way round.
//
// Reads never go past the message they are for (12 bytes of header, then its payload), so the
// descriptors that a read returns belong to that message, however the peer cut its bytes.
// Memory is bounded: while replies wait for a peer that does not read them, nothing is received.
// So is time: a turn ends after TURN, and a peer that has used up its budget is not read for a while.

import { HEADER_SIZE, MAX_FDS } from '../abi/vhost-user.ts';
import {
  close,
  dup,
  EPOLLIN,
  EPOLLOUT,
  type EventLoop,
  recvWithFds,
  sendWithFds,
} from '../linux/index.ts';
import { Budget } from './budget.ts';
import { decodeHeader, type Header, type Message } from './message.ts';

/** Messages handled before other sources of the loop have their turn, and what is charged for. */
const MESSAGES_PER_TURN = 64;
const TURN = 1000;

export interface ConnectionHandlers {
  /** The handler owns the message's fds from here on. It must not throw. */
  onMessage(message: Message): void;
  /** Called once, with a reason for people. `fault`: something was wrong, not a plain hang-up. */
  onClosed(reason: string, fault: boolean): void;
}

interface Output {
  bytes: Uint8Array;
  fds: number[];
}

export class Connection {
  readonly #fd: number;
  readonly #loop: EventLoop;
  readonly #handlers: ConnectionHandlers;
  readonly #budget: Budget;
  #unwatch: () => void;
  #pause: NodeJS.Timeout | undefined;
  #open = true;

  // The message being received: its header's bytes, then its payload.
  readonly #headerBytes = Buffer.allocUnsafeSlow(HEADER_SIZE);
  #header: Header | undefined;
  #target: Uint8Array = this.#headerBytes;
  #filled = 0;
  #fds: number[] = [];

  readonly #output: Output[] = [];

  /**
   * Owns `fd`, a connected non-blocking stream socket, from here on. `budget` is charged for what is
   * received; by default nothing is held back.
   */
  constructor(
    fd: number,
    loop: EventLoop,
    handlers: ConnectionHandlers,
    budget = new Budget({ burst: Number.POSITIVE_INFINITY }),
  ) {
    this.#fd = fd;
    this.#loop = loop;
    this.#handlers = handlers;
    this.#budget = budget;
    try {
      this.#unwatch = this.#watch();
    } catch (error) {
      close(fd);
      throw error;
    }
  }

  get open(): boolean {
    return this.#open;
  }

  /** Nothing is read until `resume`. False, and nothing changes, in the middle of a message. */
  suspend(): boolean {
    const between = this.#header === undefined && this.#filled === 0;
    if (!this.#open || !between || this.#output.length > 0) return false;
    this.#unwatch();
    clearTimeout(this.#pause);
    this.#pause = undefined;
    return true;
  }

  resume(): void {
    if (this.#open) this.#rewatch();
  }

  /** Lets go of the socket, which another process has now: the peer notices nothing, and nobody is told. */
  release(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#unwatch();
    clearTimeout(this.#pause);
    close(this.#fd);
  }

  /** For what is next: the peer's bytes, or room for ours. */
  #watch(): () => void {
    const events = this.#output.length > 0 ? EPOLLOUT : EPOLLIN;
    return this.#loop.watch(this.#fd, events, () => this.#ready());
  }

  /** Sends a message, now or when the peer reads again. The fds stay the caller's. */
  send(bytes: Uint8Array, fds: number[] = []): void {
    if (!this.#open) return;
    try {
      const sent = this.#output.length > 0 ? 'again' : sendWithFds(this.#fd, bytes, fds);
      if (sent === bytes.length) return;
      // The descriptors went with the first byte, or wait as duplicates of our own.
      if (sent === 'again') this.#output.push({ bytes, fds: fds.map(dup) });
      else this.#output.push({ bytes: bytes.subarray(sent), fds: [] });
      if (this.#output.length === 1) this.#rewatch();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Closes the socket and every descriptor not handed over. Repeating it does nothing. */
  close(reason: string, fault = false): void {
    if (!this.#open) return;
    this.#open = false;
    this.#unwatch();
    clearTimeout(this.#pause);
    close(this.#fd);
    for (const fd of this.#fds.splice(0)) close(fd);
    for (const { fds } of this.#output.splice(0)) for (const fd of fds) close(fd);
    this.#handlers.onClosed(reason, fault);
  }

  #rewatch(): void {
    if (this.#pause !== undefined) return;
    this.#unwatch();
    try {
      this.#unwatch = this.#watch();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Looks away from the peer for a while; what it sends waits in the socket. */
  #rest(): void {
    this.#unwatch();
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#budget.exhausted) this.#rest();
      else this.#rewatch();
    }, Budget.PAUSE);
  }

  #fail(error: unknown): void {
    this.close(error instanceof Error ? error.message : String(error), true);
  }

  #ready(): void {
    try {
      if (this.#output.length > 0 && !this.#flush()) return;
      const end = this.#budget.used + TURN;
      for (let turn = 0; turn < MESSAGES_PER_TURN && this.#budget.used < end; turn++) {
        const more = this.#budget.charge(() => this.#receive());
        if (!more || !this.#open || this.#output.length > 0) break;
      }
      if (this.#open && this.#budget.exhausted) this.#rest();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Sends what waits; true once nothing does. */
  #flush(): boolean {
    for (let next = this.#output[0]; next !== undefined; next = this.#output[0]) {
      const sent = sendWithFds(this.#fd, next.bytes, next.fds);
      if (sent === 'again') return false;
      for (const fd of next.fds.splice(0)) close(fd);
      next.bytes = next.bytes.subarray(sent);
      if (next.bytes.length === 0) this.#output.shift();
    }
    this.#rewatch();
    return true;
  }

  /** Receives the rest of one message and hands it over; false if it has not all come yet. */
  #receive(): boolean {
    if (this.#header === undefined) {
      if (!this.#fill()) return false;
      this.#header = decodeHeader(this.#headerBytes);
      this.#target = new Uint8Array(this.#header.size);
      this.#filled = 0;
    }
    if (!this.#fill()) return false;
    const { request, flags } = this.#header;
    const message = { request, flags, payload: this.#target, fds: this.#fds.splice(0) };
    this.#header = undefined;
    this.#target = this.#headerBytes;
    this.#filled = 0;
    this.#handlers.onMessage(message);
    return true;
  }

  /** Fills the target; false if the socket is empty, or was closed. */
  #fill(): boolean {
    while (this.#filled < this.#target.length) {
      const rest = this.#target.subarray(this.#filled);
      const got = recvWithFds(this.#fd, rest, MAX_FDS - this.#fds.length);
      if (got === 'again') return false;
      this.#fds.push(...got.fds);
      if (got.truncated) {
        // Either the peer sent too many, or this process is out of descriptors: some are lost.
        this.close('a message came with more descriptors than can be taken', true);
        return false;
      }
      if (got.bytes === 0) {
        const between = this.#header === undefined && this.#filled === 0;
        if (between) this.close('the peer closed the connection');
        else this.close('the peer closed the connection in the middle of a message', true);
        return false;
      }
      this.#filled += got.bytes;
    }
    return true;
  }
}
