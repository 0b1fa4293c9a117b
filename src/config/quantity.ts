// Numbers as people write them: 100k, 2.5M, 1G. Decimal, as networks count.

const FACTORS: Record<string, number> = { '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12 };

/** A number, or text such as `100k`, `2.5M`, `1G`; undefined for anything else. */
export function quantity(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value !== 'string') return undefined;
  const [, digits, suffix] = /^(\d+(?:\.\d+)?)([kMGT]?)$/.exec(value.trim()) ?? [];
  return digits === undefined ? undefined : Number(digits) * FACTORS[suffix!]!;
}

const LIMITS = ['frames', 'bits'] as const;

/**
 * Limits as typed on a command line, `bits=1G,frames=100k`; throws RangeError with a sentence that
 * names what it cannot read.
 */
export function parseLimits(text: string): { frames?: number; bits?: number } {
  const limits: { frames?: number; bits?: number } = {};
  for (const part of text.split(',')) {
    const [key, value] = part.split('=', 2);
    const name = LIMITS.find((known) => known === key);
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
