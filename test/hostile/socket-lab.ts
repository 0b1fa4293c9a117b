// A port with real workers behind a real socket, and front ends that treat it badly. By default no
// budget holds them back: here it is about what they leave behind.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  NO_PORT,
  PORT_BASE,
  PORT_DOWN,
  PORT_PEER,
  PORT_STATE,
  PORT_STRIDE,
  SWITCH_NOW,
  SWITCH_PORTS,
  WORKER_BASE,
  WORKER_POLLS,
  WORKER_TRAPS,
} from '../../src/abi/layout.ts';
import * as vu from '../../src/abi/vhost-user.ts';
import { F_PROTOCOL_FEATURES, F_VERSION_1 } from '../../src/abi/virtio.ts';
import {
  close,
  connectUnix,
  ERRNO,
  EventLoop,
  eventfd,
  memfd,
  SystemError,
} from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { Window } from '../../src/memory/window.ts';
import { Budget, Endpoint, type PayloadKind, type Payloads } from '../../src/vhost-user/index.ts';
import { NetDevice } from '../../src/virtio/device.ts';
import { bit } from '../../src/virtio/features.ts';
import { WorkerPool } from '../../src/worker/pool.ts';
import { openFds } from '../linux/fds.ts';
import { FrontEnd } from '../vhost-user/harness.ts';

export const BYTES = 8 << 20;
export const UVA = 0x7f00_0000_0000n;
export const REGION = { gpa: 0n, size: BigInt(BYTES), uva: UVA, mmapOffset: 0n };

/** Where the parts of a ring of 256 are for the front end. */
export function parts(ring: number) {
  const at = UVA + BigInt(ring) * 0x1_0000n;
  return { desc: at, avail: at + 0x2000n, used: at + 0x4000n };
}

/** One port of its own switch's inside. */
export class SocketLab {
  readonly control = new Control();
  readonly window = new Window(this.control);
  readonly device: NetDevice;
  readonly endpoint: Endpoint;
  readonly path: string;
  readonly notices: string[] = [];
  /** What went wrong where nobody could be told. */
  readonly errors: unknown[] = [];
  readonly memory = memfd('guest', BYTES, { seal: true });
  readonly event = eventfd();
  readonly #folder = mkdtempSync(join(tmpdir(), 'vhop-hostile-'));
  readonly #loop = new EventLoop({ onError: (error) => this.errors.push(error) });
  readonly #latch = eventfd();
  readonly #pool: WorkerPool;
  #made = 0;
  #here = 0;
  #gone = 0;

