// What offloads done for a receiver cost. A checksum summed while copying, against the copy alone; and
// a 64 KiB TSO frame cut for a receiver without TSO, against one passed on to a receiver with it.
// One thread, the datapath alone. Run: npm run bench -- --cases offload

import { readFileSync } from 'node:fs';
import * as V from '../src/abi/virtio.ts';
import { header } from '../test/datapath/frames.ts';
import { packet } from '../test/datapath/packets.ts';
import { features, Rig } from '../test/datapath/rig.ts';
import { type Case, median, type Table } from './case.ts';

/** Bytes between buffers; how many are copied in turn decides which cache they lie in. */
const STRIDE = 4352;
const PLACES = { 'in L1': 4, 'in L2': 128, 'out of L2': 2048 };
const COPIES = 4096;
const LENGTH = 1500;
/** Long enough for the engine to compile what is timed. */
const WARM = 300;

const LOOPS = `
import { copySum } from './checksum';
import { copy } from './copy';
let total: u64 = 0;
export function copies(to: u32, from: u32, len: u32, n: u32, mask: u32): void {
  for (let i: u32 = 0; i < n; i++) {
    copy(to + (i & mask) * ${STRIDE}, from + (i & mask) * ${STRIDE}, len);
  }
}
export function sums(to: u32, from: u32, len: u32, n: u32, mask: u32): u64 {
  for (let i: u32 = 0; i < n; i++) {
    total += copySum(to + (i & mask) * ${STRIDE}, from + (i & mask) * ${STRIDE}, len);
  }
  return total;
}`;

type Many = (to: number, from: number, len: number, n: number, mask: number) => unknown;

/** src/datapath/copy.ts and checksum.ts in loops of their own: a call from here costs as much as they. */
async function compileLoops(): Promise<Record<string, Many>> {
  // Imported by a name that types do not follow: the compiler's own would redefine `console` for all.
  const compiler: string = 'assemblyscript/asc';
  const asc: {
    main(
      options: string[],
      api: {
        readFile(name: string): string | null;
        writeFile(name: string, data: Uint8Array<ArrayBuffer>): void;
        listFiles(): string[];
        stderr: { write(chunk: unknown): void };
      },
    ): Promise<{ error: Error | null }>;
  } = (await import(compiler)).default;
  let binary = new Uint8Array();
  let said = '';
  const options =
    'loops.ts -O3 --runtime stub --importMemory --sharedMemory --initialMemory 65536 ' +
    '--maximumMemory 65536 --enable simd,threads,bulk-memory --outFile loops.wasm';
  const { error } = await asc.main(options.split(' '), {
    readFile(name) {
      if (name === 'loops.ts') return LOOPS;
      if (name !== 'copy.ts' && name !== 'checksum.ts') return null;
      return readFileSync(new URL(`../src/datapath/${name}`, import.meta.url), 'utf8');
    },
    writeFile: (_, data) => {
      binary = data;
    },
    listFiles: () => [],
    stderr: { write: (chunk) => (said += chunk) },
  });
  if (error) throw new Error(`asc: ${said}`);
  const memory = new WebAssembly.Memory({ initial: 65536, maximum: 65536, shared: true });
  const module = new WebAssembly.Module(binary);
  return new WebAssembly.Instance(module, { env: { memory } }).exports as Record<string, Many>;
}

export interface SumResult {
  place: string;
  /** Nanoseconds for 1500 B. */
  copy: number;
  sum: number;
}

/** Copies and summing copies in turn; one result a place and round. */
export async function sumRounds(rounds: number): Promise<SumResult[]> {
  const loops = await compileLoops();
  const time = (many: Many, buffers: number): number => {
    const start = performance.now();
    many(0x1000_0000, 0x2000_0000, LENGTH, COPIES, buffers - 1);
    return ((performance.now() - start) * 1e6) / COPIES;
  };
  const [copies, sums] = [loops['copies']!, loops['sums']!];
  for (let i = 0; i < WARM; i++) [time(copies, 4), time(sums, 4)];
  return Object.entries(PLACES).flatMap(([place, buffers]) =>
    Array.from({ length: rounds }, () => ({
      place,
      copy: time(copies, buffers),
      sum: time(sums, buffers),
    })),
  );
}

const RING = features(V.F_VERSION_1, V.F_INDIRECT_DESC);
const MERGED = RING | features(V.F_MRG_RXBUF);
const CSUM = features(V.F_GUEST_CSUM);
const TSO = CSUM | features(V.F_GUEST_TSO4);
/** 45 segments of 1448 B. */
const PAYLOAD = 65160;
const SIZE = 1448;
/** Frames a burst; their segments, and the buffers of a frame passed on, fit into the ring. */
const BURST = 16;
const BURSTS = 20;

export const RECEIVERS = [
  { name: 'TSO, 2 KiB merged buffers', acked: MERGED | TSO, buffer: 2048 },
  { name: 'TSO, 64 KiB buffers', acked: RING | TSO, buffer: 65580 },
  { name: 'checksums only, 2 KiB buffers', acked: MERGED | CSUM, buffer: 2048 },
  { name: 'no offloads, 2 KiB buffers', acked: MERGED, buffer: 2048 },
];

