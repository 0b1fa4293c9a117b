// The control area: the low part of the linear memory, shared by the main thread, every worker
// and every in-process driver. All addresses are u32 offsets in linear memory, all integers little
// endian. Guest memory is mapped above it (WINDOW_BASE); guests can never name an address in here.
//
//   0x0000_0000  unused, so that 0 means "no address"
//   0x0000_1000  switch block                      written by main, FDB counters by workers
//   0x0000_2000  pager block                       see below
//   0x0001_0000  worker blocks   16 x 4 KiB
//   0x0002_0000  port blocks    256 x 256 B        written by main
//   0x0003_0000  region tables  256 x 64 x 32 B    written by main, under quiesce
//   0x000b_0000  slot stamps   2048 x u32          workers
//   0x000b_2000  slot records  2048 x 16 B         whoever holds the pager's lock
//   0x000b_a000  slots' pages  2048 x u32          whoever maps one
//   0x0010_0000  ring blocks   4096 x 512 B        line 0 by main, the rest by the ring's owner
//   0x0030_0000  flow tables    256 x 1 KiB        written by the worker that hears a flow
//   0x0034_0000  faults        1 Mi bits          whoever finds a page gone; cleared by main
//   0x0040_0000  FDB keys       32 Ki x 8 x u64    CAS by workers and main
//   0x0060_0000  FDB ages       32 Ki x 8 x u32    seconds
//   0x0080_0000  scratch        16 x 512 KiB       private to one worker
//   0x0100_0000  driver heap    32 MiB             in-process drivers' private state
//   0x0300_0000  page tables    16 MiB             u32 per 2 MiB of a paged region's file
//   0x0400_0000  window: guest memory (memory/window.ts)

export const PAGE = 0x1000;
export const SLOT = 0x20_0000;
export const WINDOW_BASE = 0x400_0000;
/** 65536 Wasm pages: all that a 32-bit memory can have. */
export const MEMORY_PAGES = 65536;

// --- switch block -------------------------------------------------------------------------------
export const SWITCH_BASE = 0x1000;
/** u32 seconds, monotonic from 1; written by main once a second, read for FDB ages. */
export const SWITCH_NOW = SWITCH_BASE + 0;
/** u32 FORWARD_*. */
export const SWITCH_FORWARDING = SWITCH_BASE + 4;
/** u32 highest port index in use + 1. */
export const SWITCH_PORTS = SWITCH_BASE + 8;
/** u32 number of workers; with one, RX locks are not taken. */
export const SWITCH_WORKERS = SWITCH_BASE + 12;
/** u32 1: some port is policed, so workers look at the clock (main). */
export const SWITCH_POLICED = SWITCH_BASE + 16;
/** u32 entries in the FDB; atomic add by whoever inserts or removes. */
export const SWITCH_FDB_COUNT = SWITCH_BASE + 64;
/** u32 addresses that moved between ports; atomic. */
export const SWITCH_FDB_MOVES = SWITCH_BASE + 68;
/** u32 addresses not learned because the table, or their bucket, was full; atomic. */
export const SWITCH_FDB_FULL = SWITCH_BASE + 72;

export const FORWARD_SWITCH = 0;
export const FORWARD_WIRE = 1;

// --- pager: guest memory that is mapped 2 MiB at a time (datapath/slots.ts, memory/pager.ts) -----
export const PAGER_BASE = 0x2000;
/** u32 paged regions of all ports; 0: workers do not look at the rest (main). */
export const PAGER_REGIONS = PAGER_BASE + 0;
/** u32 linear address of slot 0, and how many slots of SLOT bytes follow it (main, once). */
export const PAGER_FIRST = PAGER_BASE + 4;
export const PAGER_SLOTS = PAGER_BASE + 8;
/** u32 0 or 1: the lock for what follows and for slot records; never held over a system call. */
export const PAGER_LOCK = PAGER_BASE + 64;
/** u32 free slots, and the first of them + 1; the list goes on in SLOT_NEXT. */
export const PAGER_FREE = PAGER_BASE + 68;
export const PAGER_FREE_FIRST = PAGER_BASE + 72;
/** u32 evicted slots that a worker may still be using; first and last + 1, oldest first. */
export const PAGER_LIMBO = PAGER_BASE + 76;
export const PAGER_LIMBO_FIRST = PAGER_BASE + 80;
export const PAGER_LIMBO_LAST = PAGER_BASE + 84;
/** u32 the slot looked at next for eviction. */
export const PAGER_HAND = PAGER_BASE + 88;
/** u32 1: somebody found no slot; evict all that can be. Any worker. */
export const PAGER_WANTED = PAGER_BASE + 92;
/** u32 rounds begun by all workers while there are paged regions; atomic add, wraps. */
export const PAGER_CLOCK = PAGER_BASE + 128;

