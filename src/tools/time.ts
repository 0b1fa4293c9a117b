// Time as the tools see it: the machine's, or in tests one that runs as fast as the test does.

import { setTimeout as sleep } from 'node:timers/promises';

export interface Time {
  /** Nanoseconds on a clock that only goes forward. */
  now(): number;
  /** Milliseconds since 1970. */
  wall(): number;
  sleep(ms: number): Promise<void>;
  /** One turn of the event loop. */
  turn(): Promise<void>;
}

export const machineTime: Time = {
  now: () => Math.round(performance.now() * 1e6),
  wall: () => performance.timeOrigin + performance.now(),
  sleep: (ms) => sleep(ms),
  turn: () => new Promise((resolve) => setImmediate(resolve)),
};
