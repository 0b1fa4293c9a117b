// Why a frame was not delivered. One counter per reason and ring (layout.ts, RING_DROPS).
// TX reasons count on the ring the frame came from, RX reasons on the ring it was meant for.
// A reason is an index here, a name in DROP_NAMES and a sentence in DROP_HELP, in one order.

export const DROP_TX_BAD_CHAIN = 0;
export const DROP_TX_BAD_ADDRESS = 1;
export const DROP_TX_BAD_INDIRECT = 2;
export const DROP_TX_WRITABLE = 3;
export const DROP_TX_TOO_SHORT = 4;
export const DROP_TX_TOO_LONG = 5;
export const DROP_TX_BAD_HEADER = 6;
export const DROP_TX_DISABLED = 7;
export const DROP_TX_BAD_SOURCE = 8;
export const DROP_TX_HAIRPIN = 9;
export const DROP_TX_NO_RECEIVER = 10;
export const DROP_RX_DOWN = 11;
export const DROP_RX_FULL = 12;
export const DROP_RX_TOO_SMALL = 13;
export const DROP_RX_BAD_CHAIN = 14;
export const DROP_RX_MTU = 15;
export const DROP_RX_BAD_GSO = 16;
export const DROP_TX_PAGING = 17;
export const DROP_RX_PAGING = 18;
export const DROP_RX_SCATTERED = 19;
export const DROP_TX_POLICED = 20;
export const DROP_REASONS = 21;
