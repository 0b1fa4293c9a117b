// Races for an RX ring: a frame is written whole into one value's buffers, and nowhere else.

import { F_MRG_RXBUF, F_VERSION_1, WRAP } from '../../src/abi/virtio.ts';
import { header } from '../../test/datapath/frames.ts';
import { features } from '../../test/datapath/rig.ts';
import { type Arena, HEADER, MixedRead, SIZE } from './arena.ts';
import { count, Drops, describe, type Flip, type Race, type Running } from './race.ts';

/** Frames of a round, each of one byte's fill. */
export const FRAMES = 16;
export const LENGTH = 200;
export const WHOLE = HEADER + LENGTH;
export const PART = 112;
export const UNTOUCHED = 0xc7;
export const NOWHERE = 0x7000_0000;
export const AREA = 512;

export const SAMPLES = Array.from({ length: FRAMES }, (_, i) => ({
  header: header(),
  frame: Buffer.alloc(LENGTH, 0x30 + i),
}));

export interface Setting {
  flip: Flip;
  drops?: string[];
  latches?: number[];
  /** Writes the ring again, of a packed one all of it; then what is peculiar to this race. */
  refill?(): void;
  move?(): void;
  heads?: number;
  /** Areas that buffers begin at, AREA bytes each; UNTOUCHED before a round. */
  areas: number[];
  /** Judges the areas after `chains` were used and so many frames delivered; throws MixedRead. */
  judge(chains: number, seen: Map<string, number>, delivered: number): void;
}

export function race(
  name: string,
  packed: boolean,
  wanted: string[],
  set: (arena: Arena) => Setting,
  mergeable = false,
): Race {
  return {
    name: `${packed ? 'packed' : 'split'} RX ${name}`,
    spec: {
      packed,
      mergeable,
      peer: features(F_VERSION_1, F_MRG_RXBUF),
      samples: SAMPLES,
    },
    wanted,
    start: (arena) => running(arena, set(arena)),
  };
}

export function running(arena: Arena, setting: Setting): Running {
  const { flip, drops = [], latches = [], heads = SIZE, areas } = setting;
  const { rx, peer, memory } = arena;
  const seen = new Map<string, number>();
  const ledger = new Drops(rx, drops);
  let { frames } = rx;
  return {
    flip,
    queue: rx,
    drops,
    seen,
    round(set) {
      for (const at of areas) memory.u8.fill(UNTOUCHED, at, at + AREA);
      setting.refill?.();
      setting.move?.();
      set?.();
      arena.restart(rx, heads);
      for (let i = 0; i < FRAMES; i++) peer.send(i);
      peer.publish();
      arena.settle(rx);
      if (peer.returned() !== FRAMES) throw new MixedRead('a frame did not come back');
      const delivered = rx.frames - frames;
      ({ frames } = rx);
      const dropped = ledger.look(seen);
      if (delivered + dropped !== FRAMES) {
        throw new MixedRead(`${delivered} delivered and ${dropped} dropped of ${FRAMES}`);
      }
      if (arena.latched !== 0) {
        if (!latches.includes(arena.latched)) throw new MixedRead(`latched: ${arena.latched}`);
        count(seen, 'latched');
        return;
      }
      // A packed ring begins with the wrap counter set: without it, all were used.
      const lapped = arena.packed && (arena.reached & WRAP) === 0;
      setting.judge(lapped ? SIZE : arena.reached & (WRAP - 1), seen, delivered);
    },
  };
}

/** Every buffer is one descriptor: the same for all heads, or, `apart`, each its own. */
export function single(arena: Arena, buffer: number, length: number, flags: number, apart = false) {
  const { rx, memory } = arena;
  const slots = arena.packed || apart ? SIZE : 1;
  const fill = () => {
    for (let i = 0; i < slots; i++) {
      const at = apart ? buffer + i * AREA : buffer;
      arena.descriptor(arena.at(rx, i), at, length, flags | arena.lap, i);
      if (apart && !arena.packed) memory.u16[(rx.avail + 4 + i * 2) >>> 1] = i;
    }
  };
  fill();
  const places = (offset: number) =>
    Array.from({ length: slots }, (_, i) => arena.at(rx, i) + offset);
  return { places, refill: arena.packed ? fill : undefined };
}

/** The fill of what was written at `at`: 0 for nothing; throws unless it is one frame's, whole. */
export function fillOf(arena: Arena, at: number, skip: number, length: number): number {
  const bytes = arena.memory.u8.subarray(at, at + AREA);
  const first = bytes[skip]!;
  const fine = bytes.every((byte, i) => {
    if (first === UNTOUCHED || i >= skip + length) return byte === UNTOUCHED;
    if (i < skip) return byte === (i === 10 ? 1 : 0);
    return byte === first;
  });
  if (!fine) throw new MixedRead(`written: ${describe(bytes)}`);
  return first === UNTOUCHED ? 0 : first;
}

/** Frames lie one over the other in two places: each is whole, or untouched. */
export function places(arena: Arena, areas: Record<string, number>): Setting['judge'] {
  return (_, seen, delivered) => {
    const names = Object.keys(areas).filter(
      (name) => fillOf(arena, areas[name]!, HEADER, LENGTH) !== 0,
    );
    for (const name of names) count(seen, name);
    if (delivered > 0 && names.length === 0) throw new MixedRead('delivered to another place');
  };
}
