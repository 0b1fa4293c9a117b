// The compiled datapath: loading it, and what it exports. One instance a thread.

import { readFileSync } from 'node:fs';
import { SLOT } from '../abi/layout.ts';
import { addressOf, Batch, mmapAnonymousFixed, mmapFixed } from '../linux/index.ts';

export interface Datapath {
  init(id: number): void;
  poll(): number;
  armAll(): number;
  activate(ring: number): number;
  activeRings(): number;
  recover(): void;
  fdbLearn(mac: bigint, port: number): void;
  fdbLookup(mac: bigint): number;
  fdbExpire(before: number, port: number): number;
  translate(port: number, gpa: bigint, len: number): number;
  copy(to: number, from: number, len: number): void;
  copySum(to: number, from: number, len: number): bigint;
  sumOf(from: number, len: number): bigint;
  complement(sum: bigint): number;
  openSum(sum: bigint): void;
  addSum(sum: bigint, len: number): void;
  closeSum(): bigint;
  drvReset(drv: number): void;
  drvAdd(drv: number, segments: number, n: number, token: number, indirect: number): number;
  drvPublish(drv: number): number;
  drvUsed(drv: number): number;
  drvPop(drv: number): number;
  drvArm(drv: number): number;
  drvDisarm(drv: number): void;
  nmStart(kring: number): void;
  nmTxSync(kring: number): number;
  nmRxSync(kring: number): number;
  nmArm(kring: number): number;
  nmDisarm(kring: number): void;
  nmForward(rx: number, tx: number, most: number, copies: number): number;
  guestStart(guest: number): void;
  guestRun(guest: number): number;
}

/** What the datapath calls (datapath/host.ts). None of it may throw. */
export interface DatapathHost {
  /** Signal a ring's call eventfd. */
  call(ring: number): void;
  /** Tell main that a ring was latched. */
  latched(ring: number): void;
  /** Milliseconds on a clock that only goes forward; left out: performance.now(). */
  now?(): number;
  /** Map a page of guest memory: `pager`. Left out by who never polls. */
  pageIn?(fd: number, page: number, linear: number): number;
  /** Signal an eventfd of a driver's. Left out by who drives no ring. */
  kick?(fd: number): void;
  /** Frames to and from TAP queues: `taps`. Left out by who has none. */
  tapRead?(fd: number, list: number, n: number): number;
  tapWrite?(fd: number, list: number, n: number): number;
}

/**
 * Maps pages of guest memory into the slots of `memory`, for DatapathHost. `spent` is told the
 * nanoseconds each took.
 */
export function pager(
  memory: WebAssembly.Memory,
  spent: (ns: number) => void,
): (fd: number, page: number, linear: number) => number {
  const base = addressOf(new Uint8Array(memory.buffer, 0, 65536));
  return (fd, page, linear) => {
    const start = performance.now();
    // Wasm's u32 arrive signed.
    const address = base + (linear >>> 0);
    let mapped = 1;
    try {
      mmapFixed(address, SLOT, fd, (page >>> 0) * SLOT);
    } catch {
      mapped = 0;
      patch(address);
    }
    spent((performance.now() - start) * 1e6);
    return mapped;
  };
}

/**
 * Frames to and from TAP queues, for DatapathHost: `list` is `n` of {linear u32, length u32}, each length
 * becomes the bytes moved or a negative errno. For one thread.
 */
export function taps(memory: WebAssembly.Memory) {
  const words = new Int32Array(memory.buffer);
  let batch: Batch | undefined;
  const prepare = (list: number, n: number): Batch => {
    // Made on first use: most threads never see a TAP.
    batch ??= new Batch(addressOf(new Uint8Array(memory.buffer, 0, 65536)));
    for (let i = 0; i < n; i++) {
      const at = (list >>> 2) + i * 2;
      batch.set(i, words[at]! >>> 0, words[at + 1]!);
    }
    return batch;
  };
  const report = (from: Batch, list: number, n: number): number => {
    for (let i = 0; i < n; i++) words[(list >>> 2) + i * 2 + 1] = from.result(i);
    return n;
  };
  return {
    tapRead(fd: number, list: number, n: number): number {
      const reader = prepare(list, n);
      return report(reader, list, reader.read(fd, n));
    },
    tapWrite(fd: number, list: number, n: number): number {
      const writer = prepare(list, n);
      return report(writer, list, writer.write(fd, n));
    },
  };
}

/** A mapping that failed may have left a hole: nothing else of the process may settle there. */
function patch(address: number): void {
  try {
    mmapAnonymousFixed(address, SLOT);
  } catch {
    // As it was: the next mapping of this slot replaces whatever is there.
  }
}

const clock = performance.now.bind(performance);

const FILE = new URL('../../build/datapath.wasm', import.meta.url);

/** What the datapath imports, of `host`. */
export function imports(host: DatapathHost) {
  return {
    signalCall: host.call,
    signalLatched: host.latched,
    now: host.now ?? clock,
    pageIn: host.pageIn ?? (() => 0),
    signalKick: host.kick ?? (() => {}),
    tapRead: host.tapRead ?? (() => 0),
    tapWrite: host.tapWrite ?? (() => 0),
  };
}

/** Instantiates the datapath on `memory`. Throws, naming the cure, when it was not built. */
export function loadDatapath(memory: WebAssembly.Memory, host: DatapathHost): Datapath {
  let code: Buffer;
  try {
    code = readFileSync(FILE);
  } catch {
    throw new Error(`the datapath is not built (${FILE.pathname}): run script/setup`);
  }
  const module = new WebAssembly.Module(new Uint8Array(code));
  const instance = new WebAssembly.Instance(module, {
    env: { memory },
    host: imports(host),
  });
  return instance.exports as unknown as Datapath;
}
