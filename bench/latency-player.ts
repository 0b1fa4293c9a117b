// Both ends of a ping-pong, one thread that plays two guests of a switch in another process: what it
// sends at one port it awaits at the other, so that one clock sees all. Run:
// node bench/latency-player.ts SOCKET-A SOCKET-B; reads a Round a line, answers Answer a line, as JSON.

import { readSync } from 'node:fs';
import { BUFFER, FrontEnd, type Queue, view } from './front-end.ts';
import { type Percentiles, percentiles } from './percentiles.ts';

/** What to do for `ms` milliseconds. */
export type Round =
  /** One frame to and fro; who waits polls its ring. `bytes` a frame. */
  | { kind: 'poll'; ms: number; bytes: number }
  /** The same; who waits sleeps until called. */
  | { kind: 'call'; ms: number; bytes: number }
  /** One way, after `rest` milliseconds in which nothing moved; who waits polls. */
  | { kind: 'rest'; ms: number; bytes: number; rest: number }
  /** The ping-pong beside `rate` frames a microsecond of `load` bytes, half of them each way. */
  | { kind: 'load'; ms: number; bytes: number; load: number; rate: number };

export interface Answer {
  /** Microseconds: there and back, of `rest` one way. */
  times: Percentiles;
  /** Frames of load that arrived, a microsecond, and of those sent the part that did not. */
  rate: number;
  lost: number;
}

/** Frames of load shown to the switch at a time; added and taken back a few at a time in between. */
const BATCH = 32;
const STEP = 4;
/** Where a frame says what it is, behind its Ethernet header. */
const MARK = 14;
const PING = 1;
const LOAD = 2;

class Guest {
  readonly rx: Queue;
  readonly tx: Queue;
  readonly #header: number;
  /** Buffers that nobody has. */
  readonly #free: number[];
  #unseen = 0;

