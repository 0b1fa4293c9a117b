// The only calls out of the datapath, implemented by worker/host.ts.

/** Signals the ring's call eventfd. */
// @ts-ignore: decorator
@external("env", "call")
export declare function signalCall(ring: u32): void;

/** Tells main that a ring was latched broken. */
// @ts-ignore: decorator
@external("env", "latched")
export declare function signalLatched(ring: u32): void;
