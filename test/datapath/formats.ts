// The same tests over rings of either format, and over both at once.

import { after, before, describe } from 'node:test';
import type { Rig } from './rig.ts';

/** Which ports have packed rings, by index. */
export const FORMATS = {
  split: () => false,
  packed: () => true,
  'split to packed': (port: number) => port % 2 === 1,
  'packed to split': (port: number) => port % 2 === 0,
};

export type Format = keyof typeof FORMATS;

export const BOTH: Format[] = ['split', 'packed'];
export const MIXED: Format[] = ['split', 'packed', 'split to packed', 'packed to split'];

/** Describes `tests` once for each format; what they make on `rig` has rings of that one. */
export function overRings(
  rig: Rig,
  formats: Format[],
  what: string,
  tests: (format: Format) => void,
): void {
  for (const format of formats) {
    describe(`${what}: ${format}`, () => {
      before(() => {
        rig.packed = FORMATS[format];
      });
      after(() => {
        rig.packed = FORMATS.split;
      });
      tests(format);
    });
  }
}
