// Which combinations of choices a test runs: all of them, or few in which every two choices meet.

type Row = Record<string, unknown>;

/** Every combination of the values, first factor slowest. */
export function product<T extends Record<string, readonly unknown[]>>(
  factors: T,
): { [K in keyof T]: T[K][number] }[] {
  const rows = Object.entries(factors).reduce<Row[]>(
    (all, [name, values]) =>
      all.flatMap((row) => values.map((value) => ({ ...row, [name]: value }))),
    [{}],
  );
  return rows as { [K in keyof T]: T[K][number] }[];
}

/**
 * Combinations in which every value of a factor occurs with every value of every other one: greedy,
 * always the row that brings most new pairs together, of some hundred made by a fixed generator.
 */
export function covering(factors: Record<string, readonly unknown[]>): Row[] {
  const names = Object.keys(factors);
  const missing = new Set(
    names.flatMap((a, i) =>
      names.slice(i + 1).flatMap((b) => product({ [a]: factors[a]!, [b]: factors[b]! }).map(key)),
    ),
  );
  let state = 1;
  const pick = (values: readonly unknown[]): unknown => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return values[(state >>> 16) % values.length];
  };
  const rows: Row[] = [];
  while (missing.size > 0) {
    const made = Array.from({ length: 400 }, () =>
      Object.fromEntries(names.map((name) => [name, pick(factors[name]!)])),
    );
    // One that surely brings something new, should chance not.
    const [first] = missing;
    made.push({ ...made[0], ...(JSON.parse(first!) as Row) });
    const news = (row: Row) => pairsOf(row).filter((pair) => missing.has(pair));
    const best = made.reduce((a, b) => (news(b).length > news(a).length ? b : a));
    for (const pair of news(best)) missing.delete(pair);
    rows.push(best);
  }
  return rows;
}

function pairsOf(row: Row): string[] {
  const entries = Object.entries(row);
  return entries.flatMap(([a, x], i) =>
    entries.slice(i + 1).map(([b, y]) => key({ [a]: x, [b]: y })),
  );
}

function key(pair: Row): string {
  return JSON.stringify(pair);
}
