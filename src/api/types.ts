// The library's shapes.

export type * from '../types.ts';
