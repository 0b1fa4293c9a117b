// Guest memory that is mapped 2 MiB at a time, from main's side: slots, page tables, and taking both
// back. Workers map pages and evict them (datapath/pager.ts).

import {
  PAGE_ABSENT,
  PAGER_BASE,
  PAGER_FIRST,
  PAGER_FREE,
  PAGER_FREE_FIRST,
  PAGER_LIMBO,
  PAGER_LIMBO_FIRST,
  PAGER_LIMBO_LAST,
  PAGER_LOCK,
  PAGER_REGIONS,
  PAGER_SLOTS,
  SLOT,
  SLOT_ENTRY,
  SLOT_NEXT,
  SLOT_RECORD,
  SLOT_RECORDS,
  SLOT_TABLE,
  TABLES_BASE,
  TABLES_SIZE,
} from '../abi/layout.ts';
import { close, dup, mmapAnonymousFixed } from '../linux/index.ts';
import type { Control } from './control.ts';
import type { Faults } from './faults.ts';
import { Spans } from './spans.ts';

/** A range of a file whose pages can be mapped on demand; what the region table tells of it. */
export interface Pages {
  /** Linear address of the page table. */
  readonly table: number;
  readonly fd: number;
  /** First file page, in units of SLOT, and bytes from its start to the range's. */
  readonly page: number;
  readonly skew: number;
  /** Unmaps every page of it and closes the fd. No worker may look it up any more. */
  release(): void;
}

export class Pager {
  readonly slots: number;
  readonly #control: Control;
  readonly #base: number;
  readonly #faults: Faults;
  readonly #tables = new Spans(TABLES_BASE, TABLES_BASE + TABLES_SIZE);

  /** At most MAX_SLOTS `slots` of SLOT bytes from linear address `first` on; `base` is where linear memory lies. */
  constructor(control: Control, base: number, first: number, slots: number, faults: Faults) {
    this.slots = slots;
    this.#control = control;
    this.#base = base;
    this.#faults = faults;
    control.bytes.fill(0, PAGER_BASE, PAGER_BASE + 256);
    control.set(PAGER_FIRST, first);
    control.set(PAGER_SLOTS, slots);
    for (let slot = slots - 1; slot >= 0; slot--) this.#give(slot);
  }

  /** Slots that no page is mapped in, for a worker to take. */
  get free(): number {
    return this.#control.get(PAGER_FREE);
  }

  /**
   * Makes `size` bytes of `fd` (which stays the caller's) from `offset` on mappable page by page.
   * Returns undefined when there is no room for the page table.
   */
  open(fd: number, offset: number, size: number): Pages | undefined {
    const page = Math.floor(offset / SLOT);
    const skew = offset % SLOT;
    const length = Math.ceil((skew + size) / SLOT) * 4;
    const own = dup(fd);
    const table = this.#tables.take(length, 4);
    if (table === undefined) {
      close(own);
      return undefined;
    }
    this.#control.bytes.fill(0, table, table + length);
    this.#control.add(PAGER_REGIONS, 1);
    return {
      table,
      fd: own,
      page,
      skew,
      release: () => {
        this.#takeBack(table);
        this.#control.add(PAGER_REGIONS, -1);
        this.#tables.give(table, length);
        close(own);
      },
    };
  }

  /** Whether the slot at linear address `at` shows, or last showed, a page of page table `table`. */
  shows(table: number, at: number): boolean {
    const slot = Math.floor((at - this.#control.get(PAGER_FIRST)) / SLOT);
    if (slot < 0 || slot >= this.slots) return false;
    return this.#control.get(recordAt(slot) + SLOT_TABLE) === table;
  }

  /** Frees every slot that shows a page of this table's file, also those already evicted. */
  #takeBack(table: number): void {
    this.#control.lock(PAGER_LOCK);
    this.#unlist(table);
    const owned: number[] = [];
    for (let slot = 0; slot < this.slots; slot++) {
      const record = recordAt(slot);
      if (this.#control.get(record + SLOT_TABLE) !== table) continue;
      const entry = this.#control.get(record + SLOT_ENTRY);
      if (entry !== 0) this.#control.set(entry, PAGE_ABSENT);
      this.#control.set(record + SLOT_ENTRY, 0);
      owned.push(slot);
    }
    this.#control.unlock(PAGER_LOCK);
    // Off all lists they are nobody's: the file must not stay mapped until a slot happens to be used.
    const first = this.#control.get(PAGER_FIRST);
    for (const slot of owned) {
      mmapAnonymousFixed(this.#base + first + slot * SLOT, SLOT);
      this.#faults.clear(first + slot * SLOT, SLOT);
    }
    this.#control.lock(PAGER_LOCK);
    for (const slot of owned) this.#give(slot);
    this.#control.unlock(PAGER_LOCK);
  }

  /** Takes the slots of `table` out of the free list and out of limbo. Under the lock. */
  #unlist(table: number): void {
    for (const [first, count, last] of [
      [PAGER_FREE_FIRST, PAGER_FREE, 0],
      [PAGER_LIMBO_FIRST, PAGER_LIMBO, PAGER_LIMBO_LAST],
    ] as const) {
      let link: number = first;
      let end = 0;
      for (let next = this.#control.get(link); next !== 0; ) {
        const record = recordAt(next - 1);
        const after = this.#control.get(record + SLOT_NEXT);
        if (this.#control.get(record + SLOT_TABLE) === table) {
          this.#control.set(link, after);
          this.#control.add(count, -1);
        } else {
          link = record + SLOT_NEXT;
          end = next;
        }
        next = after;
      }
      if (last !== 0) this.#control.set(last, end);
    }
  }

  /** Puts a slot that shows nothing on the free list. Under the lock. */
  #give(slot: number): void {
    const record = recordAt(slot);
    this.#control.set(record + SLOT_ENTRY, 0);
    this.#control.set(record + SLOT_TABLE, 0);
    this.#control.set(record + SLOT_NEXT, this.#control.get(PAGER_FREE_FIRST));
    this.#control.set(PAGER_FREE_FIRST, slot + 1);
    this.#control.add(PAGER_FREE, 1);
  }
}

function recordAt(slot: number): number {
  return SLOT_RECORDS + slot * SLOT_RECORD;
}
