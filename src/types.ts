// The shapes a user of the library reads and writes. All of them are plain JSON but for bigints,
// which are never used here: counters are numbers (exact to 2^53).

export type PortMode = 'server' | 'client';
export type Forwarding = 'switch' | 'wire';

/** Who may connect to a socket that a port listens on, beside root. */
export interface SocketAccess {
  /** Permission bits of the socket's file, 0-0o777; connecting takes write permission. Default: 0o600. */
  mode?: number;
  /** User by name or number. Default: the one that runs the switch. Only root may give files away. */
  owner?: string | number;
  /** Group by name or number; with one, `mode` is 0o660 by default. Only its members may name it. */
  group?: string | number;
}

/** Frames and bits, a second or at once. What is left out is not limited. */
export interface Limits {
  /** Frames as they would be on a wire: one to be segmented counts as its segments. 1 to 10^9. */
  frames?: number;
  /** Bits of Ethernet frames without FCS. 1 to 10^13. */
  bits?: number;
}

/** What a port may send into the switch; what goes beyond is dropped and counted as `tx_policed`. */
export interface Policing {
  /** A second. */
  rate?: Limits;
  /**
   * What may be sent at once after a pause. Default: a tenth of a second of the rate, and 64 frames or 64
   * KiB at least. A frame longer than the burst passes once all of it is saved up.
   */
  burst?: Limits;
}

export interface VhostUserPortOptions extends Policing {
  type: 'vhost-user';
  /** 1-32 characters of [A-Za-z0-9._-], unique in the switch. Default: the socket's base name. */
  name?: string;
  /** Unix socket path, at most 107 bytes. */
  path: string;
  /** `server` listens on `path` (default); `client` connects to it and keeps retrying. */
  mode?: PortMode;
  /** Who may connect; in mode `server` only. Default: what umask leaves. */
  socket?: SocketAccess;
  /** Queue pairs offered, 1-8. Default 8. */
  queues?: number;
  /**
   * Largest IP packet the port takes, 68-65535 bytes; Ethernet header and VLAN tags come on top.
   * Default: not limited, not advertised.
   */
  mtu?: number;
  /** The MAC printed by `vhop args` for the guest behind this port. Default: derived from the name. */
  mac?: string;
  /**
   * Refuse guest memory whose file can shrink while it is mapped (no F_SEAL_SHRINK, and none can be
   * added). Default false: where it shrinks, the port is quarantined.
   */
  requireSealed?: boolean;
}

export interface MemoryPortOptions extends Policing {
  /** An in-process guest: our own driver on rings in a memfd. */
  type: 'memory';
  name: string;
  queues?: number;
  mtu?: number;
  mac?: string;
  /** Ring size, power of two, 8-32768. Default 256. */
  ringSize?: number;
}

/** The switch as a driver: it connects to somebody else's vhost-user back end. */
export interface VirtioUserPortOptions extends Policing {
  type: 'virtio-user';
  /** Default: the socket's base name. */
  name?: string;
  /** Unix socket path of the back end, at most 107 bytes. */
  path: string;
  /** `client` connects to `path` and keeps retrying (default); `server` listens, and the back end connects. */
  mode?: PortMode;
  /** Queue pairs to use, 1-8. Default 1. */
  queues?: number;
  /** Packed rings, which the back end must offer. Default false. */
  packed?: boolean;
  mtu?: number;
  mac?: string;
}

/** A TAP device: the host itself joins the network. Needs root or CAP_NET_ADMIN, or a device made for the user. */
export interface TapPortOptions extends Policing {
  type: 'tap';
  name: string;
  /** The network device, at most 15 characters. Default: the port's name. */
  device?: string;
  /** Queues of the device, 1-8. Default 1. */
  queues?: number;
  /** Also the device's. */
  mtu?: number;
  mac?: string;
}

export type PortOptions =
  | VhostUserPortOptions
  | MemoryPortOptions
  | VirtioUserPortOptions
  | TapPortOptions;

