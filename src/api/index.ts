// vhop as a library.

export { openSwitch, Switch } from '../switch/switch.ts';
export { DROP_HELP, DROP_NAMES } from '../observe/drops.ts';
export type { SwitchApi } from './switch-api.ts';
export type * from './types.ts';
