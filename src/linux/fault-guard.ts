// What happens when mapped memory goes away: a file that shrinks, or huge pages that ran out, make
// the next access raise SIGBUS, which ends the process. Guest memory must not be able to do that to
// the other guests, so a handler of our own puts zeros under the access and tells main.
//
// The handler runs on whatever thread made the access, between two instructions of JavaScript or
// Wasm: nothing of V8 may run there, so it is machine code, listed below, and uses system calls only.
// It is installed once, with the first range, and stays. V8 keeps SIGSEGV for itself (a Wasm access out
// of bounds) and leaves SIGBUS alone.

import { checked, libc } from './ffi.ts';

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

/** Ranges at a time: one for each open switch. */
export const MAX_GUARDED = 63;
/**
 * Bytes of an entry. The data page has at 0 the action before ours, as the kernel lays it out
 * (rt_sigaction(2)), and from ENTRY on the table.
 */
const ENTRY = 64;

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
const SYS_RT_SIGACTION = 13;

// SIGBUS stays blocked while the handler runs (no SA_NODEFER): a fault of its own ends the process.
// No SA_RESTART: an access is not a system call. All registers come back from the signal frame, so
// the handler may use them all.
//
// entry of the table: +0 start, +8 length, +16 fine.start, +24 fine.length, +32 origin, +40 faults,
// +48 fd; length 0: free.
const X64 = `
00  49 89 f7            mov   r15, rsi              siginfo_t *
03  49 89 d6            mov   r14, rdx              ucontext_t *
06  83 7e 08 00         cmp   dword [rsi+8], 0      si_code: not positive if a process sent the signal
0a  7e 25               jle   other
0c  4c 8b 66 10         mov   r12, [rsi+16]         si_addr
10  48 bb TABLE         mov   rbx, table
1a  b9 3f 00 00 00      mov   ecx, 63               MAX_GUARDED
1f  4c 89 e0      next: mov   rax, r12
22  48 2b 03            sub   rax, [rbx]
25  48 3b 43 08         cmp   rax, [rbx+8]
29  72 5a               jb    found                 start <= si_addr < start + length
2b  48 83 c3 40         add   rbx, 64               ENTRY
2f  e2 ee               loop  next
31  48 bb DATA   other: mov   rbx, data             not ours: the action before ours
3b  bf 07 00 00 00      mov   edi, 7                SIGBUS
40  48 8b 03            mov   rax, [rbx]
43  48 83 f8 01         cmp   rax, 1                SIG_DFL is 0, SIG_IGN 1
47  77 34               ja    chain
49  48 89 de            mov   rsi, rbx
4c  31 d2               xor   edx, edx
4e  41 ba 08 00 00 00   mov   r10d, 8
54  b8 0d 00 00 00      mov   eax, 13               rt_sigaction(SIGBUS, data, NULL, 8)
59  0f 05               syscall
5b  b8 27 00 00 00      mov   eax, 39               getpid()
60  0f 05               syscall
62  89 c7               mov   edi, eax
64  b8 ba 00 00 00      mov   eax, 186              gettid()
69  0f 05               syscall
6b  89 c6               mov   esi, eax
6d  ba 07 00 00 00      mov   edx, 7
72  4d 89 fa            mov   r10, r15
75  b8 29 01 00 00      mov   eax, 297              rt_tgsigqueueinfo(pid, tid, SIGBUS, siginfo)
7a  0f 05               syscall
7c  c3                  ret                         and the process ends as it would have
7d  4c 89 fe     chain: mov   rsi, r15
80  4c 89 f2            mov   rdx, r14
83  ff e0               jmp   rax                   the handler before ours, with our arguments
85  bd 00 10 00 00 found: mov ebp, 4096             what to replace
8a  4c 89 e0            mov   rax, r12
8d  48 2b 43 10         sub   rax, [rbx+16]
91  48 3b 43 18         cmp   rax, [rbx+24]
95  72 05               jb    map                   in the fine part
97  c1 e5 09    larger: shl   ebp, 9                4 KiB, 2 MiB, 1 GiB, 0
9a  74 95               jz    other
9c  89 ee          map: mov   esi, ebp
9e  48 89 f7            mov   rdi, rsi
a1  48 f7 df            neg   rdi
a4  4c 21 e7            and   rdi, r12              si_addr, rounded down to it
a7  ba 03 00 00 00      mov   edx, 3                PROT_READ | PROT_WRITE
ac  41 ba 32 40 00 00   mov   r10d, 0x4032          MAP_PRIVATE | _FIXED | _ANONYMOUS | _NORESERVE
b2  49 83 c8 ff         or    r8, -1
b6  45 31 c9            xor   r9d, r9d
b9  b8 09 00 00 00      mov   eax, 9                mmap(rdi, rsi, rdx, r10, -1, 0)
be  0f 05               syscall
c0  48 83 f8 ea         cmp   rax, -22              EINVAL: part of a huge page; take all of it
c4  74 d1               je    larger
c6  48 85 c0            test  rax, rax
c9  0f 88 62 ff ff ff   js    other
cf  4c 2b 63 20         sub   r12, [rbx+32]
d3  49 c1 ec 0c         shr   r12, 12
d7  48 8b 43 28         mov   rax, [rbx+40]
db  f0 44 0f ab 20      lock bts dword [rax], r12d
e0  8b 7b 30            mov   edi, [rbx+48]
e3  6a 01               push  1
e5  48 89 e6            mov   rsi, rsp
e8  ba 08 00 00 00      mov   edx, 8
ed  b8 01 00 00 00      mov   eax, 1                write(fd, &1, 8); full: main is to wake anyway
f2  0f 05               syscall
f4  58                  pop   rax
f5  c3                  ret                         the access is made again, on zeros
`;