export interface SwitchOptions {
  /** Names the control socket. Default `default`. */
  name?: string;
  forwarding?: Forwarding;
  /** Datapath threads, 1-16. Default 1. */
  workers?: number;
  /** Seconds until an unheard MAC is forgotten. Default 300. */
  ageing?: number;
  /**
   * A file that keeps ring positions, counters and addresses for the switch that is started after this one, however
   * this one ends: on a tmpfs, made if it is not there. Default: none. Throws Error while another switch has it.
   */
  state?: string;
  /**
   * For tests and small machines: how the 4 GiB of address space for guest memory are shared out.
   * `whole`: bytes for guests that are mapped whole. `slots`: 2 MiB pages of larger ones that can be
   * mapped at a time, 8-1024, default 512.
   */
  window?: { whole?: number; slots?: number };
}

/** What can be changed while the switch runs, without a frame lost. */
export type SwitchSettings = Pick<SwitchOptions, 'forwarding' | 'ageing'>;

export type PortState = 'listening' | 'connecting' | 'connected' | 'up' | 'quarantined';

/** The process at the other end of a port's socket, as it was when it connected (SO_PEERCRED). */
export interface PeerInfo {
  pid: number;
  uid: number;
  gid: number;
  /** What it called itself then, where /proc tells. */
  process?: string;
}

/** How a port's link went down. */
export interface LinkDown {
  /**
   * `stopped`: the guest, or its front end for it, stopped or disabled the rings (GET_VRING_BASE,
   * SET_VRING_ENABLE). `lost`: the connection ended while rings ran. `quarantined`: see `reason`.
   */
  cause: 'stopped' | 'lost' | 'quarantined';
  /** A sentence; none for `stopped`. */
  reason?: string;
  /** Milliseconds until the link was up again; absent while it is not. */
  gap?: number;
}

/**
 * What became of a port's link since the port was added. The link is up while at least one ring pair
 * carries frames.
 */
export interface PortHistory {
  /** When a peer last came or went, or the link went up or down; milliseconds since the epoch. */
  since: number;
  /** How often a front end connected; of `virtio-user`, how often a back end took the rings over. */
  connections: number;
  /** How often the link went down because the connection was lost. */
  lost: number;
  /** How the link went down last; absent: it never did. */
  down?: LinkDown;
  /** How often a switch took this port up from the one before it; all of it that the state file tells. */
  restarts: number;
  /**
   * With `restarts`: milliseconds from the opening of this switch to the link's first being up. When the one
   * before ended nobody knows who was not there.
   */
  resumed?: number;
}

/** Frames and bytes count Ethernet frames without the virtio header and without FCS. */
export interface PortInfo {
  name: string;
  index: number;
  type: PortOptions['type'];
  mode?: PortMode;
  /** Of its socket. */
  path?: string;
  /** Type `tap`: its network device. */
  device?: string;
  state: PortState;
  /** Why the port is not up, or why it was quarantined. */
  reason?: string;
  mac: string;
  mtu?: number;
  queues: number;
  /** Queue pairs the guest has enabled. */
  queuesEnabled: number;
  /** Virtio features the port offers, by name, e.g. `VERSION_1`, `MRG_RXBUF`. */
  offered: string[];
  /** Those that the guest and its front end accepted last; none before a driver was set up. */
  features: string[];
  /** Bytes of guest memory. */
  memory: number;
  /** Of these, bytes mapped only while they are in use: what the window had no room for. */
  paged: number;
  /** Whether none of the memory can shrink while it is mapped; absent while there is none. */
  sealed?: boolean;
  peer?: PeerInfo;
  history: PortHistory;
  /** True while what is written to guest memory is logged for a live migration (VHOST_F_LOG_ALL). */
  logging?: boolean;
  /** What it may send, a second and at once; absent: not limited. */
  rate?: Limits;
  burst?: Limits;
}

export interface RingInfo {
  port: string;
  index: number;
  /** `rx` rings carry frames to the guest, `tx` rings from it. */
  direction: 'rx' | 'tx';
  pair: number;
  type: 'split' | 'packed';
  size: number;
  /** Next avail index the switch will take; of a packed ring, here and below, a slot. */
  lastAvail: number;
  availIdx: number;
  usedIdx: number;
  /** Packed rings: the wrap counter at `lastAvail`. */
  wrap?: 0 | 1;
  /** Buffers (packed: descriptors) the guest has posted that the switch has not taken. */
  inFlight: number;
  enabled: boolean;
  started: boolean;
  /** Whether the guest is asked to kick (`vhop` sleeps on this ring). */
  notify: boolean;
  kicks: number;
  calls: number;
  /** Latched broken: the cause. */
  broken?: string;
}

export interface FdbEntry {
  mac: string;
  port: string;
  /** Seconds since the address was last heard. */
  age: number;
}

