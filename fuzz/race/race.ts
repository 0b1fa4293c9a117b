// What a race is: one field, two values, and what either of them alone comes to.

import { DROP_NAMES } from '../../src/observe/drops.ts';
import type { TestQueue } from '../../test/datapath/queue.ts';
import { type Arena, type ArenaSpec, HEADER, MixedRead } from './arena.ts';

export interface Flip {
  /** Linear addresses, each of a field of `width` bytes. */
  places: number[];
  width: 1 | 2 | 4;
  a: number;
  b: number;
}

export interface Running {
  flip: Flip;
  queue: TestQueue;
  /** Shows the ring once, after `set`, and judges what came of it; throws MixedRead. */
  round(set?: () => void): void;
  /** Drop reasons that a value may lead to, by name. */
  drops: string[];
  /** How often which outcome was met. */
  seen: Map<string, number>;
}

export interface Race {
  name: string;
  spec: ArenaSpec;
  start(arena: Arena): Running;
  /** What one value alone comes to, and the other, or the race proves nothing. */
  wanted: string[];
}

export function count(seen: Map<string, number>, what: string, by = 1): void {
  if (by > 0) seen.set(what, (seen.get(what) ?? 0) + by);
}

/** What the honest guest must get of a frame: its header, empty if it asks for nothing, then these bytes. */
export function arrival(frame: Uint8Array, header: Uint8Array = new Uint8Array(HEADER)): Buffer {
  const asks = header[0] !== 0 || header[1] !== 0;
  const out = Buffer.concat([asks ? header.subarray(0, HEADER) : new Uint8Array(HEADER), frame]);
  out.writeUInt16LE(1, 10);
  return out;
}

/** Takes `frames` apart into whole outcomes, by name; throws on what is none of them. */
export function match(
  frames: readonly Buffer[],
  outcomes: Record<string, readonly Buffer[]>,
  each: (name: string) => void,
): void {
  for (let at = 0; at < frames.length; ) {
    const found = Object.entries(outcomes).find(([, whole]) =>
      whole.every((bytes, i) => frames[at + i]?.equals(bytes)),
    );
    if (found === undefined) {
      const got = frames[at]!;
      throw new MixedRead(
        `frame ${at} of ${frames.length} bytes ${got.length} is neither: ${describe(got)}`,
      );
    }
    each(found[0]);
    at += found[1].length;
  }
}

/** Bytes as runs: `12 x 00, 100 x aa`. */
export function describe(bytes: Uint8Array): string {
  const runs: string[] = [];
  for (let at = 0; at < bytes.length && runs.length < 12; ) {
    let end = at;
    while (end < bytes.length && bytes[end] === bytes[at]) end++;
    runs.push(`${end - at} x ${bytes[at]!.toString(16).padStart(2, '0')}`);
    at = end;
  }
  return runs.join(', ');
}

/** Counts drops since the last call under their names; throws on one that is not allowed. */
export class Drops {
  readonly #queue: TestQueue;
  readonly #allowed: readonly string[];
  readonly #before: Record<string, number> = {};

  constructor(queue: TestQueue, allowed: readonly string[]) {
    this.#queue = queue;
    this.#allowed = allowed;
  }

  look(seen: Map<string, number>): number {
    let total = 0;
    for (const [name, now] of Object.entries(this.#queue.drops)) {
      if (!DROP_NAMES.includes(name)) throw new Error(`no such reason: ${name}`);
      const by = now - (this.#before[name] ?? 0);
      this.#before[name] = now;
      if (by > 0 && !this.#allowed.includes(name)) throw new MixedRead(`${by} times ${name}`);
      count(seen, name, by);
      total += by;
    }
    return total;
  }
}
