// vhop as a library.

export { openSwitch, Switch } from '../switch/switch.ts';
export { DROP_HELP, DROP_NAMES } from '../observe/drops.ts';
export { startTraffic, type TrafficPair, type TrafficPairOptions } from '../port/pair.ts';
export type { TrafficCounts, TrafficHost, TrafficOptions } from '../port/traffic.ts';
export type { SwitchApi } from './switch-api.ts';
export type * from './types.ts';
