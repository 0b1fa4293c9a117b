// Drop reasons by name and in words, in the order of abi/drops.ts.

const REASONS: readonly (readonly [name: string, help: string])[] = [
  ['tx_bad_chain', 'descriptors loop, or link to one that is not there'],
  ['tx_bad_address', 'a buffer lies outside the memory of the guest'],
  ['tx_bad_indirect', 'an indirect table is empty, odd, nested, too long or not negotiated'],
  ['tx_writable', 'a buffer to send is marked as one to receive into'],
  ['tx_too_short', 'the chain ends before the Ethernet header does'],
  ['tx_too_long', 'the frame is longer than any the port may send'],
  ['tx_bad_header', 'the virtio header asks for what was not negotiated, or cannot be'],
  ['tx_disabled', 'the guest sent on a queue that is disabled'],
  ['tx_bad_source', 'the source address is a group address, or zero'],
  ['tx_hairpin', 'the destination is behind the port the frame came from'],
  ['tx_no_receiver', 'no port is up to take the frame'],
  ['rx_down', 'the receiver is not connected, or its queue is stopped'],
  ['rx_full', 'the receiver has posted no buffer'],
  ['rx_too_small', 'the receiver posted buffers too small for the frame'],
  ['rx_bad_chain', 'a receive buffer is malformed; it went back empty'],
  ['rx_mtu', "the frame is larger than the receiver's MTU"],
  ['rx_bad_gso', 'the frame is to be segmented, and its headers do not allow it'],
  ['tx_paging', 'its memory cannot be mapped, or is spread over too many pages of 2 MiB'],
  ['rx_paging', "the receiver's buffers could not be mapped, or lie on too many pages of 2 MiB"],
  ['rx_scattered', "the receiver's buffers are in too many pieces for one burst"],
  ['tx_policed', 'the port sent more than its rate and burst allow'],
];

/** Counter names by DROP_* index. */
export const DROP_NAMES: readonly string[] = REASONS.map(([name]) => name);

/** One clause of explanation for a counter name. */
export const DROP_HELP: Readonly<Record<string, string>> = Object.fromEntries(REASONS);
