// A recording back end and a front end made of raw bytes, joined by a real socket.

import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import * as vu from '../../src/abi/vhost-user.ts';
import { close, EventLoop, recvWithFds, sendWithFds, socketPair } from '../../src/linux/index.ts';
import {
  type Backend,
  encodeMessage,
  type MemoryRegion,
  type MemoryRegionFd,
  type PayloadKind,
  type Payloads,
  Refusal,
  Session,
  type VringAddr,
} from '../../src/vhost-user/index.ts';

/** Everything a session may offer: all protocol features but those for which nothing exists. */
export const ALL_PROTOCOL_FEATURES = [
  vu.PF_MQ,
  vu.PF_RARP,
  vu.PF_REPLY_ACK,
  vu.PF_MTU,
  vu.PF_LOG_SHMFD,
  vu.PF_CONFIGURE_MEM_SLOTS,
  vu.PF_STATUS,
].reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);

/** Records calls as [name, ...arguments], keeps the fds it is given and closes them at the end. */
export class FakeBackend implements Backend {
  offeredFeatures = (1n << 32n) | (1n << 26n) | (1n << 15n) | (1n << 3n);
  queuePairs = 2;
  maxMemSlots = 32;
  calls: unknown[][] = [];
  /** Methods that throw: a Refusal, or any other error. */
  failing = new Map<string, Error>();
  bases = new Map<number, number>();
  fds: number[] = [];
  ends: string[] = [];
  status = 0;

  #record(name: string, ...args: unknown[]): void {
    this.calls.push([name, ...args]);
    const error = this.failing.get(name);
    if (error !== undefined) throw error;
  }
  #own(fd: number): boolean {
    if (fd >= 0) this.fds.push(fd);
    return fd >= 0;
  }
  named(name: string): unknown[][] {
    return this.calls.filter(([each]) => each === name).map(([, ...args]) => args);
  }

  connected(peer: unknown): void {
    this.#record('connected', peer);
  }
  disconnected(reason: string): void {
    for (const fd of this.fds.splice(0)) close(fd);
    this.ends.push(reason);
    this.#record('disconnected', reason);
  }
  setFeatures(features: bigint): void {
    this.#record('setFeatures', features);
    const surplus = features & ~(this.offeredFeatures | (1n << 30n));
    if (surplus !== 0n) throw new Refusal('features were not offered');
  }
  setMemTable(regions: MemoryRegionFd[]): void {
    for (const { fd } of regions) this.#own(fd);
    this.#record(
      'setMemTable',
      regions.map(({ fd: _, ...region }) => region),
    );
  }
  addMemRegion({ fd, ...region }: MemoryRegionFd): void {
    this.#own(fd);
    this.#record('addMemRegion', region);
  }
  removeMemRegion(region: MemoryRegion): void {
    this.#record('removeMemRegion', region);
  }
  setVringNum(index: number, num: number): void {
    this.#record('setVringNum', index, num);
  }
  setVringAddr(index: number, addr: VringAddr): void {
    this.#record('setVringAddr', index, addr);
  }
  setVringBase(index: number, base: number): void {
    this.bases.set(index, base);
    this.#record('setVringBase', index, base);
  }
  getVringBase(index: number): number {
    this.#record('getVringBase', index);
    return this.bases.get(index) ?? 0;
  }
  setVringKick(index: number, fd: number): void {
    this.#record('setVringKick', index, this.#own(fd));
  }
  setVringCall(index: number, fd: number): void {
    this.#record('setVringCall', index, this.#own(fd));
  }
  setVringErr(index: number, fd: number): void {
    this.#record('setVringErr', index, this.#own(fd));
  }
  setVringEnable(index: number, enable: boolean): void {
    this.#record('setVringEnable', index, enable);
  }
  setLogBase(area: { size: bigint; offset: bigint }, fd: number): void {
    this.#own(fd);
    this.#record('setLogBase', area);
  }
  setLogFd(fd: number): void {
    this.#record('setLogFd', this.#own(fd));
  }
  setStatus(status: number): void {
    this.status = status;
    this.#record('setStatus', status);
  }
  getStatus(): number {
    this.#record('getStatus');
    return this.status;
  }
  setMtu(mtu: number): void {
    this.#record('setMtu', mtu);
  }
  sendRarp(mac: Uint8Array): void {
    this.#record('sendRarp', Buffer.from(mac).toString('hex'));
  }
}