export const MAX_SLOTS = 2048;
/** u32 by slot: PAGER_CLOCK of the round that last used it. */
export const SLOT_STAMPS = 0xb_0000;
export const SLOT_RECORDS = 0xb_2000;
export const SLOT_RECORD = 16;
/** u32 linear address of the page table entry that names the slot; 0: none does. */
export const SLOT_ENTRY = 0;
/** u32 linear address of the page table of the region whose file is mapped in it; 0: none. */
export const SLOT_TABLE = 4;
/** u32 next slot of the list it is in, + 1. */
export const SLOT_NEXT = 8;
/** u32 in limbo: PAGER_CLOCK when it was evicted. */
export const SLOT_SINCE = 12;

/** u32 by slot: linear address of the page table entry that named it last, evicted or not. */
export const SLOT_PAGES = 0xb_a000;

/** Page table entries: not mapped, being mapped by a worker; else the slot's linear address. */
export const PAGE_ABSENT = 0;
export const PAGE_BUSY = 1;

// --- worker block -------------------------------------------------------------------------------
export const MAX_WORKERS = 16;
export const WORKER_BASE = 0x1_0000;
export const WORKER_STRIDE = 0x1000;
/** u32 bumped by main whenever rings, ports or memory change. */
export const WORKER_GENERATION = 0;
/** u32 the generation this worker works with; it holds no reference to anything older. */
export const WORKER_ACK = 4;
/** u32 1 while blocked in epoll: holds no reference, and looks at the generation before it does. */
export const WORKER_PARKED = 8;
/** u32 1: leave the loop (main). */
export const WORKER_STOP = 12;
/** u32 nanoseconds to poll on before sleeping (main; 0 = never spin). */
export const WORKER_SPIN = 16;
/** u32 ring whose lock this worker holds, or NO_RING: given back if the worker traps. */
export const WORKER_LOCKED = 64;
/** u32 ring being worked on, or NO_RING: the culprit if the worker traps. */
export const WORKER_CURRENT = 68;
/** u32 PAGER_CLOCK when its round began: of slots evicted before that it holds none. */
export const WORKER_ROUND = 72;
// u64 counters and f64 sums, written by the worker.
export const WORKER_POLLS = 128;
export const WORKER_FRAMES = 136;
export const WORKER_SLEEPS = 144;
/** f64 nanoseconds and frames in the sampled busy polls. */
export const WORKER_SAMPLED_NS = 152;
export const WORKER_SAMPLED_FRAMES = 160;
export const WORKER_TRAPS = 168;
/** u64 2 MiB pages mapped and evicted by this worker. */
export const WORKER_PAGES_IN = 176;
export const WORKER_EVICTIONS = 184;
/** f64 nanoseconds spent mapping pages. */
export const WORKER_PAGING_NS = 192;
/** f64 nanoseconds, one clock for all workers; set before each round while SWITCH_POLICED. */
export const WORKER_NOW = 200;
export const NO_RING = 0xffff_ffff;

