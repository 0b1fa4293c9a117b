// The front end's side of one connection: sends the steps of its dialogue one by one, and takes from
// the back end the reply it waits for and nothing else.

import { REPLY_FLAGS } from '../abi/vhost-user.ts';
import { close, hungUp } from '../linux/index.ts';
import type { PeerInfo } from '../types.ts';
import { Refusal } from './backend.ts';
import { Connection } from './connection.ts';
import type { FrontendDriver } from './frontend-driver.ts';
import { Dialogue, type Step, type Steps } from './frontend-steps.ts';
import { decodePayload, type Message } from './message.ts';
import { requestName } from './names.ts';
import { peerOf, sentence } from './peer.ts';
import type { Meeting, MeetingOptions } from './rendezvous.ts';

const CHECK = 'check that it is a vhost-user back end';
const CLOSED = 'the port was closed';

export interface FrontendSessionOptions extends MeetingOptions {
  /** The socket's, for what is told to people. */
  path: string;
  driver: FrontendDriver;
  /** For each reply. */
  timeoutMs: number;
  mtu?: number;
}

export class FrontendSession implements Meeting {
  readonly peer: PeerInfo | undefined;
  readonly #options: FrontendSessionOptions;
  readonly #connection: Connection;
  readonly #dialogue = new Dialogue();
  #steps: Steps;
  /** Sent last. */
  #step: Step | undefined;
  /** What `step` waits for. */
  #awaited: Step['reply'];
  #timer: NodeJS.Timeout | undefined;
  #worked = false;
  #running = false;
  /** Whether an end of the connection would be of our own making. */
  #ending = false;
  #onStopped = () => {};

  constructor(options: FrontendSessionOptions) {
    this.#options = options;
    this.peer = peerOf(options.fd);
    const handlers = {
      onMessage: (message: Message) => this.#receive(message),
      onClosed: (reason: string, fault: boolean) => this.#closed(reason, fault),
    };
    this.#connection = new Connection(options.fd, options.loop, handlers, options.budget);
    this.#steps = this.#dialogue.start(options.driver, options.mtu);
    this.#advance();
  }

  /** Whether the rings ever ran. */
  get worked(): boolean {
    return this.#worked;
  }

  get hungUp(): boolean {
    return !this.#connection.open || hungUp(this.#options.fd);
  }

  /** Ends the connection; the driver is told before this returns. */
  close(reason: string, fault = false): void {
    this.#ending = true;
    this.#connection.close(reason, fault);
  }

  /** Ends the connection once the back end has let go of the rings, or will not. */
  stop(): Promise<void> {
    if (!this.#running) {
      this.close(CLOSED);
      return Promise.resolve();
    }
    this.#ending = true;
    return new Promise((resolve) => {
      this.#onStopped = resolve;
      this.#steps = this.#dialogue.stop();
      this.#advance();
    });
  }

  /** Sends until something is to be waited for, or all is said. */
  #advance(reply?: unknown): void {
    try {
      let next = this.#steps.next(reply);
      while (!next.done) {
        // The driver may have hung up.
        if (!this.#connection.open) return;
        const step = next.value;
        this.#step = step;
        // Before it is sent: that may end the session, and the driver must hear nothing after it.
        this.#await(step);
        this.#connection.send(step.bytes, step.fds);
        if (step.reply !== undefined || !this.#connection.open) return;
        next = this.#steps.next();
      }
      this.#done();
    } catch (error) {
      this.#refuse(sentence(error));
    }
  }

  #done(): void {
    if (this.#ending) {
      this.close(CLOSED);
      return;
    }
    this.#worked = true;
    this.#running = true;
    this.#options.driver.started();
  }

  #await({ request, reply }: Step): void {
    this.#awaited = reply;
    if (reply === undefined) return;
    const { timeoutMs } = this.#options;
    const name = requestName(request);
    this.#timer = setTimeout(() => {
      this.#refuse(
        `the back end did not answer ${name} within ${timeoutMs} ms; check that it runs, and that ` +
          'it has no other front end',
      );
    }, timeoutMs);
  }

  #receive(message: Message): void {
    let value: unknown;
    try {
      value = this.#decode(message);
    } catch (error) {
      this.#refuse(sentence(error));
      return;
    } finally {
      for (const fd of message.fds.splice(0)) close(fd);
    }
    clearTimeout(this.#timer);
    this.#awaited = undefined;
    this.#advance(value);
  }

  /** The value of the reply that is waited for; throws Refusal if it is anything else. */
  #decode(message: Message): unknown {
    const name = requestName(message.request);
    if (this.#awaited === undefined) {
      throw new Refusal(`the back end sent ${name}, and nothing was asked; ${CHECK}`);
    }
    const { request } = this.#step!;
    const asked = requestName(request);
    if (message.request !== request) {
      throw new Refusal(`the back end answered ${asked} with ${name}; ${CHECK}`);
    }
    const wrong = `the back end's answer to ${asked} is wrong`;
    if (message.flags !== REPLY_FLAGS) {
      const flags = message.flags.toString(16);
      throw new Refusal(`${wrong}: its flags are 0x${flags}, not 0x5; ${CHECK}`);
    }
    try {
      return decodePayload({ payload: this.#awaited }, message);
    } catch (error) {
      throw new Refusal(`${wrong}: ${sentence(error)}; ${CHECK}`);
    }
  }

  #refuse(reason: string): void {
    this.close(`${this.#options.path}: ${reason}`, true);
  }

  #closed(reason: string, fault: boolean): void {
    clearTimeout(this.#timer);
    const { driver, path, onNotice, onClosed } = this.#options;
    // A back end that leaves before its rings run does so for a reason, however politely.
    const broken = !this.#ending && (fault || !this.#running);
    const after = this.#step ? ` after ${requestName(this.#step.request)}` : '';
    const told = broken
      ? `${path}: ${reason}${after}; the log of the back end should tell why`
      : reason;
    this.#running = false;
    try {
      driver.stopped(told, broken || fault);
    } catch (error) {
      onNotice(`stopped: ${sentence(error)}`);
    }
    onClosed(told, broken || fault);
    this.#onStopped();
  }
}
