// NetDevices without workers: a pool that only notes what it is asked, and the datapath polled by
// hand. What a vhost-user session would call is called here directly.

import {
  NO_PORT,
  PAGE,
  PORT_BASE,
  PORT_DOWN,
  PORT_PEER,
  PORT_STATE,
  PORT_STRIDE,
  SWITCH_NOW,
  SWITCH_PORTS,
  SWITCH_WORKERS,
  WORKER_BASE,
  WORKER_GENERATION,
} from '../../src/abi/layout.ts';
import { F_EVENT_IDX, F_INDIRECT_DESC, F_MRG_RXBUF, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { close, dup, eventfd, memfd } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { Window, type WindowOptions } from '../../src/memory/window.ts';
import { NetDevice } from '../../src/virtio/device.ts';
import { type Datapath, loadDatapath, pager } from '../../src/worker/datapath.ts';
import type { WorkerPool } from '../../src/worker/pool.ts';
import { features } from '../datapath/rig.ts';

export const PLAIN = features(F_VERSION_1, F_INDIRECT_DESC, F_EVENT_IDX, F_MRG_RXBUF);
export const GUEST_BYTES = 0x40_0000;
/** Where guests of this bench see their memory. */
export const GPA = 0x8000_0000n;
export const UVA = 0x7fab_0000_0000n;

export class DeviceBench {
  readonly control = new Control();
  readonly window: Window;
  readonly datapath: Datapath;
  readonly calls: number[] = [];
  readonly latched: number[] = [];
  /** fds watched for kicks, by ring. */
  readonly watched = new Map<number, number>();
  quiesced = 0;
  onQuiesce: () => void = () => {};
  #ports = 0;

  /** `paged` is told the nanoseconds that each page took to map. */
  constructor(options: WindowOptions = {}, paged: (ns: number) => void = () => {}) {
    this.window = new Window(this.control, options);
    this.datapath = loadDatapath(this.control.memory, {
      call: (ring) => this.calls.push(ring),
      latched: (ring) => this.latched.push(ring),
      pageIn: pager(this.control.memory, paged),
    });
    this.datapath.init(0);
    this.control.set(SWITCH_WORKERS, 1);
    this.control.set(SWITCH_NOW, 1);
  }

  /** What devices made from now on quiesce. */
  get pool(): WorkerPool {
    const pool = {
      size: 1,
      quiesce: () => {
        this.quiesced++;
        this.control.add(WORKER_BASE + WORKER_GENERATION, 1);
        this.onQuiesce();
      },
      watch: (_id: number, fd: number, ring: number) => this.watched.set(fd, ring),
      unwatch: (_id: number, fd: number) => {
        if (!this.watched.delete(fd)) throw new Error(`fd ${fd} was not watched`);
      },
    };
    return pool as unknown as WorkerPool;
  }

  /** A device on the next port index, with the events it raised. */
  device(
    pairs = 1,
    mtu?: number,
    whole = false,
    requireSealed = false,
  ): { device: NetDevice; port: number; events: string[] } {
    const port = this.#ports++;
    const block = PORT_BASE + port * PORT_STRIDE;
    const events: string[] = [];
    this.control.set(block + PORT_STATE, PORT_DOWN);
    this.control.set(block + PORT_PEER, NO_PORT);
    const device = new NetDevice(
      { control: this.control, window: this.window, pool: this.pool },
      { port, pairs, mtu, whole, requireSealed },
      {
        changed: () => events.push(device.up ? 'up' : 'down'),
        connected: () => events.push('connected'),
        disconnected: () => events.push('disconnected'),
        features: () => events.push('features'),
        logging: (on) => events.push(`logging ${on}`),
        rarp: () => events.push('rarp'),
        notice: (text) => events.push(text),
      },
    );
    this.control.set(SWITCH_PORTS, this.#ports);
    return { device, port, events };
  }

  /** Polls until nothing moves; returns the frames taken. */
  settle(): number {
    let total = 0;
    for (let idle = 0; idle < 12; ) {
      const moved = this.datapath.poll();
      total += moved;
      idle = moved > 0 ? 0 : idle + 1;
    }
    return total;
  }
}

/** A front end by hand: a memfd, one ring after the other in it, plain single-buffer chains. */
export class FrontEnd {
  readonly fd: number;
  readonly device: NetDevice;
  readonly #bench: DeviceBench;
  readonly size: number;
  readonly #availIdx: number[] = [];

  /** `fd`: the memory of one that was here before, for a guest that starts anew. */
  constructor(bench: DeviceBench, device: NetDevice, size = 16, fd?: number) {
    this.#bench = bench;
    this.device = device;
    this.size = size;
    this.fd = fd ?? memfd('front-end', GUEST_BYTES, { seal: true });
  }

  region(offset = 0) {
    const size = BigInt(GUEST_BYTES - offset);
    const at = BigInt(offset);
    return { gpa: GPA + at, size, uva: UVA + at, mmapOffset: at, fd: dup(this.fd) };
  }

  /** File offsets of a ring's parts: desc, avail, used; then `size` buffers of a page. */
  at(queue: number): { desc: number; avail: number; used: number; buffers: number } {
    const base = queue * 64 * PAGE;
    return { desc: base, avail: base + PAGE, used: base + 2 * PAGE, buffers: base + 3 * PAGE };
  }

  /** Linear address of a file offset, as mapped now. */
  linear(offset: number): number {
    return this.device.regions.fromUva(UVA + BigInt(offset), 1);
  }

  addresses(queue: number) {
    const { desc, avail, used } = this.at(queue);
    const uva = (offset: number) => UVA + BigInt(offset);
    return { flags: 0, desc: uva(desc), avail: uva(avail), used: uva(used), logGpa: 0n };
  }

  /** Everything but ENABLE. */
  start(queue: number, base = 0): void {
    const { device } = this;
    device.setVringNum(queue, this.size);
    device.setVringBase(queue, base);
    device.setVringAddr(queue, this.addresses(queue));
    device.setVringCall(queue, eventfd());
    device.setVringKick(queue, eventfd());
  }

  /** A whole session: features, memory, all rings, enabled. */
  open(acked = PLAIN): this {
    this.device.connected(undefined);
    this.device.setFeatures(acked);
    this.device.setMemTable([this.region()]);
    for (const [queue] of this.device.rings.entries()) {
      this.start(queue);
      this.device.setVringEnable(queue, true);
    }
    return this;
  }

  /** Posts one buffer, its first bytes `head` if it is to be sent; publishes it. */
  post(queue: number, length: number, write: boolean, head: Uint8Array = new Uint8Array()): void {
    const view = new DataView(this.#bench.control.memory.buffer);
    const { desc, avail, buffers } = this.at(queue);
    const idx = this.#availIdx[queue] ?? view.getUint16(this.linear(avail) + 2, true);
    const slot = idx & (this.size - 1);
    this.#bench.control.bytes.set(head, this.linear(buffers + slot * PAGE));
    const at = this.linear(desc) + slot * 16;
    view.setBigUint64(at, GPA + BigInt(buffers + slot * PAGE), true);
    view.setUint32(at + 8, length, true);
    view.setUint32(at + 12, write ? 2 : 0, true);
    view.setUint16(this.linear(avail) + 4 + slot * 2, slot, true);
    const next = (idx + 1) & 0xffff;
    this.#availIdx[queue] = next;
    view.setUint16(this.linear(avail) + 2, next, true);
  }

  usedIdx(queue: number): number {
    return this.#bench.control.get16(this.linear(this.at(queue).used) + 2);
  }

  close(): void {
    this.device.disconnected('the test ends');
    close(this.fd);
  }
}
