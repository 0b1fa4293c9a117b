// What the offloads done for a receiver cost: a checksum beside the copy alone, and a 64 KiB frame cut
// for a receiver without TSO beside one passed on whole. Run: node bench/offload.ts
// or: npm run bench -- --cases offload

import { readFileSync } from 'node:fs';

/** Bytes between buffers; how many are copied in turn decides which cache they lie in. */
const STRIDE = 4352;
const PLACES = { 'in L1': 4, 'in L2': 128, 'out of L2': 2048 };
const COPIES = 4096;
const LENGTH = 1500;
const LOOPS = `
import { copy } from './copy';
import { copySum } from './checksum';
export function copies(to: u32, from: u32, len: u32, n: u32, mask: u32): void {
  for (let i: u32 = 0; i < n; i++) {
    copy(to + (i & mask) * ${STRIDE}, from + (i & mask) * ${STRIDE}, len);
  }
}
let all: u64 = 0;
export function sums(to: u32, from: u32, len: u32, n: u32, mask: u32): u64 {
  for (let i: u32 = 0; i < n; i++) {
    all += copySum(to + (i & mask) * ${STRIDE}, from + (i & mask) * ${STRIDE}, len);
  }
  return all;
}`;

// Imported by a name that types do not follow: the compiler's own would redefine \`console\` for all.
const compiler: string = 'assemblyscript/asc';
const asc: {
  compileFiles?: unknown;
  main(
    args: string[],
    api: {
      readFile(name: string): string | null;
      writeFile(name: string, data: Uint8Array | string): void;
      listFiles(): string[];
      stderr: { write(chunk: unknown): void };
    },
  ): Promise<{ error: Error | null }>;
} = (await import(compiler)).default;

type Many = (to: number, from: number, len: number, n: number, mask: number) => unknown;

let binary = new Uint8Array();
let said = '';
const { error } = await asc.main(
  [
    'loops.ts',
    '-O3',
    '--runtime',
    'stub',
    '--importMemory',
    '--sharedMemory',
    '--initialMemory',
    '65536',
    '--maximumMemory',
    '65536',
    '--enable',
    'simd,threads,bulk-memory',
    '--outFile',
    'out.wasm',
  ],
  {
    readFile(name) {
      if (name === 'loops.ts') return LOOPS;
      if (!/^(copy|checksum)\.ts$/.test(name)) return null;
      return readFileSync(new URL(`../src/datapath/${name}`, import.meta.url), 'utf8');
    },
    writeFile(_, data) {
      binary = data as Uint8Array;
    },
    listFiles: () => [],
    stderr: {
      write(chunk) {
        said += chunk;
      },
    },
  },
);
if (error) throw new Error(`asc: ${said}`);
const memory = new WebAssembly.Memory({ initial: 65536, maximum: 65536, shared: true });
const instance = new WebAssembly.Instance(new WebAssembly.Module(binary), { env: { memory } });
const { copies, sums } = instance.exports as Record<string, Many>;
function time(many: Many, buffers: number): number {
  const start = performance.now();
  many(0x1000_0000, 0x2000_0a40, LENGTH, COPIES, buffers - 1);
  return ((performance.now() - start) * 1e6) / COPIES;
}
for (let w = 0; w < 300; w++) {
  time(copies!, 4);
  time(sums!, 4);
}
for (const [place, buffers] of Object.entries(PLACES)) {
  const a: number[] = [],
    b: number[] = [],
    r: number[] = [];
  for (let i = 0; i < 200; i++) {
    const x = time(copies!, buffers),
      y = time(sums!, buffers);
    a.push(x);
    b.push(y);
    r.push(y / x);
  }
  const m = (v: number[]) => v.sort((p, q) => p - q)[v.length >> 1]!.toFixed(2);
  console.log(place, m(a), m(b), m(r));
}