/** A driver of bursts from a TSO sender to one receiver; each call gives Gbit/s of payload. */
function bursts(acked: bigint, buffer: number): () => number {
  const rig = new Rig();
  const sender = rig.port({ features: RING | features(V.F_CSUM, V.F_HOST_TSO4) });
  const receiver = rig.port({ features: acked });
  rig.wire(sender, receiver);
  const tx = sender.queue(1);
  const rx = receiver.queue(0, { size: 1024 });
  const made = packet({
    ...{ tags: [], version: 4, options: 0, extensions: [], protocol: 6, tcpOptions: 3 },
    ...{ flags: 0x18, payload: PAYLOAD, seed: 1 },
  });
  const asked = header({ ...made.header, gsoSize: SIZE });
  const frames = Array.from({ length: BURST }, () => {
    const at = sender.alloc(12 + made.bytes.length, 64);
    rig.bytes.set(asked, at);
    rig.bytes.set(made.bytes, at + 12);
    return { addr: sender.gpa(at), len: 12 + made.bytes.length };
  });
  const posted = new Map<number, bigint>();
  const post = (addr: bigint): void => {
    posted.set(rx.add([{ addr, len: buffer, write: true }]), addr);
  };
  const count = buffer > 2048 ? 2 * BURST : 1024;
  for (let i = 0; i < count; i++) post(receiver.gpa(receiver.alloc(buffer, 64)));
  rx.publish();
  return () => {
    let time = 0;
    for (let burst = 0; burst < BURSTS; burst++) {
      for (const part of frames) tx.add([part]);
      tx.publish();
      for (let taken = 0; taken < BURST; ) {
        const start = performance.now();
        const moved = rig.datapath.poll();
        if (moved > 0) time += performance.now() - start;
        taken += moved;
      }
      tx.used();
      for (const { head } of rx.used()) {
        const addr = posted.get(head)!;
        posted.delete(head);
        post(addr);
      }
      rx.publish();
    }
    if (rx.dropped > 0) throw new Error(`dropped: ${JSON.stringify(rx.drops)}`);
    return (BURSTS * BURST * PAYLOAD * 8) / (time * 1e6);
  };
}

/** Gbit/s of payload, by receiver as in RECEIVERS; taken in turn, `rounds` times. */
export function cutRounds(rounds: number): number[][] {
  const runs = RECEIVERS.map(({ acked, buffer }) => bursts(acked, buffer));
  for (let i = 0; i < 5; i++) for (const run of runs) run();
  const all: number[][] = RECEIVERS.map(() => []);
  for (let i = 0; i < rounds; i++) for (const [k, run] of runs.entries()) all[k]!.push(run());
  return all;
}

export const offloadCase: Case = {
  name: 'offload',
  about: 'what checksums and segmentation done for a receiver cost, in process',
  needs: [],
  estimate: ({ rounds }) => 10 + rounds * 4,
  async run({ rounds }, say) {
    // Short ones: many rounds.
    say('1500 B copied, and copied and summed');
    const sums = await sumRounds(rounds * 30);
    say('64 KiB TSO frames to a receiver');
    const cuts = cutRounds(rounds * 10);
    const bars = RECEIVERS.map(({ name }, i) => ({
      group: '64 KiB',
      name,
      value: median(cuts[i]!),
    }));
    return {
      title: 'Offloads done for a receiver',
      notes: ['One thread, the datapath alone; medians of ratios taken in turn.'],
      tables: [sumTable(sums), cutTable(cuts)],
      charts: [{ title: '64 KiB TSO frames to a receiver', unit: 'Gbit/s of payload', bars }],
      raw: { sums, cuts },
    };
  },
};

function sumTable(sums: readonly SumResult[]): Table {
  return {
    caption: '1500 B copied, and copied and summed',
    head: ['buffers', 'copied, ns', 'and summed, ns', 'ratio'],
    rows: [...new Set(sums.map((r) => r.place))].map((place) => {
      const runs = sums.filter((r) => r.place === place);
      const [copied, summed, ratio] = [
        median(runs.map((r) => r.copy)).toFixed(1),
        median(runs.map((r) => r.sum)).toFixed(1),
        median(runs.map((r) => r.sum / r.copy)).toFixed(2),
      ];
      return [place, copied, summed, ratio];
    }),
  };
}

function cutTable(cuts: readonly number[][]): Table {
  return {
    caption: '64 KiB TSO frames to a receiver',
    head: ['receiver', 'Gbit/s of payload', 'against the first'],
    rows: RECEIVERS.map(({ name }, i) => {
      const ratio = median(cuts[i]!.map((gbps, k) => gbps / cuts[0]![k]!));
      return [name, median(cuts[i]!).toFixed(1), ratio.toFixed(2)];
    }),
  };
}
