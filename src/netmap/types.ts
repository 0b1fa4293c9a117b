// The netmap-like API: what an application sees of a port, its rings, slots and buffers.
//
// As in netmap (net/netmap.h): a ring is a circle of slots. The application owns [head, tail): of a TX
// ring slots that are free to fill, of an RX ring slots that hold frames. It moves `head` past what it is
// done with, and `cur` to where it wants to be woken; a sync moves `tail`. Nothing else is shared.

export { MAX_FRAGS, NS_BUF_CHANGED, NS_MOREFRAG } from '../abi/netmap.ts';
/** TX: tell when it is sent: the ring's tail moves only with the next sync otherwise. Always done here. */
export const NS_REPORT = 0x02;

/**
 * Where the virtio-net header is. `shared`: stripped from what is received, and sent as zeros from one
 * header a queue, on a cache line of its own; no offloads. `kept`: in the 12 bytes in front of each
 * frame's first byte, written by the device on receive and by the application before it sends.
 */
export type Headers = 'shared' | 'kept';

export interface NetmapOptions {
  /** Entries of each virtqueue, a power of two 8-32768 (packed: 4-32768). Default 1024. */
  ringSize?: number;
  /** Queue pairs to use, 1-8. Default: one, or with `-k` in the name as many as hold pair k. */
  queues?: number;
  /** Default `shared`. */
  headers?: Headers;
  /**
   * Offload features to accept, by virtio's names: CSUM, HOST_TSO4, ... to send such frames, GUEST_CSUM,
   * GUEST_TSO4, ... to receive them. Only with `kept` headers. Default: none.
   */
  offloads?: readonly string[];
  /** Packed rings; `auto`: where they are offered. Default false. */
  packed?: boolean | 'auto';
  /** Accept MRG_RXBUF, INDIRECT_DESC, EVENT_IDX, IN_ORDER where offered. Defaults: true, true, true, false. */
  mergeable?: boolean;
  indirect?: boolean;
  events?: boolean;
  inOrder?: boolean;
  /** Memory to take buffers from (EXTMEM): ports in one memory can swap buffers. Default: one of its own. */
  memory?: NetmapMemory;
  /** Bytes of a buffer, a multiple of 64, 128-131072; only where `memory` is not given. Default 2048. */
  bufferSize?: number;
  /** Bytes from a buffer's start to a frame's first byte, 16-1024. Default 64. */
  headroom?: number;
  /** Milliseconds to wait for the other side. Default 10000. */
  timeoutMs?: number;
  /** Stop what is being waited for. */
  signal?: AbortSignal;
  /** Name of the TAP device of host rings (`^`, `*`). Default: made from the port's name. */
  tap?: string;
}

export interface NetmapRing {
  readonly direction: 'tx' | 'rx';
  /** Number of the queue pair; host rings count on after the last. */
  readonly id: number;
  readonly host: boolean;
  /** Slots; the application never owns more than one less. */
  readonly slots: number;
  readonly bufferSize: number;
  head: number;
  cur: number;
  readonly tail: number;
  /** Slots the application owns: from head to tail. */
  readonly space: number;
  /** Slot `i`, 0 to slots - 1: index of its buffer; assigning it swaps (set NS_BUF_CHANGED as well). */
  buffer(i: number): number;
  setBuffer(i: number, index: number): void;
  /** Bytes of the frame in this slot. */
  length(i: number): number;
  setLength(i: number, bytes: number): void;
  flags(i: number): number;
  setFlags(i: number, flags: number): void;
  /** Bytes from the buffer's start to the frame's first byte: headroom. */
  offset(i: number): number;
  setOffset(i: number, bytes: number): void;
  /** Where the frame's first byte is in `port.memory.bytes`. */
  address(i: number): number;
  /** The frame's bytes in this slot, a view. */
  bytes(i: number): Uint8Array;
  next(i: number): number;
}

