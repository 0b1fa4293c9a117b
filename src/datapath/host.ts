// The only calls out of the datapath, implemented by the thread that runs it (worker/datapath.ts).

/** Signals the ring's call eventfd. */
export declare function signalCall(ring: u32): void;

/** Tells main that a ring was latched broken. */
export declare function signalLatched(ring: u32): void;
