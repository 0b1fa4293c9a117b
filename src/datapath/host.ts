// The only calls out of the datapath, implemented by the thread that runs it (worker/datapath.ts).

/** Signals the ring's call eventfd. */
export declare function signalCall(ring: u32): void;

/** Milliseconds on a clock that only goes forward. */
export declare function now(): f64;

/** Tells main that a ring was latched broken. */
export declare function signalLatched(ring: u32): void;

/**
 * Maps 2 MiB page `page` of the file `fd` at linear address `linear`; false when the kernel refuses.
 * Nobody uses what was mapped there before.
 */
export declare function pageIn(fd: i32, page: u32, linear: u32): bool;
