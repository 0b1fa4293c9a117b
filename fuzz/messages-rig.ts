// A switch's inside without threads: a port for the hostile front end and two innocent guests, on one
// datapath that is polled by hand. Sessions run over real sockets, one turn of the loop after each step.

import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';
import { PORT_BASE, PORT_STRIDE, RING_BASE, RING_STRIDE } from '../src/abi/layout.ts';
import * as vu from '../src/abi/vhost-user.ts';
import { F_PROTOCOL_FEATURES } from '../src/abi/virtio.ts';
import { close } from '../src/linux/index.ts';
import { ringIndex } from '../src/memory/control.ts';
import { encodeMessage, type PayloadKind, type Payloads } from '../src/vhost-user/index.ts';
import type { NetDevice } from '../src/virtio/device.ts';
import { bit } from '../src/virtio/features.ts';
import { concat, frame, header, mac } from '../test/datapath/frames.ts';
import { openFds } from '../test/linux/fds.ts';
import { DeviceBench, FrontEnd, PLAIN } from '../test/virtio/bench.ts';
import { Line, Replies } from './messages-line.ts';
import { type FdKind, openKinds, type Step } from './messages-steps.ts';

const FRAME = concat(header(), frame({ from: mac(1), to: mac(2), length: 100 }));
const PAIRS = 2;
/** What a session may never say: mistakes of the house, whatever the front end did. */
const OURS = /internal error|\((EBADF|EFAULT|EEXIST|ENOENT)\)/;

export class MessageRig {
  readonly bench = new DeviceBench();
  readonly target: NetDevice;
  readonly notes: Record<string, number> = {
    sessions: 0,
    closed: 0,
    refusals: 0,
    whileUp: 0,
    traps: 0,
  };
  readonly #innocents: [FrontEnd, FrontEnd];
  readonly #honest: FrontEnd;
  readonly #kinds = openKinds();
  readonly #free: number;
  readonly #pinned: number;
  readonly #watched: number;
  readonly #innocent: string;

