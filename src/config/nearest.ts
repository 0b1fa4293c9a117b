// "Did you mean": the known word closest to a mistyped one.

/**
 * The word of `known` within a third of its length (at least one edit) of `word`, or undefined.
 * Edits are insertions, deletions, substitutions and swaps of neighbours; case is ignored.
 */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const limit = Math.max(1, Math.floor(Math.max(candidate.length, word.length) / 3));
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance <= limit && distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** ` (did you mean 'x'?)` or the list of what is known; ready to append to a sentence. */
export function suggestion(word: string, known: readonly string[]): string {
  const match = nearest(word, known);
  if (match !== undefined) return `: did you mean '${match}'?`;
  return known.length > 0 ? `: known are ${known.join(', ')}` : '';
}

/** Optimal string alignment distance; O(|a|·|b|) time, so callers pass words, not documents. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let d = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        d = Math.min(d, beforeLast[j - 2]! + 1);
      }
      row.push(d);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}
