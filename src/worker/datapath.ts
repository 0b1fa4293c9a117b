// The compiled datapath: loading it, and what it exports. One instance a thread.

import { readFileSync } from 'node:fs';
import { SLOT } from '../abi/layout.ts';
import { addressOf, mmapAnonymousFixed, mmapFixed } from '../linux/index.ts';

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
    host: {
      signalCall: host.call,
      signalLatched: host.latched,
      now: host.now ?? clock,
      pageIn: host.pageIn ?? (() => 0),
    },
  });
  return instance.exports as unknown as Datapath;
}
