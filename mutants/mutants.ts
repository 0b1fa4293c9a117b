// Bugs of each class, reintroduced one at a time: `npm run mutants` must find every one caught by a test.
//
// `find` is source text that occurs once in `file`; keep it short. `tests` are run in order until one
// catches it.

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
const SEND = `${HOSTILE}/ring-send.test.ts`;
const RECEIVE = `${HOSTILE}/ring-receive.test.ts`;
const REGIONS = `${HOSTILE}/ring-regions.test.ts`;
const LENGTH = `${HOSTILE}/ring-length.test.ts`;
const SPLIT = `${HOSTILE}/ring-split.test.ts`;
const PACKED = `${HOSTILE}/ring-packed.test.ts`;
const PACKED_TX = `${HOSTILE}/ring-packed-tx.test.ts`;
const WRAPS = `${HOSTILE}/ring-wrap.test.ts`;
const FETCH = `${HOSTILE}/ring-fetch.test.ts`;
const WORK = 'test/datapath/work.test.ts';
const FLIP = `${HOSTILE}/ring-flip.test.ts`;
const RETIRE = `${HOSTILE}/ring-retire.test.ts`;
const MERGE = `${HOSTILE}/ring-merge.test.ts`;
const WAKE = `${HOSTILE}/ring-wake.test.ts`;
const TEARDOWN = `${HOSTILE}/ring-teardown.test.ts`;
const OFFLOAD = `${HOSTILE}/traffic-offload.test.ts`;
const CONTROL = `${HOSTILE}/traffic-control.test.ts`;
const FLOOD = `${HOSTILE}/traffic-flood.test.ts`;
const ONCE = `${HOSTILE}/traffic-once.test.ts`;
const NOTIFY = 'test/datapath/notify.test.ts';
const TRAP = 'test/datapath/trap.test.ts';
const SESSION = 'test/vhost-user/session.test.ts';
const SETUP = 'test/virtio/setup.test.ts';
const MEMORY = 'test/virtio/memory.test.ts';

type Row = [name: string, n: number, find: string, replace: string, ...tests: string[]];

function of(file: string, rows: Row[]): Mutant[] {
  return rows.map(([name, n, find, replace, ...tests]) => ({
    ...{ name, class: n, file, find, replace, tests },
  }));
}

