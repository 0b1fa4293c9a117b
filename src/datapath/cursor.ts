// Cursors over segments {linear u32, len u32}: a frame as it lies at its sender, read in order, and
// the room its receiver made for it, written in order.

import { addSum, copySum } from './checksum';
import { copy } from './copy';

let readAt: u32 = 0;
let readLeft: u32 = 0;
let readNext: u32 = 0;

/** Starts reading at segment `segments`; the caller never reads past the last one. */
export function openRead(segments: u32): void {
  readNext = segments;
  readLeft = 0;
}

function nextRead(): void {
  readAt = load<u32>(readNext);
  readLeft = load<u32>(readNext, 4);
  readNext += 8;
}

/** Copies the next `len` bytes to `to`. */
export function readInto(to: u32, len: u32): void {
  while (len > 0) {
    if (readLeft == 0) {
      nextRead();
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

/** Passes over the next `len` bytes without reading them. */
export function skip(len: u32): void {
  while (len > 0) {
    if (readLeft == 0) {
      nextRead();
      continue;
    }
    const part = min(len, readLeft);
    readAt += part;
    readLeft -= part;
    len -= part;
  }
}

/**
 * Takes the unread rest: the current segment is cut to what is left of it, in place. Returns the
 * address of the first unread segment.
 */
export function closeRead(): u32 {
  if (readLeft == 0) return readNext;
  store<u32>(readNext - 8, readAt);
  store<u32>(readNext - 8, readLeft, 4);
  return readNext - 8;
}

let writeAt: u32 = 0;
let writeLeft: u32 = 0;
let writeNext: u32 = 0;

/** Starts writing at segment `segments`; the caller never writes past the last one. */
export function openWrite(segments: u32): void {
  writeNext = segments;
  writeLeft = 0;
}

function nextWrite(): void {
  writeAt = load<u32>(writeNext);
  writeLeft = load<u32>(writeNext, 4);
  writeNext += 8;
}

/** Writes `len` bytes from `from`. */
export function write(from: u32, len: u32): void {
  while (len > 0) {
    if (writeLeft == 0) {
      nextWrite();
      continue;
    }
    const part = min(len, writeLeft);
    copy(writeAt, from, part);
    from += part;
    writeAt += part;
    writeLeft -= part;
    len -= part;
  }
}

/** Writes `len` bytes from `from`, and adds them to the sum. */
export function writeSum(from: u32, len: u32): void {
  while (len > 0) {
    if (writeLeft == 0) {
      nextWrite();
      continue;
    }
    const part = min(len, writeLeft);
    addSum(copySum(writeAt, from, part), part);
    from += part;
    writeAt += part;
    writeLeft -= part;
    len -= part;
  }
}

/** Copies the next `len` bytes read to where is written next. */
export function pass(len: u32): void {
  while (len > 0) {
    if (readLeft == 0) {
      nextRead();
      continue;
    }
    const part = min(len, readLeft);
    write(readAt, part);
    readAt += part;
    readLeft -= part;
    len -= part;
  }
}

/** As `pass`, and adds the bytes to the sum. */
export function passSum(len: u32): void {
  while (len > 0) {
    if (readLeft == 0) {
      nextRead();
      continue;
    }
    const part = min(len, readLeft);
    writeSum(readAt, part);
    readAt += part;
    readLeft -= part;
    len -= part;
  }
}

/** Linear address of byte `offset` of segments, which have it. */
function placeOf(segments: u32, offset: u32): u32 {
  while (offset >= load<u32>(segments, 4)) {
    offset -= load<u32>(segments, 4);
    segments += 8;
  }
  return load<u32>(segments) + offset;
}

/** Overwrites the two bytes at `offset` of segments; they need not lie in one. */
export function patch(segments: u32, offset: u32, value: u32): void {
  store<u8>(placeOf(segments, offset), <u8>value);
  store<u8>(placeOf(segments, offset + 1), <u8>(value >> 8));
}
