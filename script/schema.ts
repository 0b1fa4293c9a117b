// Run by script/schema.

import { readFileSync, writeFileSync } from 'node:fs';
import { schemaText } from '../src/config/schema.ts';

const file = new URL('../schema/vhop.schema.json', import.meta.url);
const check = process.argv[2] === '--check';
if (!check) {
  writeFileSync(file, schemaText());
} else if (readFileSync(file, 'utf8') !== schemaText()) {
  console.error('schema/vhop.schema.json does not fit src/config/schema.ts: run script/schema');
  process.exitCode = 1;
}
