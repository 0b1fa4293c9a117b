// Huge pages for a test that needs some.

import { readFileSync, writeFileSync } from 'node:fs';
import type { TestContext } from 'node:test';

/** Runs `body` with `count` more huge pages of `size` bytes, or skips the test with the reason. */
export async function withHugePages(
  t: TestContext,
  size: number,
  count: number,
  body: () => void | Promise<void>,
): Promise<void> {
  const file = `/sys/kernel/mm/hugepages/hugepages-${size / 1024}kB/nr_hugepages`;
  const read = () => Number(readFileSync(file, 'utf8'));
  let before: number;
  try {
    before = read();
    writeFileSync(file, `${before + count}`);
  } catch (error) {
    t.skip(`cannot reserve ${count} pages of ${size} bytes: ${(error as Error).message}`);
    return;
  }
  try {
    if (read() < before + count) {
      t.skip(`the kernel found only ${read() - before} of ${count} free pages of ${size} bytes`);
    } else {
      await body();
    }
  } finally {
    // Relative: another test may hold some too.
    writeFileSync(file, `${Math.max(0, read() - count)}`);
  }
}
