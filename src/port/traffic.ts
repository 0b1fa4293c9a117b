// In-process guests that exchange numbered, checked streams: the demo's and the tests' traffic.

import { Worker } from 'node:worker_threads';
import {
  GUEST_BUF,
  GUEST_BYTES,
  GUEST_CHECK,
  GUEST_CORRUPT,
  GUEST_FOREIGN,
  GUEST_GAPS,
  GUEST_GOAL,
  GUEST_HDR_LEN,
  GUEST_ID,
  GUEST_LENGTH,
  GUEST_MAC,
  GUEST_OUT,
  GUEST_PEER_MAC,
  GUEST_RECEIVED,
  GUEST_REORDERED,
  GUEST_RX,
  GUEST_RX_BUFS,
  GUEST_SEGMENTS,
  GUEST_SENT,
  GUEST_SIZE,
  GUEST_SLEEPS,
  GUEST_STOP,
  GUEST_TX,
  GUEST_TX_BUFS,
  GUEST_WINDOW,
} from '../abi/driver.ts';
import { close, eventfd, signal } from '../linux/index.ts';
import type { Control } from '../memory/control.ts';
import type { MemoryPortOptions } from '../types.ts';
import { BUFFER_SIZE, type LocalOptions, type MemoryPort } from './memory.ts';

/** What in-process guests need of the switch they are in. */
export interface TrafficHost {
  readonly control: Control;
  addMemoryPort(options: MemoryPortOptions & LocalOptions): MemoryPort;
}

export interface TrafficOptions {
  /** Frames to send; Infinity until stopped. Default 0: only receive. */
  frames?: number;
  /** Bytes of every frame, 60-1514; 0 varies it with the sequence number. Default 0. */
  length?: number;
  /** Fill and verify every byte. Default true. */
  check?: boolean;
  /** Descriptors a frame is spread over at most, 1-4. Default 1. */
  segments?: number;
  /** Frames sent and not yet taken back, at most. Default: half the ring, so that a burst fits. */
  window?: number;
  /** Sleep as soon as nothing moves, instead of looking some more. Default false. */
  eager?: boolean;
}

/** Counts since the start; `received` are intact frames of the peer's stream. */
export interface TrafficCounts {
  sent: number;
  received: number;
  bytes: number;
  corrupt: number;
  /** Older than one already received: late or twice. */
  reordered: number;
  /** Sequence numbers passed over. */
  missing: number;
  /** Frames of somebody else. */
  foreign: number;
  sleeps: number;
}

export interface GuestThreadData {
  memory: WebAssembly.Memory;
  guests: { block: number; txKick: number; rxKick: number; txCall: number; rxCall: number }[];
  wake: number;
  eager: boolean;
}

/** A guest on queue pair 0 of a memory port, talking to the one with `peerMac`. */
export class TrafficGuest {
  readonly block: number;
  readonly port: MemoryPort;
  readonly #control: Control;

  constructor(control: Control, port: MemoryPort, peerMac: string, options: TrafficOptions = {}) {
    const [rx, tx] = port.queues;
    this.#control = control;
    this.port = port;
    this.block = port.allocate(GUEST_SIZE);
    control.bytes.fill(0, this.block, this.block + GUEST_SIZE);
    const set = (field: number, value: number) => control.set(this.block + field, value);
    const goal = Math.min(options.frames ?? 0, Number.MAX_SAFE_INTEGER);
    set(GUEST_TX, tx!.drv);
    set(GUEST_RX, rx!.drv);
    set(GUEST_HDR_LEN, port.headerLength);
    set(GUEST_TX_BUFS, tx!.buffers);
    set(GUEST_RX_BUFS, rx!.buffers);
    set(GUEST_BUF, BUFFER_SIZE);
    set(GUEST_ID, port.index);
    control.set64(this.block + GUEST_MAC, macBits(port.info().mac));
    control.set64(this.block + GUEST_PEER_MAC, macBits(peerMac));
    set(GUEST_LENGTH, options.length ?? 0);
    set(GUEST_CHECK, (options.check ?? true) ? 1 : 0);
    set(GUEST_SEGMENTS, Math.min(options.segments ?? 1, tx!.size));
    set(GUEST_WINDOW, options.window ?? tx!.size >> 1);
    control.set64(this.block + GUEST_GOAL, BigInt(goal));
  }

  counts(): TrafficCounts {
    const count = (field: number) => this.#control.counter(this.block + field);
    return {
      sent: count(GUEST_SENT),
      received: count(GUEST_RECEIVED),
      bytes: count(GUEST_BYTES),
      corrupt: count(GUEST_CORRUPT),
      reordered: count(GUEST_REORDERED),
      missing: count(GUEST_GAPS),
      foreign: count(GUEST_FOREIGN),
      sleeps: count(GUEST_SLEEPS),
    };
  }

  /** Frames sent that the switch has not done with. */
  get outstanding(): number {
    return this.#control.get(this.block + GUEST_OUT);
  }

  /** Sends no more; what is on its way still arrives. */
  halt(): void {
    this.#control.set64(this.block + GUEST_GOAL, 0n);
  }
}

/** One thread that runs guests in turn, asleep while none has anything to do. */
export class TrafficThread {
  readonly #control: Control;
  readonly #first: number;
  readonly #wake = eventfd();
  readonly #done: Promise<void>;

  /** `eager`: as in TrafficOptions. */
  constructor(control: Control, guests: readonly TrafficGuest[], eager = false) {
    this.#control = control;
    this.#first = guests[0]!.block;
    const data: GuestThreadData = {
      memory: control.memory,
      wake: this.#wake,
      eager,
      guests: guests.map(({ block, port }) => {
        const [rx, tx] = port.queues;
        return {
          block,
          txKick: tx!.kickFd,
          rxKick: rx!.kickFd,
          txCall: tx!.callFd,
          rxCall: rx!.callFd,
        };
      }),
    };
    const worker = new Worker(new URL('./traffic-thread.ts', import.meta.url), {
      workerData: data,
    });
    this.#done = new Promise((resolve, reject) => {
      worker.once('exit', () => resolve());
      worker.once('error', reject);
    });
    this.#done.catch(() => {});
  }

  /** Ends the thread. Rejects with what it threw. */
  async stop(): Promise<void> {
    this.#control.set(this.#first + GUEST_STOP, 1);
    signal(this.#wake);
    await this.#done;
    close(this.#wake);
  }
}

/** 48 bits in wire order, first byte lowest. */
function macBits(mac: string): bigint {
  const bytes = mac.split(':').map((byte) => Number.parseInt(byte, 16));
  return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}
