// Races for a TX ring: what leaves is what was checked.

import { RING_FRAMES } from '../../src/abi/layout.ts';
import { F_GUEST_CSUM, F_GUEST_TSO4, F_MRG_RXBUF, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { features } from '../../test/datapath/rig.ts';
import { type Arena, HEADER, MixedRead, SIZE } from './arena.ts';
import { arrival, count, Drops, type Flip, match, type Race, type Running } from './race.ts';

export const NOTHING = features(F_VERSION_1, F_MRG_RXBUF);
export const OFFLOADS = NOTHING | features(F_GUEST_CSUM, F_GUEST_TSO4);
/** No region of the hostile guest's. */
export const NOWHERE = 0x7000_0000;
export const SHORT = 100;
export const LONG = 1000;

export interface Setting {
  flip: Flip;
  /** Frames by outcome. */
  outcomes: Record<string, readonly Buffer[]>;
  drops?: string[];
  latches?: number[];
  /** Fills a packed ring, in which the device writes, again. */
  refill?(): void;
  /** Heads shown on a split ring; -1: the race is about them. */
  heads?: number;
  /** Frames that one round takes, where it is not told by `heads`. */
  frames?: number[];
  /** Judges used entry `i`, which is the frame's of outcome `name`. */
  used?(i: number, name: string): boolean;
}

export function filled(byte: number, length: number): Buffer {
  return Buffer.alloc(length, byte);
}

/** A frame to send of one byte's fill behind an empty header. */
export function frameOf(arena: Arena, byte: number, length: number): number {
  return arena.put(Buffer.concat([Buffer.alloc(HEADER), filled(byte, length)]));
}

export function race(
  name: string,
  packed: boolean,
  wanted: string[],
  set: (arena: Arena) => Setting,
  peer = NOTHING,
): Race {
  const format = packed ? 'packed' : 'split';
  return {
    name: `${format} TX ${name}`,
    spec: { packed, peer },
    wanted,
    start: (arena) => running(arena, set(arena)),
  };
}

export function running(arena: Arena, setting: Setting): Running {
  const { flip, outcomes, drops = [], latches = [], heads = SIZE } = setting;
  const { tx } = arena;
  const seen = new Map<string, number>();
  const ledger = new Drops(tx, drops);
  let taken = tx.get(RING_FRAMES);
  return {
    flip,
    queue: tx,
    drops,
    seen,
    round(set) {
      setting.refill?.();
      set?.();
      arena.restart(tx, heads);
      arena.settle(tx);
      const names: string[] = [];
      match(arena.received(), outcomes, (outcome) => names.push(outcome));
      for (const outcome of names) count(seen, outcome);
      const dropped = ledger.look(seen);
      const now = tx.get(RING_FRAMES);
      const frames = now - taken;
      taken = now;
      if (names.length + dropped !== frames) {
        throw new MixedRead(`${frames} taken, ${names.length} arrived, ${dropped} dropped`);
      }
      if (arena.latched !== 0) {
        if (!latches.includes(arena.latched)) throw new MixedRead(`latched: ${arena.latched}`);
        count(seen, 'latched');
        return;
      }
      if (setting.frames !== undefined) {
        if (!setting.frames.includes(frames)) throw new MixedRead(`${frames} frames taken`);
        count(seen, `${frames} frames`);
      } else if (!arena.packed && frames !== heads) {
        throw new MixedRead(`${frames} taken of ${heads} heads`);
      }
      if (setting.used === undefined) return;
      for (const [i, outcome] of names.entries()) {
        if (!setting.used(i, outcome)) {
          throw new MixedRead(`used entry ${i} names ${arena.used(tx, i).id}, sent was ${outcome}`);
        }
      }
    },
  };
}

/** Every chain is one descriptor, {buffer, length, flags}: head 0 of a split ring, every slot else. */
export function single(arena: Arena, buffer: number, length: number, flags: number) {
  const { tx } = arena;
  const slots = arena.packed ? SIZE : 1;
  const fill = () => {
    for (let i = 0; i < slots; i++) {
      arena.descriptor(arena.at(tx, i), buffer, length, flags | arena.lap, 7);
    }
  };
  fill();
  const places = (offset: number) =>
    Array.from({ length: slots }, (_, i) => arena.at(tx, i) + offset);
  // Also where nothing else is a race: the device writes used entries over a packed ring's.
  return { places, refill: arena.packed ? fill : undefined };
}

export function one(byte: number, length = SHORT): readonly Buffer[] {
  return [arrival(filled(byte, length))];
}
