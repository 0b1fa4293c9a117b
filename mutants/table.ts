// What a mutant is, and the tests that most of them name.

export interface Mutant {
  /** Unique; what --only takes. */
  name: string;
  /** The bug class, 1-28 (test/hostile). */
  class: number;
  /** From the repository's root. */
  file: string;
  find: string;
  replace: string;
  tests: string[];
}

const HOSTILE = 'test/hostile';
export const SEND = `${HOSTILE}/ring-send.test.ts`;
export const RECEIVE = `${HOSTILE}/ring-receive.test.ts`;
export const REGIONS = `${HOSTILE}/ring-regions.test.ts`;
export const LENGTH = `${HOSTILE}/ring-length.test.ts`;
export const SPLIT = `${HOSTILE}/ring-split.test.ts`;
export const PACKED = `${HOSTILE}/ring-packed.test.ts`;
export const PACKED_TX = `${HOSTILE}/ring-packed-tx.test.ts`;
export const WRAPS = `${HOSTILE}/ring-wrap.test.ts`;
export const FETCH = `${HOSTILE}/ring-fetch.test.ts`;
export const WORK = 'test/datapath/work.test.ts';
export const FLIP = `${HOSTILE}/ring-flip.test.ts`;
export const RETIRE = `${HOSTILE}/ring-retire.test.ts`;
export const MERGE = `${HOSTILE}/ring-merge.test.ts`;
export const WAKE = `${HOSTILE}/ring-wake.test.ts`;
export const TEARDOWN = `${HOSTILE}/ring-teardown.test.ts`;
export const OFFLOAD = `${HOSTILE}/traffic-offload.test.ts`;
export const CONTROL = `${HOSTILE}/traffic-control.test.ts`;
export const FLOOD = `${HOSTILE}/traffic-flood.test.ts`;
export const ONCE = `${HOSTILE}/traffic-once.test.ts`;
export const NOTIFY = 'test/datapath/notify.test.ts';
export const FORWARDING = 'test/datapath/forwarding.test.ts';
export const TRAP = 'test/datapath/trap.test.ts';
export const SESSION = 'test/vhost-user/session.test.ts';
export const SETUP = 'test/virtio/setup.test.ts';
export const MEMORY = 'test/virtio/memory.test.ts';
export const LOG = 'test/datapath/log.test.ts';
export const LOGGING = 'test/virtio/logging.test.ts';
export const PAGING = 'test/virtio/paging.test.ts';

type Row = [name: string, n: number, find: string, replace: string, ...tests: string[]];

/** Rows of one file. */
export function of(file: string, rows: Row[]): Mutant[] {
  return rows.map(([name, n, find, replace, ...tests]) => ({
    ...{ name, class: n, file, find, replace, tests },
  }));
}
