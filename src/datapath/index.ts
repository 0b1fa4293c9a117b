// What the host calls. One instance a thread; all of them share one linear memory.

import { listFrames } from './frame';
import { setWorker } from './layout';
import { forgetDebts } from './work';

/** First call of an instance: which worker's block and scratch are its own. */
export function init(id: u32): void {
  setWorker(id);
  listFrames();
  forgetDebts();
}

export { addSum, closeSum, complement, copySum, openSum, sumOf } from './checksum';
export { copy } from './copy';
export { drvAdd, drvArm, drvDisarm, drvPop, drvPublish, drvReset, drvUsed } from './driver';
export { fdbExpire, fdbLearn, fdbLookup } from './fdb';
export { guestRun, guestStart } from './guest';
export { translate } from './memory';
export { nmArm, nmDisarm, nmRxSync, nmTxSync } from './netmap';
export { nmStart } from './netmap-queue';
export { nmForward } from './netmap-slots';
export { activate, activeRings, armAll, poll, recover } from './poll';