const cMmap = libc.func(
  'uintptr_t mmap(uintptr_t address, size_t length, int prot, int flags, int fd, int64_t offset)',
);
const cMprotect = libc.func('int mprotect(uintptr_t address, size_t length, int prot)');
const cPut = libc.func('uintptr_t memmove(uintptr_t to, const void *from, size_t length)');
const cSigaction = libc.func('int sigaction(int signal, const void *action, uintptr_t old)');
const cSyscall = libc.func('long syscall(long number, ...)');

/** The handler's code for a data page at `data`. The first column says where each line must come. */
export function handlerCode(data: number): Buffer {
  const words = { DATA: hex(data), TABLE: hex(data + ENTRY) };
  const code: number[] = [];
  for (const line of X64.trim().split('\n')) {
    const [, at, bytes] = /^([0-9a-f]+) {2}((?:[0-9a-f]{2} |DATA |TABLE )+)/.exec(line)!;
    if (Number.parseInt(at!, 16) !== code.length) throw new Error(`fault guard: ${line}`);
    const spelt = bytes!.replace(/DATA|TABLE/, (word) => words[word as keyof typeof words]);
    code.push(
      ...spelt
        .trim()
        .split(' ')
        .map((byte) => Number.parseInt(byte, 16)),
    );
  }
  return Buffer.from(code);
}

/** A u64 in hexadecimal bytes, little endian. */
function hex(value: number): string {
  return u64(value)
    .toString('hex')
    .replace(/..(?!$)/g, '$& ');
}

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

/** Installs the handler; returns the address of its data page. Throws SystemError. */
function install(): number {
  const data = anonymousPage();
  const code = anonymousPage();
  put(code, handlerCode(data));
  checked(cMprotect(code, PAGE, PROT_READ_EXEC), 'mprotect', 'of code for the fault guard');
  const none = ['uintptr_t', 0, 'uintptr_t', data, 'size_t', 8];
  checked(cSyscall(SYS_RT_SIGACTION, 'int', SIGBUS, ...none), 'rt_sigaction', 'SIGBUS');
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
      installed = process.arch === 'x64' ? install() : `there is none for ${process.arch}`;
    } catch (error) {
      installed = (error as Error).message;
    }
  }
  return installed;
}

/** Why memory that goes away ends this process, in a clause; undefined where it does not. */
export function guardFault(): string | undefined {
  const found = installedOrNot();
  return typeof found === 'string' ? found : undefined;
}

/**
 * From here on an access to memory in `range` whose pages are gone finds zeros, and its bit is set.
 * Returns what ends that; call it before the addresses belong to anything else. Where there is no guard
 * (`guardFault`) nothing happens. Throws Error when MAX_GUARDED ranges are guarded already.
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
