// The one copy (beside the one that sums, checksum.ts).

/**
 * Above this many bytes the engine's memory.copy is used. In L2 the two are equal from there on (bench/copy.ts);
 * further out its wider stores win: frames of 1024 B that circle cost 142 ns instead of 152.
 */
const INLINE: u32 = 256;

/** Copies `len` bytes exactly; the two do not overlap. */
export function copy(to: u32, from: u32, len: u32): void {
  if (len > INLINE) {
    memory.copy(to, from, len);
    return;
  }
  if (len >= 16) {
    const last = len - 16;
    // The last 16 bytes first, overlapping what the loop writes: no tail to branch on.
    const tail = v128.load(from + last);
    let i: u32 = 0;
    for (; i + 64 <= len; i += 64) {
      const a = v128.load(from + i);
      const b = v128.load(from + i, 16);
      const c = v128.load(from + i, 32);
      const d = v128.load(from + i, 48);
      v128.store(to + i, a);
      v128.store(to + i, b, 16);
      v128.store(to + i, c, 32);
      v128.store(to + i, d, 48);
    }
    for (; i < last; i += 16) v128.store(to + i, v128.load(from + i));
    v128.store(to + last, tail);
    return;
  }
  if (len & 8) {
    store<u64>(to, load<u64>(from));
    to += 8;
    from += 8;
  }
  if (len & 4) {
    store<u32>(to, load<u32>(from));
    to += 4;
    from += 4;
  }
  if (len & 2) {
    store<u16>(to, load<u16>(from));
    to += 2;
    from += 2;
  }
  if (len & 1) store<u8>(to, load<u8>(from));
}
