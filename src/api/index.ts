// vhop as a library.

export { DROP_HELP, DROP_NAMES } from '../observe/drops.ts';
export { startTraffic, type TrafficPair, type TrafficPairOptions } from '../port/pair.ts';
export type { TrafficCounts, TrafficHost, TrafficOptions } from '../port/traffic.ts';
export { openSwitch, Switch } from '../switch/switch.ts';
export type * from '../types.ts';
