// A guest whose rings outlive its back end, as a virtual machine's do: our own driver, which does not
// begin anew when it reconnects, and gives as base what QEMU gives: of a packed ring the last orderly one.

import { DRV_ERRORS } from '../../src/abi/driver.ts';
import { HEAP_BASE, HEAP_SIZE } from '../../src/abi/layout.ts';
import type { EventLoop } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { Spans } from '../../src/memory/spans.ts';
import { Window } from '../../src/memory/window.ts';
import { driverHost } from '../../src/netmap/home.ts';
import { BufferMemory } from '../../src/netmap/memory.ts';
import type { Ring } from '../../src/netmap/ring.ts';
import { QueueDriver } from '../../src/netmap/vhost-user.ts';
import type { FrontendDriver } from '../../src/vhost-user/index.ts';
import { loadDatapath } from '../../src/worker/datapath.ts';

/** Frame: addresses, an EtherType for experiments, number, its complement, then bytes that follow from it. */
const NUMBER = 14;
const FILL = 22;

export class KeepingDriver implements FrontendDriver {
  up = false;
  starts = 0;
  readonly mac: readonly number[];
  readonly peer: readonly number[];
  sent = 0;
  received = 0;
  corrupt = 0;
  /** Received again: copied, and not yet given back when the switch was killed. */
  again = 0;
  /** When the first frame came after the last start, milliseconds. */
  firstAt = 0;
  readonly #memory: BufferMemory;
  readonly #inner: QueueDriver;
  readonly #view: DataView;
  #highest = -1;
  #set = false;

  constructor(id: number, packed: boolean) {
    const control = new Control();
    const home = {
      control,
      window: new Window(control),
      heap: new Spans(HEAP_BASE, HEAP_BASE + HEAP_SIZE),
      datapath: loadDatapath(control.memory, driverHost(control.memory)),
      loop: undefined as unknown as EventLoop,
    };
    this.mac = [2, 0, 0, 0, 0, id];
    this.peer = [2, 0, 0, 0, 0, 3 - id];
    this.#memory = new BufferMemory(home, { bufferSize: 2048, buffers: 2048, rings: 16 << 20 });
    this.#view = new DataView(control.memory.buffer);
    this.#inner = new QueueDriver(`g${id}`, this.#memory, { packed, ringSize: 256 }, () => {});
  }

  negotiate(offered: bigint, pairs: number) {
    return this.#inner.negotiate(offered, pairs);
  }

  setUp() {
    if (!this.#set) {
      this.#set = true;
      return this.#inner.setUp();
    }
    // As they are; the base is of the first start.
    return { regions: [this.#memory.region()], rings: this.#inner.rings.setUps() };
  }

  started(): void {
    this.up = true;
    this.starts++;
    this.firstAt = 0;
  }

  stopped(): void {
    this.up = false;
  }

  get #tx(): Ring {
    return this.#inner.rings.tx[0]!;
  }

  get #rx(): Ring {
    return this.#inner.rings.rx[0]!;
  }

  /** Used ids that named nothing outstanding: invalid, or named twice. */
  get errors(): number {
    const { control } = this.#memory.home;
    const { rings } = this.#inner;
    return [this.#tx, this.#rx].reduce(
      (sum, ring) => sum + control.get(rings.queueOf(ring).drv + DRV_ERRORS),
      0,
    );
  }

  /** Frames sent that did not come back, and receive buffers that the driver does not have. */
  get outstanding(): { tx: number; rx: number } {
    const { rings } = this.#inner;
    return {
      tx: rings.queueOf(this.#tx).outstanding().length,
      rx: rings.queueOf(this.#rx).outstanding().length,
    };
  }

  get ringSize(): number {
    return this.#rx.slots;
  }

  /** Sends up to `count` numbered frames, as many as there is room for. */
  send(count: number): void {
    const { datapath, control } = this.#memory.home;
    const ring = this.#tx;
    let space = datapath.nmTxSync(ring.kring);
    for (; space > 0 && count > 0; space--, count--) {
      const number = this.sent++;
      const length = 60 + (number % 1400);
      const at = ring.address(ring.head);
      const { bytes } = control;
      bytes.set(this.peer, at);
      bytes.set(this.mac, at + 6);
      bytes.set([0x88, 0xb5], at + 12);
      this.#view.setUint32(at + NUMBER, number, true);
      this.#view.setUint32(at + NUMBER + 4, ~number >>> 0, true);
      bytes.fill(number & 255, at + FILL, at + length);
      ring.setLength(ring.head, length);
      ring.head = ring.cur = ring.next(ring.head);
    }
    datapath.nmTxSync(ring.kring);
  }

  /** Takes and checks what came. */
  receive(): void {
    const { datapath, control } = this.#memory.home;
    const ring = this.#rx;
    if (datapath.nmRxSync(ring.kring) < 0) return;
    for (let i = ring.head; i !== ring.tail; i = ring.next(i)) {
      const at = ring.address(i);
      const number = this.#view.getUint32(at + NUMBER, true);
      const length = ring.length(i);
      const whole =
        length === 60 + (number % 1400) &&
        this.#view.getUint32(at + NUMBER + 4, true) === ~number >>> 0 &&
        control.bytes[at + FILL] === (number & 255) &&
        control.bytes[at + length - 1] === (number & 255);
      if (!whole) this.corrupt++;
      if (number <= this.#highest) this.again++;
      else this.#highest = number;
      this.received++;
      if (this.firstAt === 0) this.firstAt = performance.now();
      ring.head = ring.cur = ring.next(i);
    }
    datapath.nmRxSync(ring.kring);
  }

  close(): void {
    this.#inner.rings.close();
    this.#memory.close();
  }
}
