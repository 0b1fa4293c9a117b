// Every fuzzer. A new one is added here and nowhere else.

import { messages } from './messages.ts';
import { RACES } from './race/races.ts';
import { race } from './race.ts';
import { rings } from './rings.ts';
import type { FuzzTarget } from './target.ts';

export interface Listed {
  target: FuzzTarget;
  /** What one iteration is. */
  unit: string;
  /** How many are a long run. */
  iterations: number;
}

export const TARGETS: readonly Listed[] = [
  { target: rings, unit: 'fields changed', iterations: 1e9 },
  { target: messages, unit: 'messages', iterations: 1e7 },
  { target: race, unit: 'flips', iterations: RACES.length * 1e8 },
];