const SOCKET: Mutant[] = [
  ...of('src/vhost-user/session.ts', [
    ['refused-fds-leak', 1, 'for (const fd of message.fds.splice(0)) close(fd);', '', SESSION],
  ]),
  ...of('src/vhost-user/message.ts', [
    ['surplus-fds-taken', 1, 'if (count !== wanted)', 'if (count < wanted)', SESSION],
  ]),
  ...of('src/vhost-user/connection.ts', [
    [
      'truncated-fds-ignored',
      1,
      'if (got.truncated) {',
      'if (false) {',
      'test/vhost-user/connection.test.ts',
    ],
  ]),
  ...of('src/vhost-user/handlers.ts', [
    [
      'index-truncated',
      3,
      'if (index < rings) return index;',
      'if ((index & 0xffff) < rings) return index & 0xffff;',
      SESSION,
    ],
    [
      'one-ring-more',
      26,
      'if (index < rings) return index;',
      'if (index <= rings) return index;',
      CONTROL,
    ],
  ]),
  ...of('src/virtio/device.ts', [
    ['region-mapped-again', 2, 'if (this.regions.has(region)) {', 'if (false) {', MEMORY],
    ['features-not-masked', 8, 'if (surplus !== 0n) {', 'if (false) {', SETUP],
    [
      'memory-changed-before-halt',
      6,
      '    this.#halt(this.rings);\n    try {',
      '    try {',
      MEMORY,
    ],
    [
      'halt-without-quiesce',
      6,
      'if (running.length > 0) this.#host.pool.quiesce();',
      '',
      MEMORY,
      TEARDOWN,
    ],
    [
      'unmapped-before-halt',
      10,
      '    this.#halt(this.rings);\n    this.regions.clear();',
      '    this.regions.clear();\n    this.#halt(this.rings);',
      TEARDOWN,
    ],
    [
      'call-fd-closed-in-use',
      10,
      'this.#host.pool.quiesce();\n      close(old);',
      'close(old);\n      this.#host.pool.quiesce();',
      TEARDOWN,
    ],
    ['latch-not-told', 21, 'if (ring.errFd >= 0) signalPeer(ring.errFd);', '', RETIRE],
    ['latch-for-ever', 21, 'if (ring.state === RING_BROKEN) {', 'if (false) {', RETIRE],
  ]),
  ...of('src/virtio/ring-rules.ts', [
    ['changed-while-running', 6, 'if (ring.started && ring.live) {', 'if (false) {', SETUP],
    ['base-past-16-bits', 7, 'if (base > 0xffff && !packed) {', 'if (false) {', SETUP],
    [
      'packed-base-past-size',
      7,
      'if (packed && !ring.live && slot >= size) {',
      'if (false) {',
      'test/virtio/packed.test.ts',
    ],
    ['ring-of-none', 9, 'num < 1 ||', '', SETUP],
    ['ring-too-long', 7, 'num > MAX_RING_SIZE ||', '', SETUP],
    ['misaligned-descriptors', 9, 'desc % 16n !== 0n ||', '', SETUP],
    ['misaligned-used', 9, ' || used % 4n !== 0n', '', SETUP],
  ]),
  ...of('src/virtio/features.ts', [
    [
      'logging-offered',
      4,
      '  V.F_IN_ORDER,\n];',
      '  V.F_IN_ORDER,\n  V.F_LOG_ALL,\n];',
      'test/virtio/features.test.ts',
    ],
    ['vlan-commands-offered', 26, '  V.F_CTRL_VQ,', '  V.F_CTRL_VQ, V.F_CTRL_VLAN,', CONTROL],
    [
      'header-length-by-one-bit',
      8,
      'has(features, V.F_VERSION_1) || has(features, V.F_MRG_RXBUF)',
      'has(features, V.F_VERSION_1)',
      'test/virtio/features.test.ts',
    ],
  ]),
  ...of('src/virtio/ring.ts', [
    [
      'used-index-from-the-base',
      24,
      'packed ? this.base & 0xffff : this.#control.get16(linear.used + 2)',
      'this.base & 0xffff',
      WAKE,
    ],
    ['stale-call-check', 24, '    this.set(RING_SIGNALLED, 0x1_0000);\n', '', WAKE],
  ]),
  ...of('src/memory/regions.ts', [
    ['region-empty', 5, 'if (size === 0n)', 'if (false)', 'test/memory/regions.test.ts'],
    [
      'region-wraps',
      5,
      'if (gpa + size > LIMIT || uva + size > LIMIT || mmapOffset + size > LIMIT) {',
      'if (false) {',
      'test/memory/regions.test.ts',
    ],
    [
      'region-misaligned',
      9,
      'if ((gpa | uva | size | mmapOffset) & PAGE_MASK) {',
      'if (false) {',
      'test/memory/regions.test.ts',
    ],
    ['region-overlaps', 5, 'if (other) throw', 'if (false) throw', 'test/memory/regions.test.ts'],
    [
      'region-past-file',
      5,
      'if (mmapOffset + size > BigInt(file.size)) {',
      'if (false) {',
      'test/memory/regions.test.ts',
    ],
    [
      'ring-past-region',
      9,
      'uva + BigInt(length) <= r.uva + r.size',
      'uva < r.uva + r.size',
      SETUP,
      'test/memory/regions.test.ts',
    ],
  ]),
  ...of('src/worker/pool.ts', [
    ['quiesce-not-waited-for', 10, '!this.#passed(block, generation)', 'false', TEARDOWN],
  ]),
];

