// The handler of fault-guard.ts as machine code: what it does, instruction by instruction. The assembler
// of binutils makes the same of the right-hand side.
//
// SIGBUS stays blocked while it runs (no SA_NODEFER): a fault of its own ends the process. All registers
// come back from the signal frame, so it may use them all. No call, no stack but for one word.
//
// An entry of the table: +0 start, +8 length, +16 fine.start, +24 fine.length, +32 origin, +40 faults,
// +48 fd (GuardedRange); length 0: free.

/** Ranges at a time: one for each open switch. */
export const MAX_GUARDED = 63;
/**
 * Bytes of an entry. The data page has at 0 the action before ours, as the kernel lays it out
 * (rt_sigaction(2)), and from ENTRY on the table.
 */
export const ENTRY = 64;

const X64 = `
000  49 89 f7                  mov   r15, rsi           siginfo_t *
003  49 89 d6                  mov   r14, rdx           ucontext_t *
006  83 7e 08 00               cmp   dword [rsi+8], 0   si_code: not positive if a process sent the signal
00a  7e 25                     jle   other
00c  4c 8b 66 10               mov   r12, [rsi+16]      si_addr
010  48 bb TABLE               mov   rbx, table
01a  b9 3f 00 00 00            mov   ecx, 63            MAX_GUARDED
01f  4c 89 e0            next: mov   rax, r12
022  48 2b 03                  sub   rax, [rbx]
025  48 3b 43 08               cmp   rax, [rbx+8]
029  72 5a                     jb    found              start <= si_addr < start + length
02b  48 83 c3 40               add   rbx, 64            ENTRY
02f  e2 ee                     loop  next
031  48 bb DATA         other: mov   rbx, data          not ours: the action before ours
03b  bf 07 00 00 00            mov   edi, 7             SIGBUS
040  48 8b 03                  mov   rax, [rbx]
043  48 83 f8 01               cmp   rax, 1             SIG_DFL is 0, SIG_IGN 1
047  77 34                     ja    chain
049  48 89 de                  mov   rsi, rbx
04c  31 d2                     xor   edx, edx
04e  41 ba 08 00 00 00         mov   r10d, 8
054  b8 0d 00 00 00            mov   eax, 13            rt_sigaction(SIGBUS, data, NULL, 8)
059  0f 05                     syscall
05b  b8 27 00 00 00            mov   eax, 39            getpid()
060  0f 05                     syscall
062  89 c7                     mov   edi, eax
064  b8 ba 00 00 00            mov   eax, 186           gettid()
069  0f 05                     syscall
06b  89 c6                     mov   esi, eax
06d  ba 07 00 00 00            mov   edx, 7
072  4d 89 fa                  mov   r10, r15
075  b8 29 01 00 00            mov   eax, 297           rt_tgsigqueueinfo(pid, tid, SIGBUS, siginfo)
07a  0f 05                     syscall
07c  c3                        ret                      and the process ends as it would have
07d  4c 89 fe           chain: mov   rsi, r15
080  4c 89 f2                  mov   rdx, r14
083  ff e0                     jmp   rax                the handler before ours, with our arguments
085  bd 00 10 00 00     found: mov   ebp, 4096          what to replace
08a  4c 89 e0                  mov   rax, r12
08d  48 2b 43 10               sub   rax, [rbx+16]
091  48 3b 43 18               cmp   rax, [rbx+24]
095  72 05                     jb    map                in the fine part
097  c1 e5 09          larger: shl   ebp, 9             4 KiB, 2 MiB, 1 GiB, 0
09a  74 95                     jz    other
09c  89 ee                map: mov   esi, ebp
09e  48 89 f7                  mov   rdi, rsi
0a1  48 f7 df                  neg   rdi
0a4  4c 21 e7                  and   rdi, r12           si_addr, rounded down to it
0a7  ba 03 00 00 00            mov   edx, 3             PROT_READ | PROT_WRITE
0ac  41 ba 32 40 00 00         mov   r10d, 0x4032       MAP_PRIVATE | _FIXED | _ANONYMOUS | _NORESERVE
0b2  49 83 c8 ff               or    r8, -1
0b6  45 31 c9                  xor   r9d, r9d
0b9  b8 09 00 00 00            mov   eax, 9             mmap(rdi, rsi, rdx, r10, -1, 0)
0be  0f 05                     syscall
0c0  48 83 f8 ea               cmp   rax, -22           EINVAL: part of a huge page; take all of it
0c4  74 d1                     je    larger
0c6  48 85 c0                  test  rax, rax
0c9  0f 88 62 ff ff ff         js    other
0cf  4c 2b 63 20               sub   r12, [rbx+32]
0d3  49 c1 ec 0c               shr   r12, 12
0d7  48 8b 43 28               mov   rax, [rbx+40]
0db  f0 44 0f ab 20            lock bts dword [rax], r12d
0e0  8b 7b 30                  mov   edi, [rbx+48]
0e3  6a 01                     push  1
0e5  48 89 e6                  mov   rsi, rsp
0e8  ba 08 00 00 00            mov   edx, 8
0ed  b8 01 00 00 00            mov   eax, 1             write(fd, &1, 8); full: main is to wake anyway
0f2  0f 05                     syscall
0f4  58                        pop   rax
0f5  c3                        ret                      the access is made again, on zeros
`;

