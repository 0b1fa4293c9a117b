// Bugs of the control plane: sockets, features, memory, set-up, and main against its workers.

import {
  CONTROL,
  MEMORY,
  type Mutant,
  of,
  RETIRE,
  SESSION,
  SETUP,
  TEARDOWN,
  WAKE,
} from './table.ts';

export const CONTROL_PLANE: Mutant[] = [
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
      '    this.#halt(this.rings);\n    for (const ring of this.rings) ring.save();\n    this.regions.clear();',
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
      '      : this.#control.get16(linear.used + 2);',
      '      : this.base & 0xffff;',
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