// --- port block ---------------------------------------------------------------------------------
export const MAX_PORTS = 256;
export const PORT_BASE = 0x2_0000;
export const PORT_STRIDE = 256;
/** u32 PORT_*: whether anything may be delivered. */
export const PORT_STATE = 0;
/** u32 bytes of the virtio-net header: 12 or 10. */
export const PORT_HDR_LEN = 4;
/** u64 negotiated features. */
export const PORT_FEATURES = 8;
/** u32 regions in this port's table that are mapped whole. */
export const PORT_REGIONS = 16;
/** u32 paged regions; they follow the whole ones. */
export const PORT_PAGED = 28;
/** u32 rings configured: 2 x queue pairs. */
export const PORT_RINGS = 20;
/** u32 number of RX rings that may be delivered to; their pair numbers are u8[8] in PORT_RX_LIST. */
export const PORT_RX_PAIRS = 24;
export const PORT_RX_LIST = 32;
/** u32 the other port of a wire, or NO_PORT. */
export const PORT_PEER = 40;
/** u32 bytes a frame may have behind its Ethernet header and VLAN tags; 0 = no limit. */
export const PORT_MTU = 44;
/** u32 1: what the port sends is policed (main). */
export const PORT_POLICED = 48;
/** u32 linear: its lanes (abi/netmap.ts), one a queue pair, and how many; 0: none (main). */
export const PORT_LANES = 52;
export const PORT_LANE_COUNT = 56;
// Line 1: policing. Rates and bursts by main, under quiesce; tokens by whoever holds the lock.
/** f64 frames and bits that a nanosecond adds. */
export const POLICE_RATE_FRAMES = 64;
export const POLICE_RATE_BITS = 72;
/** f64 frames and bits that are saved up at most; infinite where there is no limit. */
export const POLICE_BURST_FRAMES = 80;
export const POLICE_BURST_BITS = 88;
/** f64 frames and bits there are; below 0 after a frame larger than the bucket. */
export const POLICE_TOKENS_FRAMES = 96;
export const POLICE_TOKENS_BITS = 104;
/** f64 WORKER_NOW when they were counted. */
export const POLICE_FILLED = 112;
/** u32 0 or 1. */
export const POLICE_LOCK = 120;
// Line 2: for a guest that migrates.
/**
 * u64 the dirty log (datapath/log.ts): the bitmap's linear address, and << 32 how many 4 KiB pages from GPA 0 on
 * it has bits for. One word, as main swaps it under running rings. 0: none.
 */
export const PORT_LOG = 128;
/** u64 the address (wire order, first byte lowest) to be announced by a RARP, and 1 << 48; main sets it, the worker 0. */
export const PORT_RARP = 136;
export const NO_PORT = 0xffff_ffff;
export const PORT_ABSENT = 0;
export const PORT_DOWN = 1;
export const PORT_UP = 2;

// --- region table: how a port's GPAs lie in linear memory ---------------------------------------
export const MAX_REGIONS = 64;
export const REGION_BASE = 0x3_0000;
export const REGION_STRIDE = 32;
export const REGION_GPA = 0; // u64
export const REGION_SIZE = 8; // u64
/** u32 whole: linear address of its start. */
export const REGION_LINEAR = 16;
/** u32 paged: bytes from the start of its first file page to its own start. */
export const REGION_SKEW = 16;
/** u32 paged: linear address of its page table, one entry a file page. */
export const REGION_TABLE = 20;
/** i32 paged: its file, open for as long as it is in the table. */
export const REGION_FD = 24;
/** u32 paged: number of its first file page, in units of SLOT. */
export const REGION_PAGE = 28;

