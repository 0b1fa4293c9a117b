// The Internet checksum (RFC 1071): one's-complement sums, also while copying.
//
// A sum here is any u64 that is congruent, modulo 0xffff, to the sum of the bytes' 16-bit words as
// loaded (little endian). Words of 32 and 64 bits sum to the same: 2^16 = 1 modulo 0xffff. Byte order
// does not matter either, as long as the folded sum is stored as the words were loaded (RFC 1071
// §2 B). Sums are exact integers and never wrap, so only all zeroes fold to 0.

/** csum_offset of TCP and of UDP. */
export const CSUM_TCP: u32 = 16;
export const CSUM_UDP: u32 = 6;

/**
 * Copies `len` bytes exactly and returns their sum, the first byte taken as of an even offset; the
 * two do not overlap. Up to 1 MiB; the sum stays under 2^50.
 */
export function copySum(to: u32, from: u32, len: u32): u64 {
  // Two 64-bit lanes each: `all` adds whole words and may wrap, `high` their upper halves. What
  // `all` lost is 2^64 at a time, so all - (high << 32) is the sum of the lower halves exactly.
  let all = i64x2.splat(0);
  let high = i64x2.splat(0);
  let i: u32 = 0;
  if (len >= 64) {
    // Two of each: an addition waits for the one before it.
    let all2 = i64x2.splat(0);
    let high2 = i64x2.splat(0);
    for (; i + 64 <= len; i += 64) {
      const a = v128.load(from + i);
      const b = v128.load(from + i, 16);
      const c = v128.load(from + i, 32);
      const d = v128.load(from + i, 48);
      v128.store(to + i, a);
      v128.store(to + i, b, 16);
      v128.store(to + i, c, 32);
      v128.store(to + i, d, 48);
      all = i64x2.add(all, a);
      all2 = i64x2.add(all2, b);
      high = i64x2.add(high, i64x2.shr_u(a, 32));
      high2 = i64x2.add(high2, i64x2.shr_u(b, 32));
      all = i64x2.add(all, c);
      all2 = i64x2.add(all2, d);
      high = i64x2.add(high, i64x2.shr_u(c, 32));
      high2 = i64x2.add(high2, i64x2.shr_u(d, 32));
    }
    all = i64x2.add(all, all2);
    high = i64x2.add(high, high2);
  }
  for (; i + 16 <= len; i += 16) {
    const a = v128.load(from + i);
    v128.store(to + i, a);
    all = i64x2.add(all, a);
    high = i64x2.add(high, i64x2.shr_u(a, 32));
  }
  const lanes = i64x2.add(i64x2.sub(all, i64x2.shl(high, 32)), high);
  let sum = <u64>i64x2.extract_lane(lanes, 0) + <u64>i64x2.extract_lane(lanes, 1);
  // Not an overlapping last vector, as in copy(): its bytes would count twice.
  from += i;
  to += i;
  if (len & 8) {
    const word = load<u64>(from);
    store<u64>(to, word);
    sum += (word & 0xffff_ffff) + (word >> 32);
    from += 8;
    to += 8;
  }
  if (len & 4) {
    const word = load<u32>(from);
    store<u32>(to, word);
    sum += word;
    from += 4;
    to += 4;
  }
  if (len & 2) {
    const word = load<u16>(from);
    store<u16>(to, word);
    sum += word;
    from += 2;
    to += 2;
  }
  if (len & 1) {
    const byte = load<u8>(from);
    store<u8>(to, byte);
    sum += byte;
  }
  return sum;
}

/** Sum of `len` bytes, an even number: for headers, which are short. */
export function sumOf(from: u32, len: u32): u64 {
  let sum: u64 = 0;
  let i: u32 = 0;
  for (; i + 4 <= len; i += 4) sum += load<u32>(from + i);
  if (i < len) sum += load<u16>(from + i);
  return sum;
}

/** A sum as 16 bits, to be stored as it is: 0 only for a sum of 0. */
export function fold(sum: u64): u32 {
  sum = (sum & 0xffff_ffff) + (sum >> 32);
  sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  return <u32>((sum & 0xffff) + (sum >> 16));
}

/** The checksum that goes with a sum: its one's complement. */
export function complement(sum: u64): u32 {
  return fold(sum) ^ 0xffff;
}

/**
 * The checksum as it is stored. Where UDP keeps it (`offset` 6) a 0 would say that there is none: its
 * other form is stored instead (RFC 768).
 */
export function stored(sum: u64, offset: u32): u32 {
  const checksum = complement(sum);
  return checksum == 0 && offset == CSUM_UDP ? 0xffff : checksum;
}

// A sum over pieces of any length. After an odd number of bytes the next piece's words straddle the
// whole's: its sum is rotated by a byte, and times 2^8 is that rotation, modulo 0xffff.
let total: u64 = 0;
let odd: u32 = 0;

/** Starts a sum over pieces; `sum` is of what came before, an even number of bytes. */
export function openSum(sum: u64): void {
  total = sum;
  odd = 0;
}

/** Adds the sum of the next `len` bytes. Pieces of 1 MiB in all: the total cannot wrap. */
export function addSum(sum: u64, len: u32): void {
  total += sum << (odd << 3);
  odd ^= len & 1;
}

export function closeSum(): u64 {
  return total;
}
