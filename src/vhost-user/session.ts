// The device side of one connected front end: every message goes through the one table of rules
// and the one table of handlers, and every outcome through one place that replies or closes.
//
// Rules of replies (vhost-user, "Communication", REPLY_ACK):
// - A request with a reply of its own gets that and nothing else.
// - Any other gets a u64, zero for success, if it asks (NEED_REPLY) and REPLY_ACK is negotiated
//   once it has been handled: SET_PROTOCOL_FEATURES may itself ask.
// - A request that fails and cannot be told so ends the connection.

import * as vu from '../abi/vhost-user.ts';
import { close, hungUp } from '../linux/index.ts';
import type { PeerInfo } from '../types.ts';
import { type Backend, Refusal } from './backend.ts';
import { Connection } from './connection.ts';
import { HANDLERS, type Negotiation } from './handlers.ts';
import { decodePayload, encodeMessage, type Message, type RequestId, ruleOf } from './message.ts';
import { protocolFeatureNames, requestName } from './names.ts';
import type { PayloadKind, Payloads } from './payload.ts';
import { peerOf, sentence } from './peer.ts';
import type { Meeting, MeetingOptions } from './rendezvous.ts';

/** onNotice tells of requests that were refused; onClosed comes after the back end's disconnected(). */
export interface SessionOptions extends MeetingOptions {
  backend: Backend;
  /** Of a session that began in another process: what was negotiated there, bits. */
  protocolFeatures?: bigint;
}

type AnyHandler = (session: Negotiation, value: unknown, message: Message) => unknown;

export class Session implements Meeting {
  readonly peer: PeerInfo | undefined;
  readonly #options: SessionOptions;
  readonly #connection: Connection;
  readonly #negotiation: Negotiation;
  #requests = 0;

  constructor(options: SessionOptions) {
    this.#options = options;
    const { backend, protocolFeatures } = options;
    this.#negotiation = { backend, protocolFeatures: protocolFeatures ?? 0n };
    if (protocolFeatures !== undefined) this.#requests = 1;
    this.peer = peerOf(options.fd);
    const handlers = {
      onMessage: (message: Message) => this.#receive(message),
      onClosed: (reason: string, fault: boolean) => this.#closed(reason, fault),
    };
    this.#connection = new Connection(options.fd, options.loop, handlers, options.budget);
    try {
      options.backend.connected(this.peer);
    } catch (error) {
      this.close(`connected: ${sentence(error)}`, true);
    }
  }

  get open(): boolean {
    return this.#connection.open;
  }

  /** Requests carried out. */
  get requests(): number {
    return this.#requests;
  }

  get worked(): boolean {
    return this.#requests > 0;
  }

  get hungUp(): boolean {
    return !this.open || hungUp(this.#options.fd);
  }

  /** Bits. */
  get protocolFeatures(): bigint {
    return this.#negotiation.protocolFeatures;
  }

  get fd(): number {
    return this.#options.fd;
  }

  suspend(): boolean {
    return this.#connection.suspend();
  }

  resume(): void {
    this.#connection.resume();
  }

  release(): void {
    this.#connection.release();
  }

  /** Ends the connection; the back end is told before this returns. */
  close(reason: string, fault = false): void {
    this.#connection.close(reason, fault);
  }

  #closed(reason: string, fault: boolean): void {
    try {
      this.#options.backend.disconnected(reason);
    } catch (error) {
      this.#options.onNotice(`disconnected: ${sentence(error)}`);
    }
    this.#options.onClosed(reason, fault);
  }

  /** Handles one message and closes every descriptor of it that nobody took. */
  #receive(message: Message): void {
    try {
      this.#answer(message);
    } finally {
      for (const fd of message.fds.splice(0)) close(fd);
    }
  }

  #answer(message: Message): void {
    let reply: unknown;
    try {
      reply = this.#handle(message);
      this.#requests++;
    } catch (error) {
      this.#refuse(message, error);
      return;
    }
    const kind = ruleOf(message.request)?.reply;
    if (kind !== undefined) this.#reply(message.request, kind, reply as Payloads[typeof kind]);
    else if (this.#acknowledges(message)) this.#reply(message.request, 'u64', 0n);
  }

  /** Returns the value of the request's own reply, if it has one. */
  #handle(message: Message): unknown {
    const { request, flags } = message;
    if ((flags & vu.FLAG_REPLY) !== 0) throw new Refusal('it is a reply, and nothing was asked');
    const rule = ruleOf(request);
    if (rule === undefined) throw new Refusal('no such request is known');
    const { requires } = rule;
    if (requires !== undefined && !this.#negotiated(requires)) {
      const [feature] = protocolFeatureNames(1n << BigInt(requires));
      throw new Refusal(`protocol feature ${feature} was not negotiated`);
    }
    const handler = HANDLERS[request as RequestId] as AnyHandler | undefined;
    if (handler === undefined) throw new Refusal('it is not supported');
    return handler(this.#negotiation, decodePayload(rule, message), message);
  }

  #refuse(message: Message, error: unknown): void {
    const reason = `${requestName(message.request)} refused: ${sentence(error)}`;
    // Whoever waits for a reply of another shape would take a "no" for an answer: close instead.
    const supported = Object.hasOwn(HANDLERS, message.request);
    const ownReply = supported && ruleOf(message.request)?.reply !== undefined;
    const isReply = (message.flags & vu.FLAG_REPLY) !== 0;
    if (ownReply || isReply || !this.#acknowledges(message)) {
      this.close(reason, true);
    } else {
      this.#options.onNotice(reason);
      this.#reply(message.request, 'u64', 1n);
    }
  }

  #negotiated(bit: number): boolean {
    return ((this.#negotiation.protocolFeatures >> BigInt(bit)) & 1n) === 1n;
  }

  #acknowledges({ flags }: Message): boolean {
    return (flags & vu.FLAG_NEED_REPLY) !== 0 && this.#negotiated(vu.PF_REPLY_ACK);
  }

  #reply<K extends PayloadKind>(request: number, kind: K, value: Payloads[K]): void {
    this.#connection.send(encodeMessage(request, vu.REPLY_FLAGS, kind, value));
  }
}
