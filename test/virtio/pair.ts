// Two front ends on two devices, made anew for each test of the file that imports this; after each,
// no descriptor may be open and no memory mapped.

import assert from 'node:assert/strict';
import { afterEach, beforeEach } from 'node:test';
import { PORT_BASE, PORT_STRIDE } from '../../src/abi/layout.ts';
import { concat, frame, header, mac } from '../datapath/frames.ts';
import { openFds } from '../linux/fds.ts';
import { DeviceBench, FrontEnd } from './bench.ts';

export const BYTES = concat(header(), frame({ from: mac(1), to: mac(2), length: 100 }));
export const ALL = new DeviceBench().window.largestFree();

export let bench: DeviceBench;
export let a: FrontEnd;
export let b: FrontEnd;
export let events: string[];
let fds = 0;

export function block(port: number): number {
  return PORT_BASE + port * PORT_STRIDE;
}

beforeEach(() => {
  bench = new DeviceBench();
  fds = openFds();
  const [first, second] = [bench.device(4), bench.device(4)];
  events = first.events;
  a = new FrontEnd(bench, first.device);
  b = new FrontEnd(bench, second.device);
});

afterEach(() => {
  a.close();
  b.close();
  assert.equal(openFds(), fds, 'descriptors left open');
  assert.equal(bench.watched.size, 0);
  assert.equal(bench.window.largestFree(), ALL, 'memory left mapped');
});

/** One frame from a to b; returns whether it arrived. */
export function pass(): boolean {
  b.post(0, 2048, true);
  const before = b.usedIdx(0);
  a.post(1, BYTES.length, false, BYTES);
  bench.settle();
  return b.usedIdx(0) === ((before + 1) & 0xffff);
}
