// What a world is made of: drawn from one seed, valid in every part.

import * as V from '../../src/abi/virtio.ts';
import { WRAP } from '../../src/abi/virtio.ts';
import { features } from '../../test/datapath/rig.ts';
import { Random } from '../random.ts';

export interface Shape {
  /** The hostile guest. */
  features: bigint;
  packed: boolean;
  txSize: number;
  rxSize: number;
  start: number;
  /** It shares its rings' memory, so that frames can be written over them. */
  rings: boolean;
  paged: boolean;
  order: number;
  /** Its queue is disabled. */
  disabled: boolean;
  /** Its peer, an honest guest; `full`: one that posts few buffers. */
  peer: { features: bigint; buffer: number; full: boolean; down: boolean; mtu: number };
  wire: boolean;
  /** A wire with one end. */
  alone: boolean;
}

const OFFLOADS = [V.F_CSUM, V.F_HOST_TSO4, V.F_HOST_TSO6, V.F_HOST_ECN, V.F_HOST_USO];
const RECEIVED = [
  V.F_GUEST_CSUM,
  V.F_GUEST_TSO4,
  V.F_GUEST_TSO6,
  V.F_GUEST_ECN,
  V.F_GUEST_USO4,
  V.F_GUEST_USO6,
];

function acked(random: Random, packed: boolean, mergeable: boolean): bigint {
  const bits: number[] = [];
  if (packed) bits.push(V.F_RING_PACKED);
  if (mergeable) bits.push(V.F_MRG_RXBUF);
  if (packed || random.below(8) > 0) bits.push(V.F_VERSION_1);
  if (random.below(4) > 0) bits.push(V.F_INDIRECT_DESC);
  if (random.once(2)) bits.push(V.F_EVENT_IDX);
  if (random.once(4)) bits.push(V.F_IN_ORDER);
  if (random.below(3) > 0) bits.push(...OFFLOADS);
  if (random.once(2)) bits.push(...RECEIVED);
  return features(...bits);
}

export function shapeOf(seed: number): Shape {
  const random = new Random(seed ^ 0x5eed);
  const packed = random.once(2);
  const size = (): number => {
    const small = random.once(3);
    if (!packed) return 2 << (small ? random.below(5) : 4 + random.below(6));
    return small ? 2 + random.below(15) : 2 + random.below(1023);
  };
  const mergeable = random.once(2);
  const slot = random.once(2) ? random.below(65536) : random.pick([0, 0x7ffe, 0xfffe, WRAP]);
  return {
    features: acked(random, packed, random.once(2)),
    packed,
    txSize: size(),
    rxSize: size(),
    start: slot,
    rings: random.once(4),
    paged: random.once(4),
    order: random.below(8),
    disabled: random.once(24),
    peer: {
      features: acked(random, random.once(2), mergeable),
      buffer: mergeable ? random.pick([64, 256, 1536, 2048]) : random.pick([1024, 2048, 67584]),
      full: random.once(8),
      down: random.once(24),
      mtu: random.pick([0, 0, 0, 400, 1500]),
    },
    wire: random.once(2),
    alone: random.once(16),
  };
}