export interface SendOptions {
  fds?: number[];
  needReply?: boolean;
  flags?: number;
}

export interface Reply {
  request: number;
  flags: number;
  payload: Buffer;
}

/** The other side of a socket: sends what it is told, right or wrong. */
export class FrontEnd {
  readonly fd: number;
  #pending = Buffer.alloc(0);
  #open = true;

  constructor(fd: number) {
    this.fd = fd;
  }

  send<K extends PayloadKind>(
    request: number,
    kind: K,
    value: Payloads[K],
    options: SendOptions = {},
  ): void {
    const flags = options.flags ?? vu.VERSION | (options.needReply ? vu.FLAG_NEED_REPLY : 0);
    this.raw(encodeMessage(request, flags, kind, value), options.fds);
  }

  raw(bytes: Uint8Array, fds: number[] = []): void {
    assert.equal(sendWithFds(this.fd, bytes, fds), bytes.length);
  }

  /** The next message from the back end; 'closed' if it hung up. */
  async reply(): Promise<Reply | 'closed'> {
    const buffer = Buffer.alloc(4096);
    for (;;) {
      if (this.#pending.length >= vu.HEADER_SIZE) {
        const size = vu.HEADER_SIZE + this.#pending.readUInt32LE(8);
        if (this.#pending.length >= size) {
          const whole = this.#pending.subarray(0, size);
          this.#pending = this.#pending.subarray(size);
          return {
            request: whole.readUInt32LE(0),
            flags: whole.readUInt32LE(4),
            payload: whole.subarray(vu.HEADER_SIZE),
          };
        }
      }
      let got: ReturnType<typeof recvWithFds>;
      try {
        got = recvWithFds(this.fd, buffer, 0);
      } catch {
        return 'closed'; // ECONNRESET: it left without reading everything.
      }
      if (got === 'again') await setImmediate();
      else if (got.bytes === 0) return 'closed';
      else this.#pending = Buffer.concat([this.#pending, buffer.subarray(0, got.bytes)]);
    }
  }

  /** Waits for a reply to `request` with flags of exactly 5, and returns its payload. */
  async expect(request: number): Promise<Buffer> {
    const reply = await this.reply();
    assert.notEqual(reply, 'closed', `no reply to ${request}: the connection was closed`);
    const { request: got, flags, payload } = reply as Reply;
    assert.deepEqual({ request: got, flags }, { request, flags: vu.REPLY_FLAGS });
    return payload;
  }

  async expectU64(request: number): Promise<bigint> {
    const payload = await this.expect(request);
    assert.equal(payload.length, 8);
    return payload.readBigUInt64LE(0);
  }

  async expectClosed(): Promise<void> {
    assert.equal(await this.reply(), 'closed');
  }

  /** Returns once everything sent before was handled; nothing else may have been replied. */
  async barrier(): Promise<void> {
    this.send(vu.VU_GET_FEATURES, 'none', null);
    await this.expectU64(vu.VU_GET_FEATURES);
  }

  async negotiate(features = ALL_PROTOCOL_FEATURES): Promise<void> {
    this.send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', features);
    await this.barrier();
  }

  close(): void {
    if (this.#open) close(this.fd);
    this.#open = false;
  }
}

export interface Rig {
  loop: EventLoop;
  backend: FakeBackend;
  session: Session;
  front: FrontEnd;
  notices: string[];
  closed: { reason: string; fault: boolean }[];
}

/** Runs `body` with a session on a socket pair and cleans up after it. */
export async function withSession(
  body: (rig: Rig) => Promise<void>,
  backend = new FakeBackend(),
): Promise<void> {
  const loop = new EventLoop();
  const [fd, other] = socketPair();
  const front = new FrontEnd(other);
  const notices: string[] = [];
  const closed: Rig['closed'] = [];
  const session = new Session({
    fd,
    loop,
    backend,
    onNotice: (message) => notices.push(message),
    onClosed: (reason, fault) => closed.push({ reason, fault }),
  });
  try {
    await body({ loop, backend, session, front, notices, closed });
  } finally {
    session.close('the test is over');
    front.close();
    await loop.close();
  }
}

/** Waits until `condition` holds; the test's own timeout is the limit. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await setImmediate();
}