  constructor(pairs = 8, options: { mtu?: number; budget?: Budget } = {}) {
    const { mtu, budget = new Budget({ burst: Number.POSITIVE_INFINITY }) } = options;
    const { control, window } = this;
    this.path = join(this.#folder, 'port.sock');
    control.set(SWITCH_NOW, 1);
    this.#pool = new WorkerPool(control, 1, this.#latch, (error) => this.errors.push(error));
    control.set(PORT_BASE + PORT_STATE, PORT_DOWN);
    control.set(PORT_BASE + PORT_PEER, NO_PORT);
    this.device = new NetDevice(
      { control, window, pool: this.#pool },
      { port: 0, pairs, ...(mtu === undefined ? {} : { mtu }) },
      {
        changed() {},
        connected: () => this.#here++,
        disconnected: () => this.#gone++,
        features() {},
        logging() {},
        rarp() {},
        notice() {},
      },
    );
    control.set(SWITCH_PORTS, 1);
    this.#pool.quiesce();
    this.endpoint = new Endpoint({
      path: this.path,
      mode: 'server',
      loop: this.#loop,
      backend: this.device,
      budget,
      onNotice: (message) => this.notices.push(message),
    });
    this.endpoint.open();
  }

  /** Resolves once the worker has opened what it opens. */
  async ready(): Promise<this> {
    while (this.control.counter(WORKER_BASE + WORKER_POLLS) === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return this;
  }

  /** A front end, once there is room for it in the queue. */
  async connect(): Promise<FrontEnd> {
    for (;;) {
      try {
        const fd = connectUnix(this.path);
        this.#made++;
        return new FrontEnd(fd);
      } catch (error) {
        if (!(error instanceof SystemError && error.errno === ERRNO.EAGAIN)) throw error;
        await new Promise(setImmediate);
      }
    }
  }

  /** Front ends let in so far. */
  get visits(): number {
    return this.#here;
  }

  /** Resolves once all that connected came and went. */
  async free(): Promise<void> {
    while (this.#here < this.#made || this.#gone < this.#made) await new Promise(setImmediate);
  }

  /** Features, memory and `rings` rings, all enabled; returns once all of it is done. */
  async start(front: FrontEnd, rings = 2): Promise<void> {
    front.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', (1n << 3n) | (1n << 15n) | 1n);
    front.send(vu.VU_SET_FEATURES, 'u64', bit(F_VERSION_1) | bit(F_PROTOCOL_FEATURES));
    front.send(vu.VU_SET_MEM_TABLE, 'table', [REGION], { fds: [this.memory] });
    for (let index = 0; index < rings; index++) {
      const fds = [this.event];
      front.send(vu.VU_SET_VRING_NUM, 'state', { index, num: 256 });
      front.send(vu.VU_SET_VRING_BASE, 'state', { index, num: 0 });
      front.send(vu.VU_SET_VRING_ADDR, 'addr', { index, flags: 0, logGpa: 0n, ...parts(index) });
      front.send(vu.VU_SET_VRING_CALL, 'ringFd', { index, noFd: false }, { fds });
      front.send(vu.VU_SET_VRING_ERR, 'ringFd', { index, noFd: false }, { fds });
      front.send(vu.VU_SET_VRING_KICK, 'ringFd', { index, noFd: false }, { fds });
      front.send(vu.VU_SET_VRING_ENABLE, 'state', { index, num: 1 });
    }
    await front.barrier();
  }

  /** All that a front end set up, and what the workers see of it. */
  state(): string {
    const { device, control } = this;
    const rings = device.rings.map((ring) => [
      ring.size,
      Object.values(ring.parts ?? {}).map(String),
      ring.base,
      [ring.enabled, ring.started, ring.live, ring.state],
      [ring.kickFd, ring.callFd, ring.errFd],
    ]);
    const block = Buffer.from(control.bytes.subarray(PORT_BASE, PORT_BASE + PORT_STRIDE));
    const { features, mtu, regions, up } = device;
    const words = [features, mtu, regions.bytes, device.getStatus(), up].map(String);
    return JSON.stringify([words, rings, block.toString('hex')]);
  }

  /** Sends a request and checks that it is refused for `why`, with nothing changed and nothing kept. */
  async refused(
    front: FrontEnd,
    request: number,
    payload: Uint8Array,
    why: RegExp,
    fds: number[] = [],
  ): Promise<void> {
    const [before, open, said] = [this.state(), openFds(), this.notices.length];
    front.send(request, 'opaque', payload, { needReply: true, fds });
    const name = `request ${request}, ${Buffer.from(payload).toString('hex')}`;
    assert.notEqual(await front.expectU64(request), 0n, name);
    for (const notice of this.notices.slice(said)) assert.match(notice, why);
    assert.equal(openFds(), open, `${name}: descriptors`);
    assert.equal(this.state(), before, name);
  }

  /** Sends a request and checks that it is done. */
  async done<K extends PayloadKind>(
    front: FrontEnd,
    request: number,
    kind: K,
    value: Payloads[K],
    fds: number[] = [],
  ): Promise<void> {
    front.send(request, kind, value, { needReply: true, fds });
    assert.equal(await front.expectU64(request), 0n, `request ${request}: ${this.notices.at(-1)}`);
  }

  /** Traps of the worker so far. */
  get traps(): number {
    return this.control.counter(WORKER_BASE + WORKER_TRAPS);
  }

  async close(): Promise<void> {
    this.endpoint.close();
    this.device.reset();
    await this.#pool.close();
    await this.#loop.close();
    for (const fd of [this.memory, this.event, this.#latch]) close(fd);
    rmSync(this.#folder, { recursive: true });
  }
}
