// Proves the direction of the architecture: a folder of src/ imports only itself and what stands
// left of it. Prints each arrow that points right, and fails.

import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';

/** Left to right; files directly in src/ belong to the first. */
const ORDER = [
  '.',
  'abi',
  'linux',
  'memory',
  'worker',
  'vhost-user',
  'virtio',
  'observe',
  'netmap',
  'port',
  'switch',
  'config',
  'control',
  'api',
  'tools',
  'cli',
];
/** The datapath is compiled apart, for a machine without system calls: it sees numbers only. */
const APART: Record<string, string[]> = { datapath: ['datapath', 'abi'] };

const root = join(import.meta.dirname, '../src');
const folderOf = (file: string) => dirname(relative(root, file)).split('/')[0]!;
const wrong: string[] = [];
let arrows = 0;

for (const name of globSync('**/*.ts', { cwd: root })) {
  const file = join(root, name);
  const from = folderOf(file);
  const allowed = APART[from] ?? ORDER.slice(0, ORDER.indexOf(from) + 1);
  if (!APART[from] && !ORDER.includes(from)) wrong.push(`src/${from} has no place in ORDER`);
  for (const [, path] of readFileSync(file, 'utf8').matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)) {
    arrows++;
    const to = folderOf(join(dirname(file), path!));
    if (!allowed.includes(to)) wrong.push(`src/${name} imports ${path}: ${to} is right of ${from}`);
  }
}

for (const line of wrong) console.error(line);
if (arrows === 0) wrong.push('no imports found');
console.log(`imports: ${arrows} arrows, ${wrong.length} in the wrong direction`);
process.exitCode = wrong.length > 0 ? 1 : 0;
