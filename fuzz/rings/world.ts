// A hostile guest, its peer, and two bystanders, on the rig.

import {
  FORWARD_WIRE,
  PAGE,
  RING_DISCARD,
  RING_RUNNING,
  RING_STATE,
  RING_STOPPED,
  SWITCH_FORWARDING,
} from '../../src/abi/layout.ts';
import {
  F_CSUM,
  F_EVENT_IDX,
  F_INDIRECT_DESC,
  F_MRG_RXBUF,
  F_VERSION_1,
} from '../../src/abi/virtio.ts';
import { has } from '../../src/virtio/features.ts';
import { features, gpaOf } from '../../test/datapath/rig.ts';
import type { Bench } from '../bench.ts';
import type { Random } from '../random.ts';
import { GuestMemory, SECRET } from './guest-memory.ts';
import { Honest } from './honest.ts';
import { HostileRing } from './hostile-ring.ts';
import { Mutator } from './mutate.ts';
import { Poster } from './post.ts';
import { BYSTANDER, PEER, PLAIN } from './samples.ts';
import type { Shape } from './shape.ts';

const BYSTANDERS = features(F_VERSION_1, F_INDIRECT_DESC, F_EVENT_IDX, F_MRG_RXBUF);

export class World {
  readonly bench: Bench;
  readonly shape: Shape;
  readonly guest: GuestMemory;
  readonly tx: HostileRing;
  readonly rx: HostileRing;
  readonly peer: Honest;
  readonly bystanders: [Honest, Honest];
  readonly poster: Poster;
  readonly mutator: Mutator;
  /** Samples that the peer may send. */
  readonly peerSamples: number;
  /** What the hostile TX ring runs as. */
  readonly txState: number;

  constructor(bench: Bench, shape: Shape, random: Random) {
    const { rig, memory } = bench;
    this.bench = bench;
    this.shape = shape;
    rig.clear();
    const hostile = rig.port({ features: shape.features });
    const { wire, paged, rings, order } = shape;
    this.guest = new GuestMemory(rig, hostile, memory, { order, rings, paged });
    const queue = (index: number, size: number) => hostile.queue(index, { size });
    this.rx = new HostileRing(queue(0, shape.rxSize), memory, true, shape.start);
    this.tx = new HostileRing(queue(1, shape.txSize), memory, false, shape.start);
    const peer = rig.port({ features: shape.peer.features, mtu: shape.peer.mtu });
    const buffers = shape.peer.full ? 8 : shape.peer.buffer > 4096 ? 64 : 256;
    this.peer = new Honest(rig, peer, memory, {
      size: 256,
      buffer: shape.peer.buffer,
      buffers,
      samples: PEER,
    });
    this.peerSamples = has(shape.peer.features, F_CSUM) ? PEER.length : PLAIN;
    if (shape.peer.down) this.peer.rx.set(RING_STATE, RING_STOPPED);
    this.bystanders = [0, 1].map(
      () =>
        new Honest(rig, rig.port({ features: BYSTANDERS }), memory, {
          size: 64,
          buffer: 2048,
          buffers: 64,
          samples: BYSTANDER,
        }),
    ) as [Honest, Honest];
    if (wire) {
      if (shape.alone) rig.control.set(SWITCH_FORWARDING, FORWARD_WIRE);
      else rig.wire(hostile, peer);
      rig.wire(this.bystanders[0].port, this.bystanders[1].port);
    }
    // The first page of each: what nobody but its owner may see.
    for (const { base } of rig.ports.slice(1)) memory.u8.fill(SECRET, base, base + PAGE);
    const offloads = has(shape.features, F_CSUM);
    const indirect = has(shape.features, F_INDIRECT_DESC);
    this.poster = new Poster(hostile, memory, this.guest, random, { indirect, offloads });
    const foreign = [1, 2, 3].flatMap((port) => [gpaOf(port), BigInt(rig.ports[port]!.base)]);
    this.mutator = new Mutator(memory, random, this.guest, [...foreign, 0x10_0000n]);
    this.txState = shape.disabled ? RING_DISCARD : RING_RUNNING;
    this.rx.restart();
    this.tx.restart(this.txState);
    rig.publish();
  }
}