const ARM64 = `
000  f3 03 01 aa           mov   x19, x1            siginfo_t *
004  f4 03 02 aa           mov   x20, x2            ucontext_t *
008  23 08 40 b9           ldr   w3, [x1, #8]       si_code: not positive if a process sent the signal
00c  7f 00 00 71           cmp   w3, #0
010  6d 01 00 54           b.le  other
014  35 08 40 f9           ldr   x21, [x1, #16]     si_addr
018  58 09 00 58           ldr   x24, table
01c  e5 07 80 52           mov   w5, #63            MAX_GUARDED
020  06 1f 40 a9     next: ldp   x6, x7, [x24]
024  a6 02 06 cb           sub   x6, x21, x6
028  df 00 07 eb           cmp   x6, x7
02c  a3 03 00 54           b.lo  found              start <= si_addr < start + length
030  18 03 01 91           add   x24, x24, #64      ENTRY
034  a5 04 00 71           subs  w5, w5, #1
038  41 ff ff 54           b.ne  next
03c  61 08 00 58    other: ldr   x1, data           not ours: the action before ours
040  23 00 40 f9           ldr   x3, [x1]
044  7f 04 00 f1           cmp   x3, #1             SIG_DFL is 0, SIG_IGN 1
048  48 02 00 54           b.hi  chain
04c  e0 00 80 52           mov   w0, #7
050  02 00 80 d2           mov   x2, #0
054  03 01 80 d2           mov   x3, #8
058  c8 10 80 52           mov   w8, #134           rt_sigaction(SIGBUS, data, NULL, 8)
05c  01 00 00 d4           svc   #0
060  88 15 80 52           mov   w8, #172           getpid()
064  01 00 00 d4           svc   #0
068  f6 03 00 2a           mov   w22, w0
06c  48 16 80 52           mov   w8, #178           gettid()
070  01 00 00 d4           svc   #0
074  e1 03 00 2a           mov   w1, w0
078  e0 03 16 2a           mov   w0, w22
07c  e2 00 80 52           mov   w2, #7
080  e3 03 13 aa           mov   x3, x19
084  08 1e 80 52           mov   w8, #240           rt_tgsigqueueinfo(pid, tid, SIGBUS, siginfo)
088  01 00 00 d4           svc   #0
08c  c0 03 5f d6           ret                      and the process ends as it would have
090  e0 00 80 52    chain: mov   w0, #7
094  e1 03 13 aa           mov   x1, x19
098  e2 03 14 aa           mov   x2, x20
09c  60 00 1f d6           br    x3                 the handler before ours, with our arguments
0a0  16 00 82 d2    found: mov   x22, #4096         what to replace
0a4  06 1f 41 a9           ldp   x6, x7, [x24, #16]
0a8  a6 02 06 cb           sub   x6, x21, x6
0ac  df 00 07 eb           cmp   x6, x7
0b0  63 00 00 54           b.lo  map                in the fine part
0b4  d6 da 77 d3   larger: lsl   x22, x22, #9       4 KiB, 2 MiB, 1 GiB, 512 GiB
0b8  36 fc 3f b7           tbnz  x22, #39, other
0bc  e1 03 16 aa      map: mov   x1, x22
0c0  e0 03 16 cb           neg   x0, x22
0c4  00 00 15 8a           and   x0, x0, x21        si_addr, rounded down to it
0c8  62 00 80 52           mov   w2, #3             PROT_READ | PROT_WRITE
0cc  43 06 88 52           mov   w3, #0x4032        MAP_PRIVATE | _FIXED | _ANONYMOUS | _NORESERVE
0d0  04 00 80 92           mov   x4, #-1
0d4  05 00 80 d2           mov   x5, #0
0d8  c8 1b 80 52           mov   w8, #222           mmap(x0, x1, x2, x3, -1, 0)
0dc  01 00 00 d4           svc   #0
0e0  1f 58 00 b1           cmn   x0, #22            EINVAL: part of a huge page; take all of it
0e4  80 fe ff 54           b.eq  larger
0e8  a0 fa ff b7           tbnz  x0, #63, other
0ec  06 1f 42 a9           ldp   x6, x7, [x24, #32] origin, faults
0f0  a6 02 06 cb           sub   x6, x21, x6
0f4  c6 fc 4c d3           lsr   x6, x6, #12
0f8  c5 fc 45 d3           lsr   x5, x6, #5
0fc  e7 08 05 8b           add   x7, x7, x5, lsl #2 its word
100  28 00 80 52           mov   w8, #1
104  08 21 c6 1a           lsl   w8, w8, w6         the bit, by the low 5 bits
108  e9 fc 5f 88    again: ldaxr w9, [x7]
10c  29 01 08 2a           orr   w9, w9, w8
110  e9 fc 0a 88           stlxr w10, w9, [x7]
114  aa ff ff 35           cbnz  w10, again
118  21 00 80 d2           mov   x1, #1
11c  e1 0f 1f f8           str   x1, [sp, #-16]!
120  00 33 40 b9           ldr   w0, [x24, #48]
124  e1 03 00 91           mov   x1, sp
128  02 01 80 d2           mov   x2, #8
12c  08 08 80 52           mov   w8, #64            write(fd, &1, 8); full: main is to wake anyway
130  01 00 00 d4           svc   #0
134  ff 43 00 91           add   sp, sp, #16
138  c0 03 5f d6           ret                      the access is made again, on zeros
13c  1f 20 03 d5           nop
140  TABLE           table:
148  DATA             data:
`;

const LISTINGS: Readonly<Record<string, string>> = { x64: X64, arm64: ARM64 };

/**
 * The code for a data page at `data` on processors of `arch` (process.arch); undefined where there is
 * none. The first column says at which byte each line must come.
 */
export function handlerCode(arch: string, data: number): Buffer | undefined {
  const listing = LISTINGS[arch];
  if (listing === undefined) return undefined;
  const words = { DATA: hex(data), TABLE: hex(data + ENTRY) };
  const code: number[] = [];
  for (const line of listing.trim().split('\n')) {
    const [, at, bytes] = /^([0-9a-f]+) {2}((?:[0-9a-f]{2} |DATA |TABLE )+)/.exec(line)!;
    if (Number.parseInt(at!, 16) !== code.length) throw new Error(`fault handler: ${line}`);
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
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes.toString('hex').replace(/..(?!$)/g, '$& ');
}
