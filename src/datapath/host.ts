// The only calls out of the datapath, implemented by the thread that runs it (worker/datapath.ts).

/** Signals the ring's call eventfd. */
export declare function signalCall(ring: u32): void;

/** Milliseconds on a clock that only goes forward. */
export declare function now(): f64;

/** Tells main that a ring was latched broken. */
export declare function signalLatched(ring: u32): void;

/** Signals an eventfd that a driver of ours kicks, or wakes a reader with; -1: none. */
export declare function signalKick(fd: i32): void;

/**
 * Reads or writes frames, `n` (at most 64) of {linear u32, length u32} at `list`, from or to a TAP queue.
 * Each length becomes the bytes moved, or a negative errno. Returns how many were tried; of a read, less
 * than `n` means that there is nothing more.
 */
export declare function tapRead(fd: i32, list: u32, n: u32): u32;
export declare function tapWrite(fd: i32, list: u32, n: u32): u32;

/**
 * Maps 2 MiB page `page` of the file `fd` at linear address `linear`; false when the kernel refuses.
 * Nobody uses what was mapped there before.
 */
export declare function pageIn(fd: i32, page: u32, linear: u32): bool;