export interface PortStats {
  port: string;
  /** From the guest. */
  txFrames: number;
  txBytes: number;
  /** To the guest. */
  rxFrames: number;
  rxBytes: number;
  kicks: number;
  calls: number;
  /** Bursts taken from the guest; txFrames / txBursts is the average burst. */
  txBursts: number;
  /** To the guest: frames cut because it did not negotiate TSO or USO. */
  segmented: number;
  /** The segments they were cut into, dropped ones included. */
  segments: number;
  /** To the guest: checksums completed because it did not negotiate GUEST_CSUM; not of segments. */
  summed: number;
  /** By reason, zero ones left out. */
  drops: Record<string, number>;
}

export interface WorkerStats {
  worker: number;
  polls: number;
  frames: number;
  /** Busy time per frame, nanoseconds, sampled; 0 before the first sample. */
  nsPerFrame: number;
  /** Share of wall time spent on work, 0-1, since the switch opened. */
  load: number;
  sleeps: number;
  state: 'busy' | 'sleeping';
  /** 2 MiB pages of guest memory mapped when a frame needed them, and the time that took. */
  pagesIn: number;
  pagingNs: number;
  /** Pages given up for others. */
  evictions: number;
}

export interface Stats {
  /** Milliseconds since the epoch when the figures were read. */
  time: number;
  ports: PortStats[];
  workers: WorkerStats[];
  fdb: { entries: number; capacity: number; moves: number; full: number };
  /** Slots for 2 MiB pages of guests that are not mapped whole. */
  paging: { slots: number; free: number };
}

export interface SwitchInfo {
  name: string;
  version: string;
  pid: number;
  forwarding: Forwarding;
  workers: number;
  ageing: number;
  /** Seconds since the switch opened. */
  uptime: number;
  /** Of `vhop up`, over the control socket: the file it was started from, or reloaded from last. */
  file?: string;
  /** Over the control socket: the format in which its ports can be taken over. */
  handover?: number;
}

export interface PortEvents {
  /** A front end connected; `peer` says who. The same one again and again is told once. */
  connected: PortInfo;
  'port-up': PortInfo;
  'port-down': PortInfo;
  quarantined: PortInfo;
  'link-features': PortInfo;
  /** The front end turned logging on or off, as for a live migration: see `logging`. */
  logging: PortInfo;
  /** A refusal or a disconnect: one sentence naming the port. */
  notice: { port: string; message: string };
}

/** Taking the ports of a running switch over (switch/handover.ts). */
export interface TakeOverOptions {
  /** Path of a socket that is made for it, at most 107 bytes. */
  at: string;
  /** The process of the running switch. */
  pid: number;
  /** Asks it to hand over to `at`; rejects when it refuses. */
  ask: () => Promise<unknown>;
  /** The port to be in place of one of its; undefined: none, or one that begins anew. */
  wanted: (port: VhostUserPortOptions) => VhostUserPortOptions | undefined;
  /** Where this switch's state goes when the other is gone. */
  state?: string | undefined;
}

export interface HandedOver {
  /** Milliseconds that the guests were not served. */
  pause: number;
  /** Tells the other process that this switch is closed: it may have what it did not take. */
  closed(): void;
}

/** A running switch: what the library opens, and what the command line drives. */
export interface SwitchApi {
  info(): SwitchInfo;
  addPort(options: PortOptions): Promise<PortInfo>;
  removePort(name: string): Promise<void>;
  /** Changes what a port may send, from now on and with full buckets; {} lifts all limits. */
  setPolicing(name: string, policing: Policing): void;
  /** Changes what is given, from the next burst on. Throws RangeError. */
  configure(settings: SwitchSettings): void;
  /**
   * Hands the vhost-user ports over to the process that listens at `to`: guests notice no more than a pause.
   * Resolves once they run there. Rejects when it came to nothing.
   */
  handOver(to: string): Promise<HandedOver>;
  /** The other side. Resolves when the other switch is closed. Rejects while that goes on as it was. */
  takeOver(options: TakeOverOptions): Promise<void>;
  ports(): PortInfo[];
  rings(): RingInfo[];
  fdb(): FdbEntry[];
  stats(): Stats;
  on<K extends keyof PortEvents>(event: K, listener: (value: PortEvents[K]) => void): this;
  close(): Promise<void>;
}