/** Buffers in shared memory, and what may be opened in it. */
export interface NetmapMemory {
  readonly bufferSize: number;
  /** All of linear memory: `ring.address(i)` is an index of it. */
  readonly bytes: Uint8Array;
  /** Buffers that no ring owns (extra buffers). Throws NetmapError `memory` when there are too few. */
  takeBuffers(count: number): number[];
  /** Throws NetmapError `memory`, and takes none, when one was not taken. */
  giveBuffers(indices: readonly number[]): void;
  /** First byte of buffer `index` in `bytes`. */
  addressOf(index: number): number;
  close(): void;
}

export interface RingCounters {
  /** Frames and bytes moved by syncs: sent to the device, or received from it. */
  frames: number;
  bytes: number;
  syncs: number;
  /** Slots that could not be sent: a buffer index or length that cannot be, no bytes, too many slots. Dropped. */
  badSlots: number;
  /** Times the virtqueue had no descriptors left for a slot: it stays the application's to sync again. */
  full: number;
  /** Bytes copied between buffers by bridges and monitors. */
  copied: number;
  /** Frames a monitor had no slot for, or that were moved on before it had the buffer; or the kernel refused. */
  lost: number;
}

export interface PortEvents {
  /** The other side is gone, or did what it must not: one sentence. */
  down: NetmapError;
  /** It is back: rings are fresh. */
  up: undefined;
  /** The number of queue pairs changed. */
  config: number;
}

export interface NetmapPort {
  readonly name: string;
  readonly memory: NetmapMemory;
  readonly tx: readonly NetmapRing[];
  readonly rx: readonly NetmapRing[];
  /** Virtio features agreed on, by name; none for a TAP, pipe or monitor. */
  readonly features: readonly string[];
  readonly headers: Headers;
  /** Whether frames can move now. */
  readonly up: boolean;
  /**
   * TXSYNC: sends the slots before head, takes back what was sent. RXSYNC: gives the slots before head
   * back, takes what was received. Both return how many slots the application owns then, and throw NetmapError
   * (`down`, `ring`, `device`) where nothing can move.
   */
  txSync(ring: NetmapRing): number;
  rxSync(ring: NetmapRing): number;
  /**
   * Waits, holding the thread, until an RX ring has frames or (with `tx`) a TX ring room, `timeoutMs` (0:
   * look only, -1: for ever) pass, or the port goes down. There is something where `cur` is not `tail`. Syncs
   * the rings it waits for. True if there is something.
   */
  poll(timeoutMs: number, options?: { tx?: boolean; rx?: boolean }): boolean;
  /** As `poll`, without holding the thread. */
  wait(timeoutMs: number, options?: { tx?: boolean; rx?: boolean }): Promise<boolean>;
  counters(ring: NetmapRing): RingCounters;
  on<K extends keyof PortEvents>(event: K, listener: (value: PortEvents[K]) => void): this;
  /** Ends in good order: rings stopped, buffers back. Repeating it does nothing. */
  close(): Promise<void>;
}

export type NetmapErrorCode =
  /** The name cannot be, or names nothing there is. */
  | 'name'
  /** An option out of range. */
  | 'option'
  /** Offloads that the mode cannot honour. */
  | 'offloads'
  /** The other side lacks what is needed. */
  | 'features'
  /** Nobody there, or gone. */
  | 'down'
  /** The other side broke the rules: used ids never posted, lengths beyond the buffer. */
  | 'device'
  /** head or cur outside what the application owns. */
  | 'ring'
  /** The virtqueue is somebody else's. */
  | 'busy'
  /** Buffers, or room for them, used up. */
  | 'memory'
  /** Root or CAP_NET_ADMIN is needed. */
  | 'permission';

/** One sentence that names the port and the cure. */
export class NetmapError extends Error {
  override name = 'NetmapError';
  readonly code: NetmapErrorCode;

  constructor(code: NetmapErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