const RINGS: Mutant[] = [
  ...of('src/datapath/memory.ts', [
    ['no-bound-below', 11, 'offset < size && <u64>len', '<u64>len', SEND],
    ['no-bound-at-end', 11, ' && <u64>len <= size - offset', '', SEND],
    [
      'bound-that-wraps',
      12,
      'offset < size && <u64>len <= size - offset',
      'addr >= gpa && addr + len <= gpa + size',
      SEND,
    ],
    [
      'address-of-32-bits',
      12,
      '  const offset = addr - gpa;',
      '  const offset = <u64>(<u32>addr - <u32>gpa);',
      SEND,
    ],
    ['a-byte-too-many', 11, 'room = size - offset;', 'room = size - offset + 1;', REGIONS],
    ["another's-regions", 11, 'REGION_BASE + port *', 'REGION_BASE + 0 * port *', SEND],
  ]),
  ...of('src/datapath/chain.ts', [
    ['buffer-past-2^64', 12, 'if (addr + (len - 1) < addr) return false;', '', REGIONS],
    ['table-past-2^64', 12, 'if (addr + (len - 1) < addr) return 0;', '', REGIONS],
    ['straddle-unmapped', 11, 'if (linear == 0 || segmentsEnd', 'if (segmentsEnd', REGIONS],
    ['length-0-looked-up', 13, 'if (len > 0) {', 'if (true) {', LENGTH],
    ['unbounded-walk', 15, 'min<u32>(entries, MAX_SEGMENTS)', 'entries', SPLIT],
    ['endless-walk', 15, '    left--;\n', '', SPLIT],
    ['next-one-too-far', 15, 'if (i >= entries) break;', 'if (i > entries) break;', SPLIT],
    ['bytes-of-32-bits', 15, 'export let walkedBytes: u64', 'export let walkedBytes: u32', SEND],
    ['write-unchecked', 21, '!= 0) != writable)', '!= 0) != writable && false)', SEND],
    ['chain-changed-since-counted', 19, '((flags & DESC_F_NEXT) != 0) != left > 0', 'false', FETCH],
    ['table-in-a-table', 18, '        indirect ||', '        false ||', SEND],
    [
      'indirect-and-next',
      18,
      '(packed ? span > 1 : (flags & DESC_F_NEXT) != 0) ||',
      '',
      SEND,
      PACKED_TX,
    ],
    ['indirect-not-negotiated', 18, '!(load<u32>(ring, RING_FLAGS) & RINGF_INDIRECT) ||', '', SEND],
    ['table-of-none', 18, 'len == 0 ||', '', SEND],
    ['odd-table', 18, 'len & 15 ||', '', SEND],
    ['table-too-long', 18, 'len > <u32>MAX_SEGMENTS * 16', 'false', SEND],
    [
      'table-not-copied',
      18,
      'snapshotTable(port, addr, len);',
      'translate(port, addr, len);',
      FETCH,
      REGIONS,
    ],
    ['length-fetched-twice', 19, 'walkedBytes += len;', 'walkedBytes += load<u32>(at, 8);', FETCH],
  ]),
  ...of('src/datapath/gather.ts', [
    ['no-least-frame', 14, 'walkedBytes < hdrLen + MIN_FRAME', 'walkedBytes < hdrLen', LENGTH],
    ['shorter-than-header', 14, 'walkedBytes < hdrLen + MIN_FRAME', 'walkedBytes == 0', LENGTH],
    ['no-longest-frame', 14, 'walkedBytes > hdrLen + MAX_FRAME', 'false', SEND],
    ['short-form-too-short', 14, 'len >= hdrLen + KEPT', 'len >= hdrLen', LENGTH],
    ['short-form-too-long', 14, 'len <= hdrLen + MAX_FRAME', 'true', SEND],
    ['flags-unread', 18, '& telling) == 0 &&', '& 0) == 0 &&', SEND],
    [
      'length-fetched-anew',
      19,
      'store<u32>(frame, len - hdrLen, LEN);',
      'store<u32>(frame, load<u32>(descriptor, 8) - hdrLen, LEN);',
      FETCH,
    ],
    ['csum-not-negotiated', 25, '!(features & (1 << F_CSUM)) ||', '', OFFLOAD],
    ['csum-in-ethernet', 25, 'start < <u32>MIN_FRAME ||', '', OFFLOAD],
    ['csum-past-end', 25, 'start + offset + 2 > len', 'start > len', OFFLOAD],
    [
      'csum-of-16-bits',
      25,
      'start + offset + 2 > len',
      '((start + offset + 2) & 0xffff) > len',
      OFFLOAD,
    ],
    ['gso-not-negotiated', 25, '!allowed ||', '', OFFLOAD],
    ['gso-without-csum', 25, 'flags == 0 ||', '', OFFLOAD],
    ['gso-size-0', 25, 'load<u16>(frame, HDR + HDR_GSO_SIZE) == 0 ||', '', OFFLOAD],
    ['gso-csum-elsewhere', 25, 'offset != <u32>(udp ? 6 : 16) ||', '', OFFLOAD],
    ['gso-header-past-end', 25, 'start + <u32>(udp ? 8 : 20) > len ||', '', OFFLOAD],
    ['gso-of-other-type', 25, '!ethertypeFits(frame, kind)', 'false', OFFLOAD],
    ['flags-passed-on', 25, '& HDR_F_NEEDS_CSUM;', '& 0xff;', 'test/datapath/offload.test.ts'],
  ]),
  ...of('src/datapath/segment.ts', [
    ['headers-past-frame', 25, 'if (n > limit) return false;', '', OFFLOAD],
    ['tcp-header-too-short', 25, 'if (size < 20) return false;', '', OFFLOAD],
    ['headers-unread', 25, 'if (!need(headersLen)) return false;', '', OFFLOAD],
  ]),
  ...of('src/datapath/split.ts', [
    ['head-past-table', 16, 'if (head >= size) {', 'if (head > size) {', SPLIT],
    [
      'avail-jump-by-one',
      16,
      '  if (n > load<u32>(ring, RING_SIZE)) {',
      '  if (n > load<u32>(ring, RING_SIZE) + 1) {',
      SPLIT,
    ],
    ['avail-jump', 16, '  if (n > load<u32>(ring, RING_SIZE)) {', '  if (false) {', SPLIT],
    [
      'avail-not-masked',
      17,
      '((position + i) & (size - 1)) * 2',
      '((position + i) & (2 * size - 1)) * 2',
      WRAPS,
    ],
    ['used-not-masked', 17, '(position & mask) * 8', 'min(position, mask) * 8', WRAPS],
    [
      'used-index-plain',
      23,
      '  publish(load<u32>(ring, RING_USED) + 2, position);',
      '  store<u16>(load<u32>(ring, RING_USED) + 2, <u16>position);',
      WAKE,
    ],
    [
      'no-second-look',
      24,
      'return acquire(load<u32>(ring, RING_AVAIL) + 2) == last;',
      'return true;',
      WAKE,
    ],
    ['call-one-late', 24, '- event - 1) & 0xffff) <', '- event) & 0xffff) <', NOTIFY],
  ]),
  ...of('src/datapath/packed.ts', [
    ['id-past-ring', 20, 'if (id >= size) {', 'if (id > size) {', PACKED],
    ['id-unchecked', 20, 'if (id >= size) {', 'if (false) {', PACKED],
    ['no-wrap-flip', 17, '| (wrap ^ WRAP)', '| wrap', WRAPS],
    [
      'wrap-unchecked-at-ready',
      20,
      'return (flags & (DESC_F_AVAIL | DESC_F_USED)) == availableFlags(position);',
      'return true;',
      PACKED,
    ],
    [
      'wrap-unchecked-at-heads',
      20,
      '(flags & (DESC_F_AVAIL | DESC_F_USED)) != wanted',
      'false',
      PACKED,
    ],
    [
      'id-of-the-first',
      20,
      '(advance(position, span - 1, size) & SLOT_BITS)',
      '(position & SLOT_BITS)',
      PACKED_TX,
    ],
    ['chain-without-end', 21, 'if (span == 0) {', 'if (false) {', PACKED_TX],
    [
      'chain-longer-than-walks',
      15,
      'const longest = min<u32>(size, MAX_SEGMENTS);',
      'const longest = size;',
      PACKED_TX,
    ],
    [
      'first-flags-first',
      22,
      'if (position == first) {',
      'if (position == first) store<u16>(at, <u16>flags, FLAGS);\n    if (position == first) {',
      MERGE,
    ],
    ['no-second-look-packed', 24, 'return !readyAt(ring, position);', 'return true;', WAKE],
    ['call-one-late-packed', 24, '((now - at - 1) & 0xffff) <', '((now - at) & 0xffff) <', NOTIFY],
  ]),
  ...of('src/datapath/layout.ts', [
    [
      'index-read-by-bytes',
      23,
      '<u32>atomic.load<u16>(address)',
      '<u32>load<u8>(address) | (<u32>load<u8>(address + 1) << 8)',
      WAKE,
    ],
    [
      'index-written-plain',
      23,
      'atomic.store<u16>(address, <u16>index);',
      'store<u16>(address, <u16>index);',
      WAKE,
    ],
  ]),
  ...of('src/datapath/ring.ts', [
    [
      'used-not-16-bits',
      17,
      'store<u32>(ring, position & 0xffff, RING_USED_IDX);',
      'store<u32>(ring, position, RING_USED_IDX);',
      WRAPS,
    ],
    ['taken-again', 28, 'store<u32>(ring, position & 0xffff, RING_LAST_AVAIL);', '', ONCE],
  ]),
  ...of('src/datapath/room.ts', [
    ['receive-flags-unread', 21, '== <u32>DESC_F_WRITE;', '>= 0;', RECEIVE],
    ['bad-buffer-kept', 22, '    returnRoom();', '', RECEIVE],
    [
      'short-room-given-back',
      22,
      'if (answer == ROOM_BAD) {',
      'if (answer == ROOM_BAD || answer == ROOM_NONE) {',
      MERGE,
    ],
    ['too-many-buffers', 22, 'looked == AHEAD ||', '', MERGE],
    ['one-too-many-back', 28, 'k < looked', 'k <= looked', ONCE, RECEIVE],
    ['receive-drop-uncounted', 27, '  countDrop(ring, reason, n);', '', FLOOD],
  ]),
  ...of('src/datapath/deliver.ts', [
    ['num-buffers-1', 22, '<u16>buffers, HDR_NUM_BUFFERS', '1, HDR_NUM_BUFFERS', MERGE],
    [
      'used-before-written',
      22,
      '      scatter(frame, hdrLen, buffers);\n      takeRoom(buffers, need);',
      '      takeRoom(buffers, need);\n      closeRoom(ring);\n      scatter(frame, hdrLen, buffers);',
      MERGE,
    ],
    [
      'header-fetched-anew',
      19,
      'v128.store(linear, v128.load(frame, HDR));',
      'v128.store(linear, v128.load(load<u32>(load<u32>(frame, PARTS)) - KEPT - hdrLen));',
      FLIP,
    ],
    [
      'addresses-fetched-anew',
      19,
      'v128.store(linear + hdrLen, v128.load(frame, ETH));',
      'v128.store(linear + hdrLen, v128.load(load<u32>(load<u32>(frame, PARTS)) - KEPT));',
      FLIP,
    ],
    [
      'delivered-to-stopped',
      10,
      '== RING_RUNNING) fill',
      '>= 0) fill',
      'test/virtio/start.test.ts',
      SPLIT,
    ],
    ['lock-kept', 21, '  unlock(ring);\n}', '}', TRAP],
  ]),
  ...of('src/datapath/forward.ts', [
    [
      'used-before-delivery',
      22,
      '    forward(ring, n);\n  }\n  complete(ring, n);',
      '    complete(ring, n);\n    forward(ring, n);\n    return n;\n  }\n  complete(ring, n);',
      MERGE,
    ],
    ['burst-unbounded', 27, 'min(n, most)', 'n', FLOOD],
    ['send-drop-uncounted', 14, 'countDrop(ring, load<u32>(frame, HASH), 1);', '{}', LENGTH],
    [
      'completed-twice',
      28,
      'publishUsed(ring, giveBack(ring, n));',
      'publishUsed(ring, giveBack(ring, n));\n  publishUsed(ring, giveBack(ring, n));',
      ONCE,
    ],
  ]),
  ...of('src/datapath/poll.ts', [
    [
      'retired-polled',
      21,
      'const n = pollable(ring) ? pollRing(ring) : 0;',
      'const n = pollRing(ring);',
      TRAP,
    ],
    ['trap-keeps-lock', 21, 'atomic.store<u32>(ringAt(locked) + RING_LOCK, 0);', '', TRAP],
    ['trap-not-retired', 21, 'latch(ringAt(current), BROKEN_TRAP);', '', TRAP],
    [
      'debts-not-paid',
      27,
      'if (owes(load<u32>(ring, RING_PORT)) && pollable(ring)) {',
      'if (false) {',
      WORK,
    ],
    ['change-not-seen', 10, '\n  rebuild();', '', 'test/virtio/start.test.ts'],
  ]),
  ...of('src/datapath/latch.ts', [
    ['latch-silent', 21, '  signalLatched(indexOf(ring));', '', SPLIT],
    ['latch-without-state', 21, '  atomic.store<u32>(ring + RING_STATE, RING_BROKEN);', '', SPLIT],
  ]),
  ...of('src/datapath/fdb.ts', [
    [
      'addresses-unbounded',
      27,
      'atomic.load<u32>(SWITCH_FDB_COUNT) >= <u32>FDB_CAPACITY',
      'false',
      'test/datapath/fdb.test.ts',
    ],
  ]),
];

export const MUTANTS: readonly Mutant[] = [...SOCKET, ...RINGS];

/** Classes of which nothing can be mutated, and why. */
export const NONE: Readonly<Record<number, string>> = {};
