// One region of a guest's memory as its front end gave it, and what is said to people about one.

import { PAGE, SLOT } from '../abi/layout.ts';

/** Where a region lies for the guest (gpa), for its front end (uva), and in the file; bytes. */
export interface Region {
  gpa: bigint;
  size: bigint;
  uva: bigint;
  mmapOffset: bigint;
}

/** A region with what matters of its file: page size in bytes, and whether it cannot shrink. */
export interface Held extends Region {
  block: number;
  sealed: boolean;
}

const GIB = 2 ** 30;

/** A region that cannot be; the message is a clause that names it. */
export class BadRegion extends Error {}

export function describe({ gpa, size }: Region): string {
  return `memory region at GPA 0x${gpa.toString(16)} (${size} bytes)`;
}

export function overlaps(a: bigint, aSize: bigint, b: bigint, bSize: bigint): boolean {
  return a < b + bSize && b < a + aSize;
}

export function sameRegion(a: Region, b: Region): boolean {
  return a.gpa === b.gpa && a.uva === b.uva && a.size === b.size;
}

/** `block`: bytes of the file's pages; `largest`: bytes free in one piece. */
export function tooLarge(region: Region, block: number, largest: number): BadRegion {
  const left = `${Math.floor(largest / 2 ** 20)} MiB of the window are free in one piece`;
  if (block <= SLOT) {
    return new BadRegion(
      `${describe(region)} does not fit: ${left}; give the guests of this switch less memory, ` +
        'or start a second switch',
    );
  }
  const pages = block >= GIB ? `${block / GIB} GiB` : `${block / 2 ** 20} MiB`;
  return new BadRegion(
    `${describe(region)} does not fit: its pages of ${pages} can only be mapped whole, and ` +
      `${left}; use memory-backend-memfd or pages of 2 MiB, which are mapped as they are needed`,
  );
}

/** Why memory of a region went away, in one sentence with the cure. */
export function loss(region: Held): string {
  const { block, sealed } = region;
  const name = describe(region);
  const none =
    block > PAGE
      ? 'the host has no huge page left for it'
      : 'its file system, or the host, has no room left for it';
  if (sealed) {
    return `a page of the ${name} is gone: ${none}; reserve more, or let QEMU take all of it at once (prealloc=on)`;
  }
  return (
    `the file behind the ${name} shrank while it was mapped, or ${none}; ` +
    'give the guest memory that cannot shrink: QEMU with memory-backend-memfd'
  );
}
