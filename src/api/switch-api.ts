export type { SwitchApi } from '../types.ts';