// --- ring block ---------------------------------------------------------------------------------
// Ring index = port * RINGS_PER_PORT + virtqueue index; even ones are RX (to the guest).
export const MAX_PAIRS = 8;
export const RINGS_PER_PORT = 16;
export const MAX_RINGS = MAX_PORTS * RINGS_PER_PORT;
/** A lane's number is its port's times MAX_PAIRS, and its pair's; in events it comes after all rings'. */
export const MAX_LANES = MAX_PORTS * MAX_PAIRS;
export const RING_BASE = 0x10_0000;
export const RING_STRIDE = 512;
// Line 0: written by main while no worker uses the ring.
export const RING_STATE = 0; // u32 RING_*
export const RING_SIZE = 4; // u32 entries
// The three parts, u32 linear: descriptor table, avail ring and used ring; of a packed ring
// (RINGF_PACKED) descriptor ring, driver event area and device event area.
export const RING_DESC = 8;
export const RING_AVAIL = 12;
export const RING_USED = 16;
export const RING_FLAGS = 20; // u32 RINGF_*; those of logging also while it runs
export const RING_PORT = 24; // u32
export const RING_WORKER = 28; // u32 who polls it (TX)
export const RING_CALL_FD = 32; // i32 eventfd to signal, or -1
/** u64 GPAs of the parts that the device writes, for RINGF_LOG_RING: of RING_USED, and of a packed ring's RING_DESC. */
export const RING_LOG_USED = 40;
export const RING_LOG_DESC = 48;
// Line 1: written by the owner (TX: its worker; RX: whoever holds the lock).
export const RING_LOCK = 64; // u32 0 or 1
// Positions, u32, low 16 bits: split, a free-running index; packed, bits 0-14 the slot and bit 15 the
// wrap counter. Chains are completed in order and at once, so the two are equal between bursts.
export const RING_LAST_AVAIL = 68;
export const RING_USED_IDX = 72;
/** u32 used position at the last notification check; above 0xffff: none yet, so signal. */
export const RING_SIGNALLED = 76;
/** u32 1 while the guest is asked to kick. */
export const RING_ARMED = 80;
/** u32 polls in a row that found nothing. */
export const RING_EMPTY = 84;
/** u32 1: the last burst had a receiver whose memory is paged. */
export const RING_TO_PAGED = 92;
/** u32 TX: frames of the last burst. */
export const RING_LAST_BURST = 96;
// TX, u32, see datapath/patience.ts: since when the ring is left for more frames to come (0: it is not), how many
// are enough (0: the usual part of the ring), for how many bursts, and for how many the last time.
export const RING_SINCE = 112;
export const RING_ENOUGH = 116;
export const RING_RETRY = 120;
export const RING_BACKOFF = 124;
/** u32 packed: where the burst ends that is being published; RING_LAST_AVAIL follows. */
export const RING_NEXT = 100;
/** u32 packed: SAVED | RING_LAST_AVAIL, and RING_NEXT, of before its front end was lost (main). */
export const RING_SAVED = 104;
export const RING_SAVED_NEXT = 108;
/** u32 BROKEN_*, valid while RING_STATE is RING_BROKEN. */
export const RING_REASON = 88;
// Line 2: counters, u64, same writer as line 1 but RING_KICKS (the worker's host side).
export const RING_FRAMES = 128;
export const RING_BYTES = 136;
export const RING_BURSTS = 144;
export const RING_CALLS = 152;
export const RING_KICKS = 160;
/** RX: frames cut into segments for the receiver, and the segments they made, dropped ones too. */
export const RING_SEGMENTED = 168;
export const RING_SEGMENTS = 176;
/** RX: checksums completed for the receiver, those of segments not among them. */
export const RING_SUMMED = 184;
// Lines 3-6: u64 by drop reason (drops.ts).
export const RING_DROPS = 192;

/** In RING_SAVED: there is something in it. */
export const SAVED = 0x1_0000;

export const RING_STOPPED = 0;
export const RING_RUNNING = 1;
/** Started but disabled: what the guest sends is consumed and counted. */
export const RING_DISCARD = 2;
/** Latched: nothing more is read or written until the next start. */
export const RING_BROKEN = 3;

export const RINGF_EVENT_IDX = 1;
export const RINGF_INDIRECT = 2;
export const RINGF_MRG = 4;
/** No kick descriptor: never sleeps. */
export const RINGF_POLLED = 8;
export const RINGF_PACKED = 16;
export const RINGF_IN_ORDER = 32;
/** What is written into its buffers, and what into the ring itself, is marked in the port's dirty log. */
export const RINGF_LOG = 64;
export const RINGF_LOG_RING = 128;

export const BROKEN_NONE = 0;
/** avail.idx is further ahead than the ring is long. */
export const BROKEN_AVAIL_JUMP = 1;
/** An avail entry names a descriptor outside the table. */
export const BROKEN_HEAD = 2;
/** The datapath trapped while it worked on the ring. */
export const BROKEN_TRAP = 3;
/** A chain of a packed ring is longer than the ring, or than MAX_SEGMENTS. */
export const BROKEN_CHAIN = 4;
/** A descriptor of a packed ring names a buffer id that is not below the ring's size. */
export const BROKEN_ID = 5;

// --- flow tables: on which pair a flow last transmitted (u8: pair + 1) --------------------------
export const FLOW_BASE = 0x30_0000;
export const FLOW_ENTRIES = 1024;

