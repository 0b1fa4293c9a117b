// What stays from world to world: one linear memory, and the datapath on it.

import { RING_LAST_BURST } from '../src/abi/layout.ts';
import { ringAddress } from '../src/memory/control.ts';
import { Rig } from '../test/datapath/rig.ts';
import { Memory } from './memory.ts';

export class Bench {
  readonly rig = new Rig();
  readonly memory = new Memory(this.rig.control.memory.buffer);

  /** The next poll takes what ring `index` has: it is not left for more to come (datapath/patience.ts). */
  hurry(index: number): void {
    this.memory.u32[(ringAddress(index) + RING_LAST_BURST) >>> 2] = 0;
  }
}

let bench: Bench | undefined;

/** The one of this thread. */
export function theBench(): Bench {
  bench ??= new Bench();
  return bench;
}
