// What stays from world to world: one linear memory, and the datapath on it.

import { Rig } from '../test/datapath/rig.ts';
import { Memory } from './memory.ts';

export class Bench {
  readonly rig = new Rig();
  readonly memory = new Memory(this.rig.control.memory.buffer);
}

let bench: Bench | undefined;

/** The one of this thread. */
export function theBench(): Bench {
  bench ??= new Bench();
  return bench;
}
