// Bugs of the dirty log.

import { LOG, LOGGING, type Mutant, of, PAGING } from './table.ts';

export const MIGRATION: Mutant[] = [
  ...of('src/datapath/log.ts', [
    ['last-page-unmarked', 4, 'page <= last && page < pages', 'page < last && page < pages', LOG],
    ['marks-past-the-log', 4, ' && page < pages', '', LOG],
  ]),
  ...of('src/datapath/ring.ts', [
    ['index-unmarked', 4, 'if (logsRing(ring)) logPublished(ring, first);', '', LOG],
    ['entries-unmarked', 4, 'logEntries(ring, position, behind, heads, stride, n);', '', LOG],
  ]),
  ...of('src/datapath/room.ts', [
    ['buffers-unmarked', 4, '  if (logging) logTaken(ring);\n  while', '  while', LOG],
    ['chains-unmarked', 4, 'logSegments(ring, scratch + SCRATCH_RX_SEGMENTS, len);', '', LOG],
    [
      'abandoned-unmarked',
      4,
      'export function abandonRoom(ring: u32): void {\n  if (logging) logTaken(ring);',
      'export function abandonRoom(ring: u32): void {',
      LOG,
    ],
  ]),
  ...of('src/datapath/memory.ts', [
    ['page-without-skew', 4, ' + inPage - load<u32>(region, REGION_SKEW);', ' + inPage;', PAGING],
  ]),
  ...of('src/virtio/logging.ts', [
    ['log-too-small', 4, 'if (!this.#coversAll(log)) {', 'if (false) {', LOGGING],
    [
      'log-not-swapped',
      4,
      '    this.#log = log;\n    this.#publish();',
      '    this.#log = log;',
      LOGGING,
    ],
  ]),
  ...of('src/virtio/device.ts', [
    ['rings-do-not-wait', 4, 'if (this.#logging.waits) {', 'if (false) {', LOGGING],
  ]),
  ...of('src/memory/log.ts', [
    ['log-past-its-file', 4, 'if (offset + size > BigInt(file.size)) {', 'if (false) {', LOGGING],
  ]),
];
