// The thread of TrafficThread: process, and when nothing moved re-arm, double-check, sleep.

import { workerData } from 'node:worker_threads';
import {
  GUEST_KICKS_RX,
  GUEST_KICKS_TX,
  GUEST_RX,
  GUEST_SLEEPS,
  GUEST_STOP,
  GUEST_TX,
} from '../abi/driver.ts';
import { EPOLLET, EPOLLIN, Epoll, signal } from '../linux/index.ts';
import { Control } from '../memory/control.ts';
import { loadDatapath } from '../worker/datapath.ts';
import type { GuestThreadData } from './traffic.ts';

/** Rounds in vain before the thread asks to be called. */
const ROUNDS = 200;

const { memory, guests, wake, eager } = workerData as GuestThreadData;
const control = new Control(memory);
const datapath = loadDatapath(memory, { call() {}, latched() {} });
const epoll = new Epoll();
epoll.add(wake, EPOLLIN, 0);
for (const { txCall, rxCall } of guests) {
  epoll.add(txCall, EPOLLIN | EPOLLET, 0);
  epoll.add(rxCall, EPOLLIN | EPOLLET, 0);
}
const first = guests[0]!.block;
const queues = guests.flatMap(({ block }) => [
  control.get(block + GUEST_TX),
  control.get(block + GUEST_RX),
]);

function round(): number {
  let moved = 0;
  for (const { block, txKick, rxKick } of guests) {
    moved += datapath.guestRun(block);
    if (control.get(block + GUEST_KICKS_TX)) signal(txKick);
    if (control.get(block + GUEST_KICKS_RX)) signal(rxKick);
  }
  return moved;
}

for (const { block, rxKick } of guests) {
  datapath.guestStart(block);
  if (control.get(block + GUEST_KICKS_RX)) signal(rxKick);
}
for (const drv of queues) datapath.drvDisarm(drv);
let idle = 0;
while (control.get(first + GUEST_STOP) === 0) {
  idle = round() > 0 ? 0 : idle + 1;
  if (idle < (eager ? 1 : ROUNDS)) continue;
  // Armed first, looked at after: what was used in between is seen by one or the other.
  const used = queues.map((drv) => datapath.drvArm(drv)).some((more) => more !== 0);
  if (!used) {
    control.set64(first + GUEST_SLEEPS, control.get64(first + GUEST_SLEEPS) + 1n);
    epoll.wait(-1);
  }
  for (const drv of queues) datapath.drvDisarm(drv);
  idle = 0;
}
epoll.close();
