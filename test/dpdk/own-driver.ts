// Our own driver behind a front end (netmap/vhost-user.ts), frames counted as they go and come.
// Single-threaded and polled by the test.

import { HEAP_BASE, HEAP_SIZE } from '../../src/abi/layout.ts';
import type { EventLoop } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { Spans } from '../../src/memory/spans.ts';
import { Window } from '../../src/memory/window.ts';
import { driverHost } from '../../src/netmap/home.ts';
import { BufferMemory } from '../../src/netmap/memory.ts';
import { QueueDriver } from '../../src/netmap/vhost-user.ts';
import type { FrontendDriver } from '../../src/vhost-user/index.ts';
import { loadDatapath } from '../../src/worker/datapath.ts';

const HEADER = 14;

export interface Wanted {
  packed: boolean;
  pairs: number;
}

/** What came in: `sum` is that of the numbers in the frames. */
export interface Received {
  frames: number;
  bytes: number;
  sum: number;
}

export class OwnDriver implements FrontendDriver {
  /** For the sessions to come. */
  wanted: Wanted = { packed: false, pairs: 1 };
  up = false;
  /** Reasons of the ends so far, faults with an exclamation mark. */
  readonly ends: string[] = [];
  readonly received: Received[] = [];
  /** Syncs that were refused. */
  errors = 0;
  readonly #memory: BufferMemory;
  readonly #view: DataView;
  #driver: QueueDriver | undefined;

  constructor() {
    const control = new Control();
    const home = {
      control,
      window: new Window(control),
      heap: new Spans(HEAP_BASE, HEAP_BASE + HEAP_SIZE),
      datapath: loadDatapath(control.memory, driverHost(control.memory)),
      // Only who opens sockets by it needs one.
      loop: undefined as unknown as EventLoop,
    };
    this.#memory = new BufferMemory(home, { bufferSize: 2048, buffers: 4096, rings: 16 << 20 });
    this.#view = new DataView(control.memory.buffer);
  }

  get features(): bigint {
    return this.#driver?.features ?? 0n;
  }

  negotiate(offered: bigint, queuePairs: number) {
    const { packed, pairs } = this.wanted;
    const options = { packed, queues: pairs, ringSize: 256 };
    this.#driver = new QueueDriver('own', this.#memory, options, (reason, fault) => {
      this.up = reason === undefined;
      if (reason !== undefined) this.ends.push(fault ? `${reason}!` : reason);
    });
    return this.#driver.negotiate(offered, queuePairs);
  }

  setUp() {
    const none = () => ({ frames: 0, bytes: 0, sum: 0 });
    const pairs = Array.from({ length: this.wanted.pairs }, none);
    this.received.splice(0, Number.POSITIVE_INFINITY, ...pairs);
    return this.#driver!.setUp();
  }

  started(): void {
    this.#driver!.started();
  }

  stopped(reason: string, fault: boolean): void {
    this.#driver?.stopped(reason, fault);
    this.#driver?.rings.close();
    this.#driver = undefined;
  }

  /** After the last session. */
  close(): void {
    this.#memory.close();
  }

  /** Sends a frame of `length` bytes with a number in it; false while the ring is full. */
  send(pair: number, length: number, number: number): boolean {
    const ring = this.#driver!.rings.tx[pair]!;
    const { datapath } = this.#memory.home;
    if (datapath.nmTxSync(ring.kring) <= 0) return false;
    const i = ring.head;
    const at = ring.address(i);
    this.#memory.bytes.fill(0, at, at + length);
    // To one local address from another, of an experimental type.
    this.#memory.bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5], at);
    this.#view.setUint32(at + HEADER, number, true);
    ring.setLength(i, length);
    ring.head = ring.cur = ring.next(i);
    if (datapath.nmTxSync(ring.kring) < 0) this.errors++;
    return true;
  }

  /** Takes what came, and gives the buffers back. */
  poll(): void {
    if (!this.up) return;
    const { datapath } = this.#memory.home;
    for (const [pair, received] of this.received.entries()) {
      const ring = this.#driver!.rings.rx[pair]!;
      if (datapath.nmRxSync(ring.kring) < 0) this.errors++;
      for (let i = ring.head; i !== ring.tail; i = ring.next(i)) {
        received.frames++;
        received.bytes += ring.length(i);
        received.sum += this.#view.getUint32(ring.address(i) + HEADER, true);
        ring.head = ring.cur = ring.next(i);
      }
      if (datapath.nmRxSync(ring.kring) < 0) this.errors++;
    }
  }
}
