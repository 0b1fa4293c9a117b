// What happens when mapped memory goes away: a file that shrinks, or huge pages that ran out, make
// the next access raise SIGBUS, which ends the process. Guest memory must not be able to do that to
// the other guests, so a handler of our own puts zeros under the access and tells main.
//
// The handler runs on whatever thread made the access, between two instructions of JavaScript or
// Wasm: nothing of V8 may run there, so it is machine code (fault-handler.ts) that makes system calls only.
// It is installed once, with the first range, and stays. V8 keeps SIGSEGV for itself (a Wasm access out
// of bounds) and leaves SIGBUS alone.

import { ENTRY, handlerCode, MAX_GUARDED } from './fault-handler.ts';
import { checked, cMmap, cSyscall, libc } from './ffi.ts';

/** Memory that may go away; addresses and bytes. Both spans hold whole pages of 2 MiB. */
export interface GuardedRange {
  start: number;
  length: number;
  /**
   * Within it: where neighbouring 4 KiB may be different guests', so that no more is replaced at a time.
   * Elsewhere it is 2 MiB, which bounds the number of mappings one guest can break its memory into.
   */
  fine: { start: number; length: number };
  /** Page 0 of the bits in `faults`, at or below `start`. */
  origin: number;
  /** A bit for each 4 KiB page from `origin` on, in u32 words; set for a page that went away. */
  faults: number;
  /** A non-blocking eventfd signalled after each such bit. It stays the caller's. */
  fd: number;
}

const SIGBUS = 7;
const PAGE = 4096;
const PROT_READ_WRITE = 3;
const PROT_READ_EXEC = 5;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const SA_SIGINFO = 4;
/** Where a thread has a stack for signals it is used, as other runtimes in the process may ask. */
const SA_ONSTACK = 0x0800_0000;
/** struct sigaction of glibc and musl: handler u64, mask 128 bytes, flags i32, restorer u64. */
const SIGACTION = { size: 152, flags: 136 };
const SYS_RT_SIGACTION = process.arch === 'x64' ? 13 : 134;

const cMprotect = libc.func('int mprotect(uintptr_t address, size_t length, int prot)');
const cPut = libc.func('uintptr_t memmove(uintptr_t to, const void *from, size_t length)');
const cSigaction = libc.func('int sigaction(int signal, const void *action, uintptr_t old)');

function u64(...values: number[]): Buffer {
  return Buffer.from(new BigUint64Array(values.map(BigInt)).buffer);
}

function put(address: number, bytes: Buffer): void {
  cPut(address, bytes, bytes.length);
}

function anonymousPage(): number {
  const at = cMmap(0, PAGE, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0);
  // MAP_FAILED is -1: all ones.
  checked(at > Number.MAX_SAFE_INTEGER ? -1 : 0, 'mmap', 'a page for the fault guard');
  return at;
}

/** Installs the handler; returns the address of its data page. Throws Error where it cannot. */
function install(): number {
  const data = anonymousPage();
  const bytes = handlerCode(process.arch, data);
  if (bytes === undefined) throw new Error(`there is no handler for ${process.arch}`);
  const code = anonymousPage();
  put(code, bytes);
  // Making it executable also makes the processor's instruction cache see it (arm64).
  checked(cMprotect(code, PAGE, PROT_READ_EXEC), 'mprotect', 'of code for the fault guard');
  checked(cSyscall(SYS_RT_SIGACTION, SIGBUS, 0, data, 8, 0), 'rt_sigaction', 'SIGBUS');
  const action = Buffer.alloc(SIGACTION.size);
  action.writeBigUInt64LE(BigInt(code), 0);
  action.writeInt32LE(SA_SIGINFO | SA_ONSTACK, SIGACTION.flags);
  checked(cSigaction(SIGBUS, action, 0), 'sigaction', 'SIGBUS');
  return data;
}

/** The handler's data page; undefined before the first range, a clause where there can be none. */
let installed: number | string | undefined;
/** By place in the table. */
const taken: boolean[] = new Array(MAX_GUARDED).fill(false);

function installedOrNot(): number | string {
  if (installed === undefined) {
    try {
      installed = install();
    } catch (error) {
      installed = (error as Error).message;
    }
  }
  return installed;
}

/** Why memory that goes away ends this process, in a clause; undefined where it does not. */
export function whyUnguarded(): string | undefined {
  const found = installedOrNot();
  return typeof found === 'string' ? found : undefined;
}

/**
 * From here on an access to memory in `range` whose pages are gone finds zeros, and its bit is set.
 * Returns what ends that; call it before the addresses belong to anything else. Where there is no guard
 * (`whyUnguarded`) nothing happens. Throws Error when MAX_GUARDED ranges are guarded already.
 */
export function guardFaults(range: GuardedRange): () => void {
  const data = installedOrNot();
  if (typeof data === 'string') return () => {};
  const place = taken.indexOf(false);
  if (place < 0) throw new Error(`${MAX_GUARDED} switches in one process; start another process`);
  taken[place] = true;
  const entry = data + ENTRY * (place + 1);
  const { start, length, fine, origin, faults, fd } = range;
  // The length last, and first when it ends: threads of other ranges may be in the handler.
  put(entry, u64(start, 0, fine.start, fine.length, origin, faults, fd));
  put(entry + 8, u64(length));
  return () => {
    put(entry + 8, u64(0));
    taken[place] = false;
  };
}
