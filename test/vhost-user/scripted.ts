// A back end that answers as it is told, right or wrong, and the driver that a front end brings to it.

import * as vu from '../../src/abi/vhost-user.ts';
import {
  acceptUnix,
  close,
  connectUnix,
  type EventLoop,
  eventfd,
  memfd,
} from '../../src/linux/index.ts';
import {
  type Agreement,
  CODECS,
  Connection,
  encodeMessage,
  type FrontendDriver,
  type Message,
  type RequestRule,
  requestName,
  ruleOf,
} from '../../src/vhost-user/index.ts';
import { until } from './harness.ts';

export const VERSION_1 = 1n << 32n;
export const MTU = 1n << 3n;
export const BIT30 = 1n << 30n;

/** Protocol features by bit number, as one word. */
export function protocol(...bits: number[]): bigint {
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
}

/** What to do about a request: these bytes (and an end), nothing, an end; or what a sane one would. */
export type Answer =
  | { bytes: Uint8Array; fds?: number[]; last?: boolean }
  | 'nothing'
  | 'hang up'
  | 'as usual'
  | undefined;
/** By request. `nth`: how many of the kind came before. */
export type Script = Record<number, (message: Message, nth: number) => Answer>;

export function u64(request: number, value: bigint, flags = vu.REPLY_FLAGS): Answer {
  return { bytes: encodeMessage(request, flags, 'u64', value) };
}

export class ScriptedBackEnd {
  /** Every request in order, those that want to be acknowledged with an exclamation mark. */
  readonly said: string[] = [];
  /** Their payloads. */
  readonly values: { request: number; payload: Uint8Array }[] = [];
  ended: string | undefined;
  readonly connection: Connection;
  readonly #script: Script;

  constructor(fd: number, loop: EventLoop, script: Script = {}) {
    this.#script = script;
    const handlers = {
      onMessage: (message: Message) => this.#answer(message),
      onClosed: (reason: string) => {
        this.ended = reason;
      },
    };
    this.connection = new Connection(fd, loop, handlers);
  }

  /** The value of the only request of its kind. */
  word(request: number): bigint {
    const payloads = this.values.filter((each) => each.request === request);
    if (payloads.length !== 1) throw new Error(`${payloads.length} of ${requestName(request)}`);
    return CODECS.u64.decode(payloads[0]!.payload);
  }

  #answer(message: Message): void {
    const { request, flags, payload, fds } = message;
    for (const fd of fds.splice(0)) close(fd);
    const nth = this.values.filter((each) => each.request === request).length;
    this.values.push({ request, payload });
    this.said.push(`${requestName(request)}${flags & vu.FLAG_NEED_REPLY ? '!' : ''}`);
    const answer = this.#script[request]?.(message, nth) ?? 'as usual';
    if (answer === 'nothing') return;
    if (answer === 'hang up') this.connection.close('as told');
    else if (answer === 'as usual') this.#usual(message, ruleOf(request)!);
    else {
      this.connection.send(answer.bytes, answer.fds);
      if (answer.last) this.connection.close('as told');
    }
  }

  #usual({ request, flags, payload }: Message, { reply }: RequestRule): void {
    const words: Record<number, bigint> = {
      [vu.VU_GET_FEATURES]: VERSION_1 | MTU | BIT30,
      [vu.VU_GET_PROTOCOL_FEATURES]: 0xffffffn,
      [vu.VU_GET_QUEUE_NUM]: 2n,
      [vu.VU_GET_STATUS]: 0x0bn,
    };
    if (reply === 'state') {
      this.connection.send(encodeMessage(request, vu.REPLY_FLAGS, 'opaque', payload));
    } else if (reply !== undefined || flags & vu.FLAG_NEED_REPLY) {
      const word = words[request] ?? 0n;
      this.connection.send(encodeMessage(request, vu.REPLY_FLAGS, 'u64', word));
    }
  }
}

/** Memory and rings in which nothing moves; notes what it is told. */
export class IdleDriver implements FrontendDriver {
  /** `negotiate 0x... 2`, `setUp`, `started`, `stopped: why` and `fault: why`. */
  readonly told: string[] = [];
  pairs = 1;
  features = VERSION_1;
  /** Methods that throw. */
  failing = new Map<string, Error>();
  kicks: number[] = [];
  #fds: number[] = [];

  negotiate(offered: bigint, queuePairs: number): Agreement {
    this.#tell('negotiate', `negotiate 0x${offered.toString(16)} ${queuePairs}`);
    return { features: this.features & offered, pairs: Math.min(this.pairs, queuePairs) };
  }

  setUp() {
    const memory = memfd('idle', 0x10000);
    this.#fds.push(memory);
    this.kicks = [];
    this.#tell('setUp');
    const region = { gpa: 0x1000n, uva: 0x1000n, size: 0x10000n, mmapOffset: 0n, fd: memory };
    const rings = Array.from({ length: 2 * this.pairs }, (_, index) => {
      const [kickFd, callFd, errFd] = [eventfd(), eventfd(), eventfd()];
      this.#fds.push(kickFd, callFd, errFd);
      this.kicks.push(kickFd);
      const desc = 0x1000n * BigInt(index + 1);
      const addr = { flags: 0, desc, avail: desc + 0x400n, used: desc + 0x800n, logGpa: 0n };
      return { size: 16, base: index, addr, kickFd, callFd, ...(index === 0 ? { errFd } : {}) };
    });
    return { regions: [region], rings };
  }

  started(): void {
    this.#tell('started');
  }

  stopped(reason: string, fault: boolean): void {
    for (const fd of this.#fds.splice(0)) close(fd);
    this.#tell('stopped', `${fault ? 'fault' : 'stopped'}: ${reason}`);
  }

  /** What it was told last. */
  get last(): string {
    return this.told.at(-1) ?? '';
  }

  get starts(): number {
    return this.told.filter((each) => each === 'started').length;
  }

  get ends(): string[] {
    return this.told.filter((each) => /^(stopped|fault): /.test(each));
  }

  #tell(name: string, text = name): void {
    this.told.push(text);
    const error = this.failing.get(name);
    if (error !== undefined) throw error;
  }
}

/** The next connection to `listener`. */
export async function accept(listener: number): Promise<number> {
  let fd = -1;
  await until(() => {
    fd = acceptUnix(listener);
    return fd >= 0;
  });
  return fd;
}

/** A connection to `path` as soon as somebody listens there. */
export async function connect(path: string): Promise<number> {
  let fd = -1;
  await until(() => {
    try {
      fd = connectUnix(path);
    } catch {
      return false;
    }
    return true;
  });
  return fd;
}
