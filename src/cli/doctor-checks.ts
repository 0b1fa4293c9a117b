// The doctor's checks, in the order they are printed. None of them changes anything.

import { accessSync, constants, existsSync, lstatSync } from 'node:fs';
import { availableParallelism, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { findSwitches } from '../control/client.ts';
import { folderFault, runtimeFolders } from '../control/path.ts';
import { MAX_SOCKET_PATH } from '../limits.ts';
import { freeHugePages, QEMU, qemuVersion, readText } from './machine.ts';
import { memory } from './units.ts';

export interface Finding {
  verdict: 'PASS' | 'WARN' | 'FAIL';
  /** What was looked at. */
  check: string;
  found: string;
  /** What to do about it; with every FAIL and most WARNs. */
  cure?: string;
}

/** The part of Node's global that is used here; the compiler's library for Node has no types of it. */
declare const WebAssembly: {
  validate(bytes: Uint8Array): boolean;
  Memory: new (limits: { initial: number; maximum: number; shared: boolean }) => object;
};

type Check = () => Finding | Promise<Finding>;

const pass = (check: string, found: string): Finding => ({ verdict: 'PASS', check, found });
const warn = (check: string, found: string, cure: string): Finding => ({
  verdict: 'WARN',
  check,
  found,
  cure,
});
const fail = (check: string, found: string, cure: string): Finding => ({
  verdict: 'FAIL',
  check,
  found,
  cure,
});

const NODE_CURE = 'install Node 24 or later, or run script/setup for a Node of its own';

const platform: Check = () => {
  const found = `${process.platform} ${release()}, ${process.arch}`;
  if (process.platform !== 'linux') {
    return fail('system', found, 'run vhop on Linux: vhost-user passes Linux file descriptors');
  }
  if (!['x64', 'arm64'].includes(process.arch)) {
    return fail('system', found, 'run vhop on x86-64 or ARM64: the datapath needs SIMD');
  }
  return pass('system', found);
};

const node: Check = () => {
  const major = Number(process.versions.node.split('.')[0]);
  if (major < 24) return fail('Node', process.version, NODE_CURE);
  return pass('Node', `${process.version}, V8 ${process.versions.v8}`);
};

/** A module of one function type () -> (), one memory, one function with `body`. */
function moduleOf(body: readonly number[], flags: number): Uint8Array {
  const code = [0, ...body, 0x0b];
  return new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
    ...[0x01, 0x04, 0x01, 0x60, 0x00, 0x00], // type section
    ...[0x03, 0x02, 0x01, 0x00], // function section
    ...[0x05, 0x04, 0x01, flags, 0x01, 0x01], // memory section: 1 page, 1 at most
    ...[0x0a, code.length + 2, 0x01, code.length, ...code], // code section
  ]);
}

/** Flags of the memory section's limits: a maximum is given; with 2 the memory is shared. */
const HAS_MAXIMUM = 1;
const SHARED = 3;

/** What the datapath is made of, each as the body of a function that needs it. */
export const WASM_FEATURES: Readonly<Record<string, Uint8Array>> = {
  // i32.const 0; i32.atomic.load align=4; drop
  threads: moduleOf([0x41, 0x00, 0xfe, 0x10, 0x02, 0x00, 0x1a], SHARED),
  // i32.const 0; i8x16.splat; drop
  SIMD: moduleOf([0x41, 0x00, 0xfd, 0x0f, 0x1a], HAS_MAXIMUM),
  // i32.const 0 three times; memory.copy
  'bulk memory': moduleOf(
    [0x41, 0x00, 0x41, 0x00, 0x41, 0x00, 0xfc, 0x0a, 0x00, 0x00],
    HAS_MAXIMUM,
  ),
};

const wasm: Check = () => {
  const names = Object.keys(WASM_FEATURES);
  const missing = names.filter((name) => !WebAssembly.validate(WASM_FEATURES[name]!));
  if (missing.length > 0) {
    return fail('WebAssembly', `this Node has no ${missing.join(', no ')}`, NODE_CURE);
  }
  return pass('WebAssembly', names.join(', '));
};

const sharedMemory: Check = () => {
  const check = '4 GiB of shared memory';
  try {
    new WebAssembly.Memory({ initial: 65536, maximum: 65536, shared: true });
    return pass(check, 'can be reserved');
  } catch (error) {
    return fail(
      check,
      `cannot be reserved (${(error as Error).message})`,
      'lift the limit on address space (ulimit -v unlimited), or the memory limit of the container',
    );
  }
};

const overcommit: Check = () => {
  const mode = readText('/proc/sys/vm/overcommit_memory')?.trim();
  if (mode === '2') {
    return warn(
      'overcommit',
      'the kernel refuses memory it cannot promise (vm.overcommit_memory=2)',
      'if a guest cannot be mapped: sysctl vm.overcommit_memory=0',
    );
  }
  return pass('overcommit', `allowed (vm.overcommit_memory=${mode ?? 'unknown'})`);
};

const datapath: Check = () => {
  const file = fileURLToPath(new URL('../../build/datapath.wasm', import.meta.url));
  if (existsSync(file)) return pass('datapath', 'is built');
  return fail('datapath', `${file} is missing`, 'run script/setup');
};

