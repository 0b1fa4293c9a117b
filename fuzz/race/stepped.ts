// The race without luck: the datapath with a look at every load it does (binaryen's instrument-memory
// pass over the same build), so that the field changes at the very load that is wanted. A field that is
// read twice changes between the two for certain.

import { readFileSync } from 'node:fs';
import binaryen from 'assemblyscript/binaryen';
import { type Datapath, imports } from '../../src/worker/datapath.ts';
import { Bench } from '../bench.ts';
import { Arena } from './arena.ts';
import type { Flip, Race } from './race.ts';

const FILE = new URL('../../build/datapath.wasm', import.meta.url);

/** Loads of the field at which it changes: the first ones, and these parts of all. */
const FIRST = 6;
const PARTS = [0.25, 0.5, 0.75, 1];

/** And of all loads, whatever they touch: at every one, every second, and so on. */
const EVERY = [1, 2, 3, 7];

/** Is told of each load before it is done. */
type OnLoad = (at: number, bytes: number) => void;

export class Stepper {
  readonly bench = new Bench();
  onLoad: OnLoad | undefined;

  constructor() {
    const { rig } = this.bench;
    const module = binaryen.readBinary(new Uint8Array(readFileSync(FILE)));
    module.runPasses(['instrument-memory']);
    const code = module.emitBinary();
    module.dispose();
    const as = (_: number, value: unknown) => value;
    const instance = new WebAssembly.Instance(new WebAssembly.Module(new Uint8Array(code)), {
      env: {
        memory: rig.control.memory,
        load_ptr: (_: number, bytes: number, offset: number, at: number) => {
          this.onLoad?.((at >>> 0) + (offset >>> 0), bytes);
          return at;
        },
        store_ptr: (_: number, _bytes: number, _offset: number, at: number) => at,
        memory_grow_pre: as,
        memory_grow_post: as,
        load_val_i32: as,
        load_val_i64: as,
        load_val_f32: as,
        load_val_f64: as,
        store_val_i32: as,
        store_val_i64: as,
        store_val_f32: as,
        store_val_f64: as,
      },
      host: imports({
        call: (ring) => rig.calls.push(ring),
        latched: (ring) => rig.latched.push(ring),
        now: () => 0,
      }),
    });
    const datapath = instance.exports as unknown as Datapath;
    Object.defineProperty(rig, 'datapath', { value: datapath });
  }
}

export interface Stepped {
  name: string;
  /** Loads of the field in one round without a change, and rounds with one. */
  loads: number;
  rounds: number;
}

/** Runs a race step by step; throws MixedRead, with the load at which the field changed. */
export function step(stepper: Stepper, race: Race): Stepped {
  const arena = new Arena(stepper.bench, race.spec);
  const running = race.start(arena);
  const { u8 } = stepper.bench.memory;
  const { flip } = running;
  const put = (at: number, value: number) => {
    for (let i = 0; i < flip.width; i++) u8[at + i] = value >> (8 * i);
  };
  let rounds = 0;
  /** A round that begins with `first`, looked at by `onLoad`; `told`: when the field changes. */
  const round = (first: number, told: string, onLoad: OnLoad) => {
    try {
      running.round(() => {
        for (const at of flip.places) put(at, first);
        stepper.onLoad = onLoad;
      });
    } catch (error) {
      const from = first === flip.a ? 'first' : 'second';
      throw new Error(`${race.name}: from its ${from} value, changed ${told}: ${error}`);
    } finally {
      stepper.onLoad = undefined;
    }
    rounds++;
  };
  /** The field changes at those loads of it that `when` names. Returns how many there were. */
  const atLoads = (first: number, told: string, when: (load: number) => boolean): number => {
    let [loads, value] = [0, first];
    const looked = looking(flip, (at) => {
      loads++;
      if (!when(loads)) return;
      value = value === flip.a ? flip.b : flip.a;
      put(at, value);
    });
    round(first, told, looked);
    return loads;
  };
  let most = 0;
  for (const first of [flip.a, flip.b]) {
    const loads = atLoads(first, 'never', () => false);
    most = Math.max(most, loads);
    atLoads(first, 'at each load of it', () => true);
    const wanted = PARTS.flatMap((part) => [0, 1].map((by) => Math.round(loads * part) + by));
    for (let i = 1; i <= FIRST; i++) wanted.push(i);
    for (const load of new Set(wanted)) atLoads(first, `at load ${load} of it`, (n) => n === load);
    for (const every of EVERY) {
      let [loaded, value] = [0, first];
      round(first, `at every load number ${every}`, () => {
        if (++loaded % every !== 0) return;
        value = value === flip.a ? flip.b : flip.a;
        for (const at of flip.places) put(at, value);
      });
    }
  }
  return { name: race.name, loads: most, rounds };
}

/** Calls `each` with the place that a load touches. */
function looking({ places, width }: Flip, each: (at: number) => void): OnLoad {
  const [from, to] = [Math.min(...places), Math.max(...places) + width];
  return (at, bytes) => {
    if (at >= to || at + bytes <= from) return;
    for (const place of places) if (at < place + width && place < at + bytes) each(place);
  };
}
