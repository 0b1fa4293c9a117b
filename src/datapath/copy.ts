// The one copy.

/**
 * Above this many bytes the engine's memory.copy is used: in L1 it wins from there on, further out the
 * two are within 15 % (bench/copy.ts).
 */
const INLINE: u32 = 1024;

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

// A cursor over segments {linear u32, len u32}; reads and writes go through it in order.
let readAt: u32 = 0;
let readLeft: u32 = 0;
let readNext: u32 = 0;

/** Starts a cursor at segment `segments`; the caller never reads past the last one. */
export function openRead(segments: u32): void {
  readNext = segments;
  readLeft = 0;
}

/** Copies the next `len` bytes of the cursor to `to`. */
export function readInto(to: u32, len: u32): void {
  while (len > 0) {
    if (readLeft == 0) {
      readAt = load<u32>(readNext);
      readLeft = load<u32>(readNext, 4);
      readNext += 8;
      continue;
    }
    const part = min(len, readLeft);
    copy(to, readAt, part);
    to += part;
    readAt += part;
    readLeft -= part;
    len -= part;
  }
}

/**
 * Takes the cursor's unread rest: the current segment is cut to what is left of it, in place.
 * Returns the address of the first unread segment.
 */
export function closeRead(): u32 {
  if (readLeft == 0) return readNext;
  store<u32>(readNext - 8, readAt);
  store<u32>(readNext - 8, readLeft, 4);
  return readNext - 8;
}
