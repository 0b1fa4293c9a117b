// Numbers as people write them: 100k, 2.5M, 1G. Decimal, as networks count.

import { LIMIT_KINDS } from '../switch/policing.ts';
import type { Limits } from '../types.ts';

/** A number without sign or exponent, and its suffix. */
export const QUANTITY_PATTERN = /^(\d+(?:\.\d+)?)([kMGT]?)$/;

const FACTORS: Record<string, number> = { '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12 };

/** A number, or text such as `100k`, `2.5M`, `1G`; undefined for anything else. */
export function quantity(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value !== 'string') return undefined;
  const [, digits, suffix] = QUANTITY_PATTERN.exec(value.trim()) ?? [];
  return digits === undefined ? undefined : Number(digits) * FACTORS[suffix!]!;
}

/**
 * Limits as typed on a command line, `bits=1G,frames=100k`; throws RangeError with a sentence that
 * names what it cannot read.
 */
export function parseLimits(text: string): Limits {
  const limits: Limits = {};
  for (const part of text.split(',')) {
    const [key, value] = part.split('=', 2);
    const name = LIMIT_KINDS.find((known) => known === key);
    const number = quantity(value);
    if (name === undefined || number === undefined) {
      throw new RangeError(
        `'${part}' is no limit: write bits=1G, frames=100k, or both with a comma`,
      );
    }
    limits[name] = number;
  }
  return limits;
}
