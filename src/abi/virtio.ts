// Numbers of the virtio specification (1.2), shared by TypeScript and the datapath.

// Feature bits (virtio 1.2 §5.1.3, §6). Bit numbers, not masks.
export const F_CSUM = 0;
export const F_GUEST_CSUM = 1;
export const F_CTRL_GUEST_OFFLOADS = 2;
export const F_MTU = 3;
export const F_MAC = 5;
export const F_GUEST_TSO4 = 7;
export const F_GUEST_TSO6 = 8;
export const F_GUEST_ECN = 9;
export const F_GUEST_UFO = 10;
export const F_HOST_TSO4 = 11;
export const F_HOST_TSO6 = 12;
export const F_HOST_ECN = 13;
export const F_HOST_UFO = 14;
export const F_MRG_RXBUF = 15;
export const F_STATUS = 16;
export const F_CTRL_VQ = 17;
export const F_CTRL_RX = 18;
export const F_CTRL_VLAN = 19;
export const F_GUEST_ANNOUNCE = 21;
export const F_MQ = 22;
export const F_CTRL_MAC_ADDR = 23;
export const F_LOG_ALL = 26;
export const F_ANY_LAYOUT = 27;
export const F_INDIRECT_DESC = 28;
export const F_EVENT_IDX = 29;
/** vhost-user's own bit: protocol features can be negotiated. */
export const F_PROTOCOL_FEATURES = 30;
export const F_VERSION_1 = 32;
export const F_ACCESS_PLATFORM = 33;
export const F_RING_PACKED = 34;
export const F_IN_ORDER = 35;
export const F_GUEST_USO4 = 54;
export const F_GUEST_USO6 = 55;
export const F_HOST_USO = 56;

// Split virtqueue (virtio 1.2 §2.7).
export const DESC_SIZE = 16;
export const DESC_F_NEXT = 1;
export const DESC_F_WRITE = 2;
export const DESC_F_INDIRECT = 4;
export const AVAIL_F_NO_INTERRUPT = 1;
export const USED_F_NO_NOTIFY = 1;
export const MAX_RING_SIZE = 32768;

// Packed virtqueue (virtio 1.2 §2.8): further descriptor flags, and those of the event areas.
export const DESC_F_AVAIL = 0x80;
export const DESC_F_USED = 0x8000;
/** Bytes of an event area {off_wrap u16, flags u16}. */
export const EVENT_SIZE = 4;
export const EVENT_F_ENABLE = 0;
export const EVENT_F_DISABLE = 1;
export const EVENT_F_DESC = 2;
/** Wrap counter in a position and in `off_wrap`. */
export const WRAP = 0x8000;

// struct virtio_net_hdr (virtio 1.2 §5.1.6): byte offsets.
export const HDR_FLAGS = 0;
export const HDR_GSO_TYPE = 1;
export const HDR_HDR_LEN = 2;
export const HDR_GSO_SIZE = 4;
export const HDR_CSUM_START = 6;
export const HDR_CSUM_OFFSET = 8;
export const HDR_NUM_BUFFERS = 10;
/** Header length with VERSION_1 or MRG_RXBUF; without both it is 10. */
export const HDR_LEN = 12;
export const HDR_LEN_LEGACY = 10;

export const HDR_F_NEEDS_CSUM = 1;
export const HDR_F_DATA_VALID = 2;
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_UDP = 3;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;
export const GSO_ECN = 0x80;
