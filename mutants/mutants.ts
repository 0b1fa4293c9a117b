// Bugs of each class, reintroduced one at a time: `npm run mutants` must find every one caught by a test.

import { CONTROL_PLANE } from './control.ts';
import { MIGRATION } from './migration.ts';
import { RINGS } from './rings.ts';
import type { Mutant } from './table.ts';
import { TRAFFIC } from './traffic.ts';

export const MUTANTS: readonly Mutant[] = [...CONTROL_PLANE, ...MIGRATION, ...RINGS, ...TRAFFIC];

/** Classes of which nothing can be mutated, and why. */
export const NONE: Readonly<Record<number, string>> = {};
