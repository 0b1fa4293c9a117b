// The compiled datapath: loading it, and what it exports. One instance a thread.

import { readFileSync } from 'node:fs';

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

/** What the datapath calls: signal a ring's call eventfd; tell main that a ring was latched. */
export interface DatapathHost {
  call(ring: number): void;
  latched(ring: number): void;
}

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
    host: { signalCall: host.call, signalLatched: host.latched },
  });
  return instance.exports as unknown as Datapath;
}