const systemCalls: Check = async () => {
  const check = 'system calls, memfd';
  try {
    const linux = await import('../linux/index.ts');
    linux.close(linux.memfd('vhop-doctor', 4096));
    return pass(check, 'work');
  } catch (error) {
    return fail(
      check,
      `do not work (${(error as Error).message})`,
      'run script/setup for the koffi package; in a container allow memfd_create',
    );
  }
};

const calls: Check = async () => {
  const check = 'calls to guests';
  try {
    const { aioContext } = await import('../linux/index.ts');
    if (aioContext() !== 0) return pass(check, 'cannot be held up (kernel AIO)');
  } catch {
    // Said by the check before.
  }
  return warn(
    check,
    'by write(2): a hostile front end can hold a worker up with a full eventfd',
    'allow io_setup and io_submit, or raise fs.aio-max-nr, before untrusted guests connect',
  );
};

const faultGuard: Check = async () => {
  const check = 'memory that shrinks';
  const cure =
    'where guests do not trust each other: require_sealed for each port (--require-sealed)';
  try {
    const { whyUnguarded } = await import('../linux/index.ts');
    const fault = whyUnguarded();
    if (fault === undefined) return pass(check, 'costs its own port');
    return warn(check, `ends the switch: it cannot catch SIGBUS (${fault})`, cure);
  } catch {
    return warn(check, 'unknown: system calls do not work', cure);
  }
};

const cores: Check = () => {
  const count = availableParallelism();
  const found = `${count} to use`;
  if (count > 1) return pass('cores', found);
  return warn('cores', found, 'give vhop a core of its own: guests and switch take turns on one');
};

const openFiles: Check = () => {
  const limit = /^Max open files\s+(\d+|unlimited)/m.exec(readText('/proc/self/limits') ?? '')?.[1];
  const found = limit === undefined ? 'limit unknown' : `at most ${limit}`;
  if (limit === undefined || limit === 'unlimited' || Number(limit) >= 1024) {
    return pass('open files', found);
  }
  return warn('open files', found, 'each port takes up to 60: raise it with ulimit -n 4096');
};

const runtimeFolder: Check = () => {
  const check = 'runtime folder';
  const folder = runtimeFolders()[0]!;
  // A name can have 32 characters, and `.sock` follows it.
  const longest = Buffer.byteLength(folder) + 1 + 32 + 5;
  const cure = 'set XDG_RUNTIME_DIR to another folder, or start switches with --control PATH';
  if (longest - 31 > MAX_SOCKET_PATH)
    return fail(check, `${folder} is too long for a socket`, cure);
  if (lstatSync(folder, { throwIfNoEntry: false }) !== undefined) {
    const fault = folderFault(folder);
    if (fault !== undefined) return fail(check, `${folder} ${fault}`, cure);
  }
  if (longest > MAX_SOCKET_PATH) {
    const room = MAX_SOCKET_PATH - (longest - 32);
    return warn(check, `${folder} leaves ${room} characters for a switch's name`, cure);
  }
  return pass(check, folder);
};

const switches: Check = async () => {
  const { running, stale } = await findSwitches();
  if (stale.length > 0) {
    return warn(
      'control sockets',
      `${stale.length} left behind by a switch that was killed`,
      `rm ${stale.join(' ')} (or start that switch again: it takes its socket over)`,
    );
  }
  const names = running.map(({ info }) => `${info.name} (pid ${info.pid})`);
  return pass('control sockets', names.length > 0 ? `running: ${names.join(', ')}` : 'none');
};

const hugePages: Check = () => {
  const free = freeHugePages();
  if (free > 0) return pass('huge pages', `${memory(free)} free`);
  return warn(
    'huge pages',
    'none free: everything works, large guests a little slower',
    'sysctl vm.nr_hugepages=512 reserves 1 GiB; give QEMU hugetlb=on in memory-backend-memfd',
  );
};

const kvm: Check = () => {
  const file = '/dev/kvm';
  if (!existsSync(file)) {
    return warn('KVM', `no ${file}: guests are emulated, and slow`, 'enable virtualisation');
  }
  try {
    accessSync(file, constants.R_OK | constants.W_OK);
    return pass('KVM', 'can be used');
  } catch {
    return warn('KVM', `${file} is not yours to open`, 'join the group kvm: usermod -aG kvm $USER');
  }
};

const qemu: Check = () => {
  const version = qemuVersion();
  if (version === undefined) {
    return warn('QEMU', `no ${QEMU} on PATH`, 'install it, or use another vhost-user front end');
  }
  const found = `${QEMU} ${version.join('.')}`;
  const [major, minor] = version;
  if (major < 2 || (major === 2 && minor < 12)) {
    return warn('QEMU', found, 'use 2.12 or later: it brought memory-backend-memfd');
  }
  return pass('QEMU', found);
};

export const CHECKS: readonly Check[] = [
  platform,
  node,
  wasm,
  sharedMemory,
  overcommit,
  datapath,
  systemCalls,
  calls,
  faultGuard,
  cores,
  openFiles,
  runtimeFolder,
  switches,
  hugePages,
  kvm,
  qemu,
];
