// The switch's events as they go over the control socket and to the terminal.

import type { PortEvents } from '../types.ts';
import type { Reloaded } from './reload.ts';

/** Every event there is; the type makes a forgotten one an error. */
export const SWITCH_EVENTS = Object.keys({
  connected: true,
  'port-up': true,
  'port-down': true,
  quarantined: true,
  'link-features': true,
  logging: true,
  notice: true,
} satisfies Record<keyof PortEvents, true>) as (keyof PortEvents)[];

/** One line of GET /events; `time` is milliseconds since the epoch. */
export type SwitchEvent =
  | { [K in keyof PortEvents]: { event: K; time: number; value: PortEvents[K] } }[keyof PortEvents]
  | { event: 'reloaded'; time: number; value: Reloaded };