// --- faults: pages of guest memory that went away while they were mapped (linux/fault-guard.ts) --
/** u32 words, a bit for each 4 KiB of linear memory: bit n % 32 of word n / 32 for page n. */
export const FAULTS_BASE = 0x34_0000;
export const FAULTS_SIZE = 0x2_0000;

// --- FDB: set-associative, one cache line of keys a bucket --------------------------------------
// key u64 = MAC (48 bits, wire order in the low bytes) | (port + 1) << 48; 0 = free.
export const FDB_BUCKETS = 32768;
export const FDB_WAYS = 8;
export const FDB_KEYS = 0x40_0000;
export const FDB_AGES = 0x60_0000;
/** What outlives the process, in a file mapped over it (memory/state.ts): rings to FDB ages. */
export const STATE_FROM = RING_BASE;
export const STATE_TO = FDB_AGES + FDB_BUCKETS * FDB_WAYS * 4;
/** Entries at most; beyond it nothing is learned. */
export const FDB_CAPACITY = 65536;

// --- scratch of one worker ----------------------------------------------------------------------
export const SCRATCH_BASE = 0x80_0000;
export const SCRATCH_STRIDE = 0x8_0000;
export const BURST = 128;
/** BURST frame records of 64 B, see datapath/frame.ts. */
export const SCRATCH_FRAMES = 0;
/** Receive buffers gathered ahead: AHEAD x 16 B, see datapath/room.ts. */
export const SCRATCH_BUFFERS = 0x2000;
/** Receive buffers gathered ahead at most, and buffers one frame may take. */
export const AHEAD = 256;
/** The header and first 16 bytes of the frame being written, contiguous. */
export const SCRATCH_OUT = 0x3000;
/** u32 that nobody reads: what `touchRoom` looked at, so that it does (datapath/room.ts). */
export const SCRATCH_TOUCHED = 0x3100;
/** u32 that nobody reads: stored to as a fence (datapath/log.ts). */
export const SCRATCH_FENCE = 0x3140;
/** Records of the frames meant for one ring, and of all frames of a burst: BURST x u32 each. */
export const SCRATCH_LIST = 0x3200;
export const SCRATCH_ALL = 0x3400;
/** Destination port seen in the burst: MAX_PORTS x u8. */
export const SCRATCH_SEEN = 0x3600;
/** Chains of the burst, by frame: BURST x {head u32, descriptor u32}, see datapath/ring.ts. */
export const SCRATCH_TX_CHAINS = 0x3800;
/** Chains of receive buffers just found: AHEAD of them. */
export const SCRATCH_RX_CHAINS = 0x4000;
/** The headers of the frame being segmented, see datapath/segment.ts: 16 B and HEADERS_MAX. */
export const SCRATCH_HEADERS = 0x4800;
/** Longest headers a frame to be segmented may have, Ethernet to TCP. */
export const HEADERS_MAX = 512;
/** Active rings: MAX_RINGS x u32. */
export const SCRATCH_ACTIVE = 0x5000;
/** What each port owes the worker: MAX_PORTS x 16 B, see datapath/work.ts. */
export const SCRATCH_DEBTS = 0x9000;
/** Lanes of this worker: MAX_LANES x u32. */
export const SCRATCH_LANES = 0xa000;
/** Snapshot of an indirect table: MAX_SEGMENTS x 16 B. */
export const SCRATCH_TABLE = 0x1_0000;
/** Segments {linear u32, len u32} of the frames of a burst. */
export const SCRATCH_SEGMENTS = 0x2_0000;
export const SCRATCH_SEGMENTS_END = 0x4_0000;
/** Segments of the receive buffers gathered. */
export const SCRATCH_RX_SEGMENTS = 0x4_0000;
export const SCRATCH_RX_SEGMENTS_END = 0x6_0000;
/** Descriptors one chain may have, indirect ones included. */
export const MAX_SEGMENTS = 1024;

export const HEAP_BASE = 0x100_0000;
export const HEAP_SIZE = 0x200_0000;

/** Page tables: 8 TiB of paged guest memory. */
export const TABLES_BASE = 0x300_0000;
export const TABLES_SIZE = 0x100_0000;

/** Longest frame a guest may send: 64 KiB of IP, Ethernet and two VLAN tags. */
export const MAX_FRAME = 65535 + 14 + 8;
export const MIN_FRAME = 14;
