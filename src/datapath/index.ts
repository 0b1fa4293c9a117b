// What the host calls. One instance a thread; all of them share one linear memory.

import { setWorker } from './layout';

/** First call of an instance: which worker's block and scratch are its own. */
export function init(id: u32): void {
  setWorker(id);
}

export { poll, armAll, activate, activeRings, recover } from './poll';
export { fdbLearn, fdbLookup, fdbExpire } from './fdb';
export { translate } from './memory';
export { copy } from './copy';
export { drvReset, drvAdd, drvPublish, drvUsed, drvPop, drvArm, drvDisarm } from './driver';
export { guestStart, guestRun } from './guest';
