// A port whose guest lives in this process: a driver of our own on rings in a memfd.
//
// The memfd is mapped into the window like any guest's memory, and set up through the same calls a
// vhost-user session makes. Layout, from GPA and UVA 0:
//   per queue: descriptors, avail, used (packed: descriptors, the two event areas), then one indirect
//   table a descriptor; page aligned
//   then one buffer a descriptor and queue
// The driver's private state is in the driver heap, out of reach of the switch's bounds.

import {
  DRV_AVAIL,
  DRV_BIAS,
  DRV_DESC,
  DRV_FLAGS,
  DRV_HEAD,
  DRV_HEADS,
  DRV_SIZE,
  DRV_TABLES,
  DRV_USED,
} from '../abi/driver.ts';
import { MAX_REGIONS, PAGE, REGION_BASE, REGION_LINEAR, REGION_STRIDE } from '../abi/layout.ts';
import {
  F_CTRL_VQ,
  F_GUEST_ANNOUNCE,
  F_IN_ORDER,
  F_MQ,
  F_MTU,
  F_RING_PACKED,
} from '../abi/virtio.ts';
import { macFromName } from '../limits.ts';
import { close, dup, eventfd, memfd } from '../linux/index.ts';
import type { Control } from '../memory/control.ts';
import { roundUp, type Spans } from '../memory/spans.ts';
import type { MemoryPortOptions, PortInfo } from '../types.ts';
import type { NetDevice } from '../virtio/device.ts';
import { bit, has, headerLength, ringFlags } from '../virtio/features.ts';
import { PACKED_BASE, queueLayout, ringSizeProblem } from '../virtio/queue-layout.ts';
import type { Datapath } from '../worker/datapath.ts';
import { describeDevice } from './describe.ts';
import type { Port } from './port.ts';

const DEFAULT_RING_SIZE = 256;
/** Bytes of one buffer: a full frame and its header. */
export const BUFFER_SIZE = 2048;
/** What our driver does without, unless asked: no control queue, nothing to announce, split rings. */
const UNUSED = [F_CTRL_VQ, F_GUEST_ANNOUNCE, F_MQ, F_MTU, F_RING_PACKED, F_IN_ORDER].reduce(
  (sum, n) => sum | bit(n),
  0n,
);
/** One queue of the in-process guest, for whoever drives it (datapath/driver.ts). */
export interface LocalQueue {
  /** Driver block in the driver heap. */
  drv: number;
  /** Linear address of the first of `size` buffers, BUFFER_SIZE bytes each. */
  buffers: number;
  size: number;
  /** eventfd to signal when drvPublish says so. */
  kickFd: number;
  /** eventfd signalled when buffers were used. */
  callFd: number;
}

export interface LocalOptions {
  /**
   * Features to negotiate, of those offered. Default: all that the driver can do, on split rings.
   * With RING_PACKED the ring size may be anything from 2 to 32768.
   */
  features?: bigint;
}

export class MemoryPort implements Port {
  readonly name: string;
  readonly index: number;
  readonly device: NetDevice;
  readonly queues: LocalQueue[] = [];
  readonly headerLength: number;
  readonly #options: MemoryPortOptions;
  readonly #heap: Spans;
  readonly #blocks: { at: number; length: number }[] = [];

  constructor(
    options: MemoryPortOptions & LocalOptions,
    index: number,
    device: NetDevice,
    host: { control: Control; heap: Spans; datapath: Datapath },
  ) {
    this.name = options.name;
    this.index = index;
    this.device = device;
    this.#options = options;
    this.#heap = host.heap;
    const { control, datapath } = host;
    const size = options.ringSize ?? DEFAULT_RING_SIZE;
    const features = (options.features ?? ~UNUSED) & device.offeredFeatures;
    const packed = has(features, F_RING_PACKED);
    const problem = ringSizeProblem(size, packed);
    if (problem) throw new RangeError(`port ${options.name}: ${problem}`);
    this.headerLength = headerLength(features);

    const parts = queueLayout(size, packed);
    const queueBytes = parts.end;
    const count = device.rings.length;
    const buffersAt = count * queueBytes;
    const total = roundUp(buffersAt + count * size * BUFFER_SIZE, PAGE);

    device.connected(undefined);
    device.setFeatures(features);
    const region = { gpa: 0n, uva: 0n, size: BigInt(total), mmapOffset: 0n };
    const fd = memfd(`vhop-${options.name}`, total, { seal: true });
    device.setMemTable([{ ...region, fd }]);
    const linear = control.get(REGION_BASE + index * MAX_REGIONS * REGION_STRIDE + REGION_LINEAR);
    for (const [queue] of device.rings.entries()) {
      const at = queue * queueBytes;
      const length = DRV_HEADS + size * DRV_HEAD;
      const drv = this.allocate(length);
      control.set(drv + DRV_DESC, linear + at + parts.desc);
      control.set(drv + DRV_AVAIL, linear + at + parts.avail);
      control.set(drv + DRV_USED, linear + at + parts.used);
      control.set(drv + DRV_SIZE, size);
      control.set(drv + DRV_FLAGS, ringFlags(features));
      control.set64(drv + DRV_BIAS, BigInt.asUintN(64, BigInt(-linear)));
      control.set(drv + DRV_TABLES, linear + at + parts.tables);
      datapath.drvReset(drv);
      const kickFd = eventfd();
      const callFd = eventfd();
      device.setVringNum(queue, size);
      device.setVringBase(queue, packed ? PACKED_BASE : 0);
      device.setVringAddr(queue, {
        flags: 0,
        desc: BigInt(at + parts.desc),
        avail: BigInt(at + parts.avail),
        used: BigInt(at + parts.used),
        logGpa: 0n,
      });
      device.setVringCall(queue, dup(callFd));
      device.setVringKick(queue, dup(kickFd));
      device.setVringEnable(queue, true);
      const buffers = linear + buffersAt + queue * size * BUFFER_SIZE;
      this.queues.push({ drv, buffers, size, kickFd, callFd });
    }
  }

  /** Zeroed driver heap, given back when the port closes. Throws when it is used up. */
  allocate(length: number): number {
    const held = roundUp(length, 64);
    const at = this.#heap.take(held, 64);
    if (at === undefined)
      throw new Error(`port ${this.name}: no room for ${length} bytes of state`);
    this.#blocks.push({ at, length: held });
    return at;
  }

  info(): PortInfo {
    return {
      name: this.name,
      index: this.index,
      type: 'memory',
      mac: this.#options.mac ?? macFromName(this.name),
      ...describeDevice(this.device, 'connected'),
    };
  }

  quarantine(reason: string): void {
    this.device.fault = reason;
    // Its driver knows linear addresses: the memory stays where it is until the port is closed.
    for (const { queue } of this.device.rings) this.device.getVringBase(queue);
  }

  async close(): Promise<void> {
    this.device.disconnected('the port was closed');
    for (const { kickFd, callFd } of this.queues) {
      close(kickFd);
      close(callFd);
    }
    for (const { at, length } of this.#blocks.splice(0)) this.#heap.give(at, length);
  }
}
