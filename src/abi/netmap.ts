// Netmap rings (datapath/netmap.ts): what the application shares with a sync, and what is the sync's own.

// --- ring: 64 B, then 16 B a slot; in linear memory, never in memory that a device sees -----------
// The application owns the slots [head, tail); a sync moves tail. All u32.
export const NMR_HEAD = 0; // application
export const NMR_CUR = 4; // application
export const NMR_TAIL = 8; // sync
export const NMR_SLOTS = 16; // set-up: slots
export const NMR_FIRST = 64;
export const NM_SLOT = 16;
// Of a slot, by the application while it owns it, else by syncs:
export const NMS_BUF = 0; // u32 index of its buffer
export const NMS_LEN = 4; // u32 bytes of the frame in it
export const NMS_OFFSET = 8; // u32 bytes from the buffer's start to the frame's first byte
export const NMS_FLAGS = 12; // u32 NS_*
/** Its buffer is another one than when the application got the slot: the frame is gone from here. */
export const NS_BUF_CHANGED = 0x01;
/** The frame goes on in the next slot. */
export const NS_MOREFRAG = 0x20;
export const MAX_FRAGS = 64;

// --- kring: the sync's side of a ring, in the driver heap; one thread syncs it at a time ----------
export const KR_RING = 0; // u32 linear
export const KR_KIND = 4; // u32 KIND_*
export const KR_SLOTS = 8; // u32
export const KR_DRV = 12; // u32 KIND_QUEUE: driver block
/** u32 slots before it were given to the device (TX), or back to it (RX). Pipes: atomic. */
export const KR_HWCUR = 16;
/** u32 TX: last slot that came back; RX: first slot that holds nothing yet. Pipes: atomic. */
export const KR_HWTAIL = 20;
/** u32 RX: next slot to fill; ahead of KR_HWTAIL in the middle of a frame. Pipe, TX: KR_HWCUR of its
 * reader when it last looked. */
export const KR_STAGE = 24;
/** u32 RX: buffers of that frame still to come. */
export const KR_WANTED = 28;
export const KR_BUFS = 32; // u32 linear: buffer 0
export const KR_BUF_SIZE = 36; // u32 bytes
export const KR_BUF_COUNT = 40; // u32
/** u32 linear: the header that all frames of this ring share; 0: each has its own in front of it. */
export const KR_HEADER = 44;
export const KR_HDR_LEN = 48; // u32 0, 10 or 12
export const KR_FLAGS = 52; // u32 KRF_*
/** i32 TAP: its queue. Virtqueue: eventfd to kick, or -1. Pipe, monitor: eventfd the other end sleeps on. */
export const KR_FD = 56;
export const KR_PEER = 60; // u32 pipe: kring of the other end; a monitor has none
/** u32 KRE_*: what the device did that it must not; nothing moves any more. */
export const KR_STATE = 64;
export const KR_HEADROOM = 68; // u32 bytes in front of a received frame
/** u32 RX kring of who watches this ring, or 0; and whether it gets the buffers instead of copies. */
export const KR_MONITOR = 72;
export const KR_MONITOR_SWAPS = 76;
/** u32 pipe, monitor: 1 while this end sleeps; atomic. TAP, RX: 1 when the last look left nothing there. */
export const KR_ARMED = 80;
/** u32 TX: 1 while the rest of a frame with too many slots is still to be dropped. */
export const KR_EXCESS = 84;
// u64 counters (RingCounters in netmap/types.ts); of a pipe's RX ring by its writer.
export const KR_FRAMES = 128;
export const KR_BYTES = 136;
export const KR_SYNCS = 144;
export const KR_BAD_SLOTS = 152;
export const KR_FULL = 160;
export const KR_COPIED = 168;
export const KR_LOST = 176;
/** Segments of the frame being added, MAX_FRAGS + 1 of {linear u32, length u32}; for a TAP, frames. */
export const KR_LIST = 192;
/** TX: by slot that a frame begins in, u32: slots of the frame in flight, and netmap-queue.ts's flags. */
export const KR_RECORDS = 768;

export const KIND_QUEUE = 0;
export const KIND_TAP = 1;
export const KIND_PIPE = 2;

/** Receive buffers may be merged: the device says how many in the header of the first. */
export const KRF_MRG = 1;
/** Several segments go into an indirect table. */
export const KRF_INDIRECT = 2;
export const KRF_RX = 4;

export const KRE_NONE = 0;
/** A used id that names no buffer outstanding. */
export const KRE_ID = 1;
/** More bytes written than the buffer has. */
export const KRE_LONG = 2;
/** Fewer bytes written than a header. */
export const KRE_SHORT = 3;
/** num_buffers is 0, or more than the ring has. */
export const KRE_MERGED = 4;

// What a sync returns when nothing was done; else the slots that the application owns.
/** head or cur is not where the application may put it. */
export const SYNC_RING = -1;
/** A slot given back names no buffer. */
export const SYNC_SLOT = -2;
/** KR_STATE says why. */
export const SYNC_DEVICE = -3;

// --- lane: two netmap ports back to back, moved by a worker (datapath/lane.ts); driver heap --------
/** u32 krings: RX and TX of either side. */
export const LANE_RX_A = 0;
export const LANE_TX_A = 4;
export const LANE_RX_B = 8;
export const LANE_TX_B = 12;
/** u32 1: asleep, its eventfds wake the worker. By the worker. */
export const LANE_ARMED = 16;
/** u32 1: a device broke the rules, as a KR_STATE says; by the worker, which told main. */
export const LANE_BROKEN = 20;
/** u32 rounds in a row that moved nothing. By the worker. */
export const LANE_EMPTY = 24;
export const LANE_SIZE = 64;
