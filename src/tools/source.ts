// Where the next frame to send comes from.

import type { MacRange } from './addresses.ts';
import { UdpFrame } from './packet.ts';
import type { Traffic } from './settings.ts';

export interface Source {
  /** The frame, until `advance`. */
  readonly view: Uint8Array;
  advance(): void;
}

/** Frames of a capture, round and round. */
export class Replay implements Source {
  readonly #frames: readonly Uint8Array[];
  #at = 0;
  view: Uint8Array;

  constructor(frames: readonly Uint8Array[]) {
    this.#frames = frames;
    this.view = frames[0]!;
  }

  advance(): void {
    if (++this.#at === this.#frames.length) this.#at = 0;
    this.view = this.#frames[this.#at]!;
  }
}

/** Numbers for addresses and sizes: xorshift32. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1;
  }

  /** 32 bits. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }
}

/** A number in the frame that changes from frame to frame. */
interface Field {
  kind: 'port' | 'word' | 'double' | 'mac';
  at: number;
  low: number;
  high: number;
  value: number;
  random: boolean;
}

/** UDP frames whose addresses, sizes or sequence numbers change as they are told to. */
export class UdpSource implements Source {
  readonly frame: UdpFrame;
  view: Uint8Array;
  readonly #fields: Field[];
  readonly #random: Random;
  readonly #smallest: number | undefined;
  readonly #sizes: number;
  readonly #numbered: boolean;
  #number = 0;

  constructor(traffic: Traffic, options: { numbered?: boolean; random?: Random } = {}) {
    const { family, from, to, fromMac, toMac, smallest, size } = traffic;
    this.frame = new UdpFrame(
      family,
      size,
      { mac: fromMac.first, address: from.first, port: from.lowPort },
      { mac: toMac.first, address: to.first, port: to.lowPort },
    );
    this.view = this.frame.bytes;
    this.#random = options.random ?? new Random(Math.random() * 2 ** 32);
    this.#fields = fieldsOf(traffic, this.frame);
    this.#smallest = smallest !== undefined && smallest < size ? smallest : undefined;
    this.#sizes = size - (smallest ?? size);
    this.#numbered = options.numbered ?? false;
    if (this.#numbered) this.frame.setPayload(0, 0);
    this.#vary();
  }

  /** Whether every frame is as the first. */
  get constant(): boolean {
    return this.#fields.length === 0 && this.#smallest === undefined && !this.#numbered;
  }

  advance(): void {
    if (this.#numbered) {
      this.#number = (this.#number + 1) >>> 0;
      this.frame.setPayload(0, this.#number);
    }
    this.#step();
    this.#vary();
  }

  /** What is random, for the next frame. */
  #vary(): void {
    for (const field of this.#fields) if (field.random) this.#set(field, this.#random.next());
    if (this.#smallest === undefined) return;
    this.frame.resize(this.#smallest + (this.#random.next() % this.#sizes));
    this.view = this.frame.bytes.subarray(0, this.frame.size);
  }

  /** The ranges as an odometer: the source's port goes round first, as in netmap. */
  #step(): void {
    for (const field of this.#fields) {
      if (field.random) continue;
      if (field.value < field.high) {
        this.#set(field, field.value + 1);
        return;
      }
      this.#set(field, field.low);
    }
  }

  #set(field: Field, value: number): void {
    const { frame } = this;
    const { at, kind } = field;
    field.value = value;
    if (kind === 'port') frame.setPort(at, value & 0xffff);
    else if (kind === 'word') frame.setAddress(at, value & 0xffff);
    else if (kind === 'double') {
      frame.setAddress(at, value >>> 16);
      frame.setAddress(at + 2, value & 0xffff);
    } else {
      for (let i = 0; i < 4; i++) frame.bytes[at + i] = value >>> (24 - 8 * i);
    }
  }
}

function fieldsOf(traffic: Traffic, frame: UdpFrame): Field[] {
  const { family, from, to, fromMac, toMac, randomSource, randomDestination } = traffic;
  const address = family === 4 ? 'double' : 'word';
  const field = (kind: Field['kind'], at: number, low: number, high: number, random: boolean) => ({
    ...{ kind, at, low, high, random },
    value: low,
  });
  const mac = (at: number, { low, high }: MacRange) => field('mac', at, low, high, false);
  return [
    field('port', frame.ports, from.lowPort, from.highPort, randomSource),
    field(address, frame.source + from.at, from.low, from.high, randomSource),
    field('port', frame.ports + 2, to.lowPort, to.highPort, randomDestination),
    field(address, frame.destination + to.at, to.low, to.high, randomDestination),
    mac(8, fromMac),
    mac(2, toMac),
  ].filter((one) => one.random || one.low < one.high);
}
