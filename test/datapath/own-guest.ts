// An in-process guest (datapath/guest.ts) on a port of the rig, with rings of any kind: our driver
// against our device, step by step in one thread.

import * as D from '../../src/abi/driver.ts';
import {
  RING_AVAIL,
  RING_CALL_FD,
  RING_DESC,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_PORT,
  RING_RUNNING,
  RING_SIGNALLED,
  RING_SIZE,
  RING_STATE,
  RING_USED,
  RING_USED_IDX,
  RINGF_PACKED,
} from '../../src/abi/layout.ts';
import { DESC_SIZE, WRAP } from '../../src/abi/virtio.ts';
import { ringAddress, ringIndex } from '../../src/memory/control.ts';
import { ringFlags } from '../../src/virtio/features.ts';
import type { Rig, TestPort } from './rig.ts';

/** Bytes of a buffer: a full frame and its header. */
const BUFFER = 2048;

export interface GuestOptions {
  size: number;
  segments: number;
  frames: number;
}

export class OwnGuest {
  readonly port: TestPort;
  readonly block: number;
  /** Driver block and ring index: RX, TX. */
  readonly queues: { drv: number; ring: number }[];
  readonly #rig: Rig;

  constructor(port: TestPort, peer: TestPort, options: GuestOptions) {
    const { rig } = port;
    const { size, segments, frames } = options;
    this.port = port;
    this.#rig = rig;
    this.queues = [0, 1].map((queue) => this.#queue(queue, size));
    this.block = rig.heap(D.GUEST_SIZE);
    const set = (field: number, value: number) => rig.control.set(this.block + field, value);
    set(D.GUEST_RX, this.queues[0]!.drv);
    set(D.GUEST_TX, this.queues[1]!.drv);
    set(D.GUEST_HDR_LEN, port.headerLength);
    set(D.GUEST_RX_BUFS, port.alloc(size * BUFFER, 64));
    set(D.GUEST_TX_BUFS, port.alloc(size * BUFFER, 64));
    set(D.GUEST_BUF, BUFFER);
    set(D.GUEST_ID, port.index);
    rig.control.set64(this.block + D.GUEST_MAC, BigInt(0x02 + (port.index << 8)));
    rig.control.set64(this.block + D.GUEST_PEER_MAC, BigInt(0x02 + (peer.index << 8)));
    set(D.GUEST_CHECK, 1);
    set(D.GUEST_SEGMENTS, Math.min(segments, size));
    set(D.GUEST_WINDOW, size);
    rig.control.set64(this.block + D.GUEST_GOAL, BigInt(frames));
  }

  #queue(queue: number, size: number): { drv: number; ring: number } {
    const { rig } = this.port;
    const flags = ringFlags(this.port.features);
    const packed = (flags & RINGF_PACKED) !== 0;
    const ring = ringIndex(this.port.index, queue);
    const drv = rig.heap(D.DRV_HEADS + size * D.DRV_HEAD);
    const position = packed ? WRAP : 0;
    const parts = [
      this.port.alloc(size * DESC_SIZE, 16),
      this.port.alloc(6 + size * 2, 4),
      this.port.alloc(6 + size * 8, 4),
    ];
    for (const [at, fields] of [
      [drv, [D.DRV_DESC, D.DRV_AVAIL, D.DRV_USED, D.DRV_SIZE, D.DRV_FLAGS]],
      [ringAddress(ring), [RING_DESC, RING_AVAIL, RING_USED, RING_SIZE, RING_FLAGS]],
    ] as const) {
      for (const [i, value] of [...parts, size, flags].entries()) {
        rig.control.set(at + fields[i]!, value);
      }
    }
    rig.control.set(drv + D.DRV_TABLES, this.port.alloc(size * D.DRV_TABLE * DESC_SIZE, 16));
    rig.control.set64(drv + D.DRV_BIAS, BigInt.asUintN(64, this.port.gpa(0)));
    rig.datapath.drvReset(drv);
    for (const [field, value] of [
      [RING_PORT, this.port.index],
      [RING_CALL_FD, 0],
      [RING_LAST_AVAIL, position],
      [RING_USED_IDX, position],
      [RING_SIGNALLED, 0x1_0000],
      [RING_STATE, RING_RUNNING],
    ] as const) {
      rig.control.set(ringAddress(ring) + field, value);
    }
    return { drv, ring };
  }

  start(): void {
    this.#rig.datapath.guestStart(this.block);
    this.disarm();
  }

  /** A round of the guest; its kicks reach the worker. Returns the frames it moved. */
  run(): number {
    const { datapath, control } = this.#rig;
    const moved = datapath.guestRun(this.block);
    if (control.get(this.block + D.GUEST_KICKS_TX)) datapath.activate(this.queues[1]!.ring);
    return moved;
  }

  /** Asks to be called; whether there is something to do already. */
  arm(): boolean {
    return this.queues.map(({ drv }) => this.#rig.datapath.drvArm(drv)).some((more) => more !== 0);
  }

  disarm(): void {
    for (const { drv } of this.queues) this.#rig.datapath.drvDisarm(drv);
  }

  count(field: number): number {
    return this.#rig.control.counter(this.block + field);
  }

  /** Ids that named nothing, of both drivers. */
  get errors(): number {
    return this.queues.reduce((sum, { drv }) => sum + this.#rig.control.get(drv + D.DRV_ERRORS), 0);
  }
}