  constructor(path: string, index: number) {
    const frontEnd = new FrontEnd(path, { ring: 1024 });
    this.rx = frontEnd.rx[0]!;
    this.tx = frontEnd.tx[0]!;
    this.#header = frontEnd.headerLength;
    this.#free = Array.from({ length: this.tx.size }, (_, i) => i);
    for (let buffer = 0; buffer < this.tx.size; buffer++) {
      const at = this.tx.at(buffer);
      for (let i = 0; i < BUFFER; i++) view.setUint8(at + i, 0);
      // Locally administered, to the other one.
      view.setUint8(at + this.#header, 2);
      view.setUint8(at + this.#header + 5, 1 - index);
      view.setUint8(at + this.#header + 6, 2);
      view.setUint8(at + this.#header + 11, index);
      // EtherType 0x88b5: local, experimental.
      view.setUint16(at + this.#header + 12, 0x88b5);
    }
  }

  /** Adds a frame; false where the ring is full. It is seen with the next one published. */
  add(mark: number, bytes: number): boolean {
    if (this.#free.length === 0) this.reap();
    const buffer = this.#free.pop();
    if (buffer === undefined) return false;
    view.setUint8(this.tx.at(buffer) + this.#header + MARK, mark);
    this.tx.add(buffer, this.#header + bytes);
    this.#unseen++;
    return true;
  }

  publish(least = 1): void {
    if (this.#unseen < least) return;
    this.tx.publish();
    this.#unseen = 0;
  }

  /** Takes back what was sent. */
  reap(): void {
    for (let buffer = this.tx.pop(); buffer >= 0; buffer = this.tx.pop()) this.#free.push(buffer);
  }

  /** What kind of frame arrived next, 0: none. Its buffer is added again, for repost(). */
  take(): number {
    const buffer = this.rx.pop();
    if (buffer < 0) return 0;
    const mark = view.getUint8(this.rx.at(buffer) + this.#header + MARK);
    this.rx.add(buffer);
    return mark;
  }

  repost(): void {
    this.rx.publish();
  }

  /** Everything on its way has arrived, or is lost. */
  drain(): void {
    this.publish();
    for (const end = performance.now() + 20; performance.now() < end; ) this.take();
    this.reap();
    this.repost();
  }
}

const guests = [process.argv[2]!, process.argv[3]!].map((path, index) => new Guest(path, index));
const [a, b] = guests as [Guest, Guest];

/** Waits for the ping at `guest`; `call`: asleep until called. False when it does not come. */
function arrives(guest: Guest, call: boolean): boolean {
  const end = performance.now() + 1000;
  for (let looks = 1; ; looks++) {
    if (guest.take() === PING) return true;
    if (call) guest.rx.sleep();
    else if (looks % 1024 === 0 && performance.now() > end) return false;
  }
}

function pass(from: Guest, to: Guest, bytes: number, call: boolean): void {
  from.add(PING, bytes);
  from.publish();
  if (!arrives(to, call)) throw new Error('a frame was lost on an idle switch');
}

function pingPong({ ms, bytes, kind }: Round): number[] {
  const times: number[] = [];
  for (const end = performance.now() + ms; performance.now() < end; ) {
    const start = performance.now();
    pass(a, b, bytes, kind === 'call');
    pass(b, a, bytes, kind === 'call');
    times.push((performance.now() - start) * 1000);
    for (const guest of guests) guest.repost();
  }
  return times;
}

function fromRest({ ms, bytes, rest }: Round & { kind: 'rest' }): number[] {
  const times: number[] = [];
  for (const end = performance.now() + ms; performance.now() < end; ) {
    for (const rested = performance.now() + rest; performance.now() < rested; );
    const start = performance.now();
    pass(a, b, bytes, false);
    times.push((performance.now() - start) * 1000);
    for (const guest of guests) guest.repost();
    a.reap();
  }
  return times;
}

function underLoad({ ms, bytes, load, rate }: Round & { kind: 'load' }) {
  const times: number[] = [];
  const begin = performance.now();
  const sent = [0, 0];
  let arrived = 0;
  let pinged = 0;
  for (let now = begin; now < begin + ms; now = performance.now()) {
    // One that was lost (a full ring) is sent anew.
    if (pinged === 0 || now > pinged + 20) {
      a.add(PING, bytes);
      a.publish();
      pinged = now;
    }
    const due = ((now - begin) * 1000 * rate) / 2;
    for (const [side, guest] of guests.entries()) {
      for (let n = 0; n < STEP && sent[side]! < due && guest.add(LOAD, load); n++) sent[side]!++;
      guest.publish(BATCH);
      for (let n = 0; n < STEP; n++) {
        const mark = guest.take();
        if (mark === LOAD) arrived++;
        else if (mark === PING && side === 1) {
          b.add(PING, bytes);
          b.publish();
        } else if (mark === PING) {
          const got = performance.now();
          times.push((got - pinged) * 1000);
          a.add(PING, bytes);
          a.publish();
          pinged = performance.now();
        } else break;
      }
      guest.repost();
    }
  }
  const elapsed = (performance.now() - begin) * 1000;
  const all = sent[0]! + sent[1]!;
  return { times, rate: arrived / elapsed, lost: all === 0 ? 0 : (all - arrived) / all };
}

function play(round: Round): Answer {
  for (const guest of guests) guest.drain();
  const { times, rate, lost } =
    round.kind === 'load'
      ? underLoad(round)
      : { times: round.kind === 'rest' ? fromRest(round) : pingPong(round), rate: 0, lost: 0 };
  return { times: percentiles(times), rate, lost };
}

/** The lines of stdin as they come. */
function* lines(): Generator<string> {
  const buffer = Buffer.alloc(4096);
  for (let text = ''; ; ) {
    const length = readSync(0, buffer);
    if (length === 0) return;
    text += buffer.toString('utf8', 0, length);
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n')) {
      yield text.slice(0, end);
      text = text.slice(end + 1);
    }
  }
}

console.log('ready');
for (const line of lines()) console.log(JSON.stringify(play(JSON.parse(line) as Round)));
