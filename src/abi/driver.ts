// Private state of our own drivers (datapath/driver.ts) and in-process guests (datapath/guest.ts),
// in the driver heap. One thread owns a block and everything it points to.

// --- driver of one virtqueue: 128 B, then {token u32, link u16, takes u16} x size ---------------
// A position is, split, a free-running index of chains; packed, a slot and in bit 15 its wrap
// counter (WRAP).
/** The three parts, u32 linear: descriptor table, avail ring and used ring; of a packed ring
 * (RINGF_PACKED) descriptor ring, driver event area and device event area. */
export const DRV_DESC = 0;
export const DRV_AVAIL = 4;
export const DRV_USED = 8;
export const DRV_SIZE = 12; // u32 entries
export const DRV_FLAGS = 16; // u32 RINGF_* (abi/layout.ts)
/** u32 first free record; free ones are linked. Split: a record is a descriptor's; packed: an id's. */
export const DRV_FREE = 20;
export const DRV_FREE_COUNT = 24; // u32 descriptors
/** u32 position of the next chain; ahead of what the device may see until drvPublish. */
export const DRV_AVAIL_IDX = 28;
export const DRV_LAST_USED = 32; // u32 position
export const DRV_KICKED = 36; // u32 DRV_AVAIL_IDX at the last kick check
/** u64: GPA of linear address 0, that is, gpa = linear + this (mod 2^64). */
export const DRV_BIAS = 40;
/** u32 linear: size tables of DRV_TABLE descriptors, for indirect chains. */
export const DRV_TABLES = 48;
/** u32 length the device wrote, of the buffer last popped; 0 when a batch left it out (IN_ORDER). */
export const DRV_LEN = 52;
/** u32 used ids that named no outstanding chain; the device is broken if not 0. */
export const DRV_ERRORS = 56;
export const DRV_PUBLISHED = 60; // u32 DRV_AVAIL_IDX last made visible
/** u32 packed: flags of the descriptor at DRV_PUBLISHED, written last. */
export const DRV_FIRST_FLAGS = 64;
// With RINGF_IN_ORDER: u32 record of the oldest outstanding chain; of the last one of the batch being
// popped, or NO_BATCH; and the length written that the batch gives for that one.
export const DRV_OLDEST = 68;
export const DRV_BATCH = 72;
export const DRV_BATCH_LEN = 76;
export const NO_BATCH = 0xffff_ffff;
export const DRV_HEADS = 128;
export const DRV_HEAD = 8;
/** Descriptors in one indirect table. */
export const DRV_TABLE = 64;

/** Segment flag in the length word of drvAdd's list: the device writes it. */
export const SEG_WRITE = 0x8000_0000;

// --- in-process guest: a traffic source and sink on one queue pair ------------------------------
export const GUEST_TX = 0; // u32 driver block
export const GUEST_RX = 4; // u32 driver block
export const GUEST_HDR_LEN = 8; // u32 12 or 10
/** u32 linear: TX buffers, then RX buffers, GUEST_BUF bytes each, one a descriptor. */
export const GUEST_TX_BUFS = 12;
export const GUEST_RX_BUFS = 16;
export const GUEST_BUF = 20; // u32 bytes of one RX buffer
export const GUEST_ID = 24; // u32 in the frames this guest sends
/** u64 own and peer MAC, wire order, first byte lowest. */
export const GUEST_MAC = 32;
export const GUEST_PEER_MAC = 40;
/** u32 frame length sent, bytes; 0: lengths 60-1514 by sequence number. */
export const GUEST_LENGTH = 48;
/** u32 0: the header and addresses only, 1: every byte of payload derives from the sequence. */
export const GUEST_CHECK = 52;
/** u32 most segments a frame is sent in, 1-4. */
export const GUEST_SEGMENTS = 56;
/** u32 frames in flight at most. */
export const GUEST_WINDOW = 60;
export const GUEST_SENT = 64; // u64 frames
export const GUEST_RECEIVED = 72; // u64 frames of the peer's stream
export const GUEST_BYTES = 80; // u64 received
export const GUEST_CORRUPT = 88; // u64 frames whose bytes are not what was sent
export const GUEST_REORDERED = 96; // u64 frames older than one already seen: late or duplicated
export const GUEST_GAPS = 104; // u64 sequence numbers passed over: lost
export const GUEST_FOREIGN = 112; // u64 frames that are not of the peer's stream
export const GUEST_NEXT = 120; // u64 sequence expected next
export const GUEST_KICKS_TX = 128; // u32 set by guestRun: the TX queue wants a kick
export const GUEST_KICKS_RX = 132;
/** u64 frames to send before the source stops. */
export const GUEST_GOAL = 136;
/** u32 frames sent and not returned. */
export const GUEST_OUT = 144;
/** u32 1: the thread that runs the guest ends (main). */
export const GUEST_STOP = 148;
/** u64 rounds that slept, and wake-ups by a call. */
export const GUEST_SLEEPS = 152;
export const GUEST_SIZE = 256;
