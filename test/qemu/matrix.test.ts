// Pairs of guests, each with another set of virtio features: the same traffic passes every one.

import assert from 'node:assert/strict';
import { iperf } from '../peers/iperf.ts';
import type { Nic } from '../peers/nic.ts';
import { scenario } from './lab.ts';
import { A, agree, B, bootPair, copy, pingAll } from './pair.ts';

const NO_OFFLOADS = {
  csum: false,
  guest_csum: false,
  host_tso4: false,
  host_tso6: false,
  host_ecn: false,
  host_ufo: false,
  guest_tso4: false,
  guest_tso6: false,
  guest_ecn: false,
  guest_ufo: false,
};
const OFFLOADS = [
  'CSUM',
  'GUEST_CSUM',
  'GUEST_TSO4',
  'GUEST_TSO6',
  'GUEST_ECN',
  'HOST_TSO4',
  'HOST_TSO6',
  'HOST_ECN',
];
const ALL = [...OFFLOADS, 'MRG_RXBUF', 'INDIRECT_DESC', 'EVENT_IDX', 'VERSION_1'];

interface Combination {
  name: string;
  device: Nic['device'];
  /** What the guest does not negotiate. */
  without: string[];
  /** Entries in the rings; QEMU's 256 if left out. */
  size?: number;
}

const combinations: Combination[] = [
  {
    name: 'rings of 1024 entries',
    device: { rx_queue_size: 1024, tx_queue_size: 1024 },
    without: [],
    size: 1024,
  },
  { name: 'mrg_rxbuf off', device: { mrg_rxbuf: false }, without: ['MRG_RXBUF'] },
  { name: 'indirect_desc off', device: { indirect_desc: false }, without: ['INDIRECT_DESC'] },
  { name: 'event_idx off', device: { event_idx: false }, without: ['EVENT_IDX'] },
  {
    name: 'mrg_rxbuf, indirect_desc and event_idx off',
    device: { mrg_rxbuf: false, indirect_desc: false, event_idx: false },
    without: ['MRG_RXBUF', 'INDIRECT_DESC', 'EVENT_IDX'],
  },
  { name: 'offloads off', device: NO_OFFLOADS, without: OFFLOADS },
  {
    name: 'segmentation off, checksums on',
    device: { host_tso4: false, host_tso6: false, guest_tso4: false, guest_tso6: false },
    without: ['HOST_TSO4', 'HOST_TSO6', 'GUEST_TSO4', 'GUEST_TSO6'],
  },
  {
    name: 'legacy: a header of 10 bytes, no offloads',
    device: {
      'disable-legacy': false,
      'disable-modern': true,
      ...NO_OFFLOADS,
      mrg_rxbuf: false,
      indirect_desc: false,
      event_idx: false,
    },
    without: ALL,
  },
];

for (const { name, device, without, size = 256 } of combinations) {
  scenario(name, ['qemu'], {}, async (lab) => {
    await lab.ports('a', 'b');
    const [a, b] = await bootPair(lab, { device });
    for (const port of ['a', 'b']) {
      const { features } = lab.portInfo(port);
      assert.deepEqual(
        features.filter((feature) => ALL.includes(feature)).sort(),
        ALL.filter((feature) => !without.includes(feature)).sort(),
      );
    }
    const sizes = lab.sw.rings().filter(({ started }) => started);
    assert.deepEqual([...new Set(sizes.map((ring) => ring.size))], [size]);

    await pingAll(a, B, 30);
    await pingAll(b, A, 30, '-s 1472');
    assert.ok((await iperf(b, a, B, { seconds: 1 })) > 0);
    await copy(b, a, A, 8);
    await agree(lab, a, b);
    // Both can take what either may send: a full ring is the only reason not to deliver.
    for (const port of ['a', 'b']) {
      const { rx_full, ...drops } = lab.stats(port).drops;
      assert.deepEqual(drops, {}, `${rx_full ?? 0} times the ring was full`);
    }
  });
}