  constructor() {
    const [a, b, target] = [
      this.bench.device(1),
      this.bench.device(1),
      this.bench.device(PAIRS, 9000),
    ];
    this.#innocents = [new FrontEnd(this.bench, a.device), new FrontEnd(this.bench, b.device)];
    for (const guest of this.#innocents) guest.open();
    this.target = target.device;
    this.#honest = new FrontEnd(this.bench, target.device);
    this.#free = this.bench.window.largestFree();
    this.#pinned = this.bench.window.largestPinned();
    this.#watched = this.bench.watched.size;
    this.#innocent = this.#innocentState();
    assert.ok(this.#pass(...this.#innocents), 'the innocent guests do not work');
  }

  /**
   * Lets one front end do the steps until its session ends, and sees that nothing is left of it.
   * Returns the messages sent. Throws AssertionError.
   */
  play(steps: Iterable<Step>): number {
    const fds = openFds();
    const line = new Line(this.target);
    const reader = new Replies();
    let sent = 0;
    this.notes['sessions']!++;
    try {
      for (const step of steps) {
        if (!line.session.open) break;
        this.#do(line, reader, step);
        if (step.do !== 'send') continue;
        sent++;
        if (this.target.up) this.notes['whileUp']!++;
      }
      if (!line.session.open) this.notes['closed']!++;
    } finally {
      line.hangUp();
    }
    this.notes['refusals']! += line.said.length;
    for (const said of line.said) assert.doesNotMatch(said, OURS);
    assert.equal(openFds(), fds, 'descriptors left open');
    this.#nothingLeft();
    this.#honestSession();
    this.#nothingLeft();
    return sent;
  }

  #do(line: Line, reader: Replies, step: Step): void {
    switch (step.do) {
      case 'poll':
        this.#poll();
        return;
      case 'write':
        writeSync(this.#kinds.ram, Buffer.from(step.bytes, 'hex'), 0, undefined, step.at);
        return;
      case 'send': {
        const bytes = Buffer.from(step.bytes, 'hex');
        const fds = (step.fds ?? []).map((kind: FdKind) => this.#kinds[kind]);
        const cut = Math.min(step.cut ?? bytes.length, bytes.length);
        const replies = line.send(bytes.subarray(0, cut), fds);
        if (cut < bytes.length && line.session.open)
          replies.push(...line.send(bytes.subarray(cut)));
        reader.check(bytes, replies, line.session.open);
        if (this.bench.latched.length > 0) {
          this.target.takeBroken();
          this.bench.latched.length = 0;
        }
      }
    }
  }

  /** A round as a worker makes it. */
  #poll(): void {
    try {
      this.bench.datapath.poll();
    } catch {
      this.notes['traps']!++;
      this.bench.datapath.recover();
    }
    this.bench.calls.length = 0;
  }

  #nothingLeft(): void {
    assert.equal(this.bench.window.largestFree(), this.#free, 'memory left mapped');
    assert.equal(this.bench.window.largestPinned(), this.#pinned, 'a dirty log left mapped');
    assert.equal(this.bench.watched.size, this.#watched, 'a kick left watched');
    assert.equal(this.target.up, false, 'the port still up');
    assert.equal(this.target.regions.bytes, 0);
    assert.equal(this.#innocentState(), this.#innocent, 'another port was touched');
    assert.ok(this.#pass(...this.#innocents), 'the innocent guests are cut off');
  }

  /** Ports and rings of the innocents as the workers see them, without what moves. */
  #innocentState(): string {
    const { control } = this.bench;
    const words: number[] = [];
    for (const port of [0, 1]) {
      for (let at = 0; at < 64; at += 4)
        words.push(control.get(PORT_BASE + port * PORT_STRIDE + at));
      for (const queue of [0, 1]) {
        const ring = this.#innocents[port]!.device.rings[queue]!;
        const at = RING_BASE + ringIndex(port, queue) * RING_STRIDE;
        words.push(ring.state, ring.size, ring.callFd, ring.kickFd, control.get(at));
      }
    }
    return words.join(' ');
  }

  /** One frame between two guests; whether it arrived. */
  #pass(from: FrontEnd, to: FrontEnd): boolean {
    to.post(0, 2048, true);
    const before = to.usedIdx(0);
    from.post(1, FRAME.length, false, FRAME);
    for (let turn = 0; turn < 24 && to.usedIdx(0) === before; turn++) this.#poll();
    return to.usedIdx(0) === ((before + 1) & 0xffff);
  }

  /** A front end that keeps the rules gets what it asks for, and a frame passes. */
  #honestSession(): void {
    const line = new Line(this.target);
    const ask = <K extends PayloadKind>(
      request: number,
      kind: K,
      value: Payloads[K],
      fds: number[] = [],
    ) => {
      const bytes = encodeMessage(request, vu.VERSION | vu.FLAG_NEED_REPLY, kind, value);
      const [reply] = line.send(bytes, fds);
      assert.deepEqual(reply?.[2], Buffer.alloc(8), `${request}: ${line.said.join(', ')}`);
    };
    const guest = this.#honest;
    const region = guest.region();
    try {
      ask(vu.VU_SET_PROTOCOL_FEATURES, 'u64', 1n << BigInt(vu.PF_REPLY_ACK));
      ask(vu.VU_SET_FEATURES, 'u64', PLAIN | bit(F_PROTOCOL_FEATURES));
      ask(vu.VU_SET_MEM_TABLE, 'table', [region], [region.fd]);
      for (const index of [0, 1]) {
        ask(vu.VU_SET_VRING_NUM, 'state', { index, num: guest.size });
        ask(vu.VU_SET_VRING_ADDR, 'addr', { index, ...guest.addresses(index) });
        ask(vu.VU_SET_VRING_KICK, 'ringFd', { index, noFd: false }, [this.#kinds.event]);
        ask(vu.VU_SET_VRING_ENABLE, 'state', { index, num: 1 });
      }
      assert.ok(this.#pass(guest, this.#innocents[1]), 'nothing passes from the port');
      assert.deepEqual(line.said, []);
    } finally {
      close(region.fd);
      line.hangUp();
    }
  }

  close(): void {
    for (const guest of this.#innocents) guest.close();
    this.#honest.close();
    for (const fd of Object.values(this.#kinds)) close(fd);
  }
}
