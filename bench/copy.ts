// What a copy costs, the inline loop's and the engine's memory.copy: src/datapath/copy.ts compiled twice, once
// for each. Buffers come round as those of frames in a circle do: what was written is read half a round later
// and then waits to be written again. Run: node bench/copy.ts

import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';

const SIZES = [64, 128, 256, 512, 1024, 1518, 4096];
/** Bytes between buffers; how many come round decides which cache they lie in. */
const STRIDE = 4352;
/** The buffers of two ports: each has two rings full of them. */
const PLACES = { 'in L1': 8, 'rings of 64': 256, 'rings of 256': 1024, 'rings of 1024': 4096 };
const COPIES = 4096;
const ROUNDS = 30;
const LOOP = `
export function many(buffers: u32, len: u32, n: u32, mask: u32): void {
  const half = (mask + 1) / 2;
  for (let i: u32 = 0; i < n; i++) {
    copy(buffers + ((i + half) & mask) * ${STRIDE}, buffers + (i & mask) * ${STRIDE}, len);
  }
}`;

// Imported by a name that types do not follow: the compiler's own would redefine `console` for all.
const compiler: string = 'assemblyscript/asc';
const asc: {
  compileString(
    source: string,
    options: Record<string, unknown>,
  ): Promise<{ error: Error | null; binary: Uint8Array | null; stderr: object }>;
} = (await import(compiler)).default;

type Many = (buffers: number, len: number, n: number, mask: number) => void;

const memory = new WebAssembly.Memory({ initial: 65536, maximum: 65536, shared: true });
const source = readFileSync(new URL('../src/datapath/copy.ts', import.meta.url), 'utf8');

/** The copy with another threshold: 0 always calls memory.copy, a large one never does. */
async function variant(threshold: number): Promise<Many> {
  const text = source.replace(/(INLINE: u32 =) \d+/, `$1 ${threshold}`) + LOOP;
  if (text === source + LOOP) throw new Error('src/datapath/copy.ts has no INLINE to replace');
  const { error, binary, stderr } = await asc.compileString(text, {
    optimizeLevel: 3,
    runtime: 'stub',
    importMemory: true,
    sharedMemory: true,
    initialMemory: 65536,
    maximumMemory: 65536,
    enable: ['simd', 'threads', 'bulk-memory'],
  });
  if (error || !binary) throw new Error(`asc: ${stderr}`);
  const module = new WebAssembly.Module(new Uint8Array(binary));
  return new WebAssembly.Instance(module, { env: { memory } }).exports['many'] as Many;
}

/** Nanoseconds a copy, the median of ROUNDS. */
function measure(many: Many, len: number, buffers: number): number {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    many(0x1000_0000, len, COPIES, buffers - 1);
    times.push(((performance.now() - start) * 1e6) / COPIES);
  }
  return times.sort((a, b) => a - b)[ROUNDS >> 1]!;
}

const loop = await variant(1 << 30);
const engine = await variant(0);
// The optimising compiler works beside the calls.
for (const until = performance.now() + 500; performance.now() < until; ) {
  for (const many of [loop, engine]) many(0x1000_0000, 1518, 16, 7);
  await setTimeout(0);
}
console.log('ns a copy, inline loop / memory.copy');
for (const [place, buffers] of Object.entries(PLACES)) {
  const cells = SIZES.map((size) => {
    const [a, b] = [measure(loop, size, buffers), measure(engine, size, buffers)];
    return `${size} B ${a.toFixed(1)}/${b.toFixed(1)}`;
  });
  console.log(`  ${place.padEnd(13)} ${cells.join('   ')}`);
}
