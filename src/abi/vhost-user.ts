// Numbers of the vhost-user specification, shared by both roles.

// Message header: u32 request, u32 flags, u32 size of what follows; little endian.
export const HEADER_SIZE = 12;
export const VERSION = 1;
export const VERSION_MASK = 3;
export const FLAG_REPLY = 4;
export const FLAG_NEED_REPLY = 8;
/** Flags of every reply, exactly: front ends compare for equality. */
export const REPLY_FLAGS = 5;

// Requests of the front end.
export const VU_GET_FEATURES = 1;
export const VU_SET_FEATURES = 2;
export const VU_SET_OWNER = 3;
export const VU_RESET_OWNER = 4;
export const VU_SET_MEM_TABLE = 5;
export const VU_SET_LOG_BASE = 6;
export const VU_SET_LOG_FD = 7;
export const VU_SET_VRING_NUM = 8;
export const VU_SET_VRING_ADDR = 9;
export const VU_SET_VRING_BASE = 10;
export const VU_GET_VRING_BASE = 11;
export const VU_SET_VRING_KICK = 12;
export const VU_SET_VRING_CALL = 13;
export const VU_SET_VRING_ERR = 14;
export const VU_GET_PROTOCOL_FEATURES = 15;
export const VU_SET_PROTOCOL_FEATURES = 16;
export const VU_GET_QUEUE_NUM = 17;
export const VU_SET_VRING_ENABLE = 18;
export const VU_SEND_RARP = 19;
export const VU_NET_SET_MTU = 20;
export const VU_SET_BACKEND_REQ_FD = 21;
export const VU_IOTLB_MSG = 22;
export const VU_SET_VRING_ENDIAN = 23;
export const VU_GET_CONFIG = 24;
export const VU_SET_CONFIG = 25;
export const VU_CREATE_CRYPTO_SESSION = 26;
export const VU_CLOSE_CRYPTO_SESSION = 27;
export const VU_POSTCOPY_ADVISE = 28;
export const VU_POSTCOPY_LISTEN = 29;
export const VU_POSTCOPY_END = 30;
export const VU_GET_INFLIGHT_FD = 31;
export const VU_SET_INFLIGHT_FD = 32;
export const VU_GPU_SET_SOCKET = 33;
export const VU_RESET_DEVICE = 34;
export const VU_VRING_KICK = 35;
export const VU_GET_MAX_MEM_SLOTS = 36;
export const VU_ADD_MEM_REG = 37;
export const VU_REM_MEM_REG = 38;
export const VU_SET_STATUS = 39;
export const VU_GET_STATUS = 40;
export const VU_GET_SHARED_OBJECT = 41;
export const VU_SET_DEVICE_STATE_FD = 42;
export const VU_CHECK_DEVICE_STATE = 43;
export const VU_GET_SHMEM_CONFIG = 44;

// Requests of the back end, on its own socket.
export const VU_BACKEND_IOTLB_MSG = 1;
export const VU_BACKEND_CONFIG_CHANGE = 2;
export const VU_BACKEND_HOST_NOTIFIER = 3;
export const VU_BACKEND_VRING_CALL = 4;
export const VU_BACKEND_VRING_ERR = 5;

// Protocol feature bits. Bit numbers, not masks.
export const PF_MQ = 0;
export const PF_LOG_SHMFD = 1;
export const PF_RARP = 2;
export const PF_REPLY_ACK = 3;
export const PF_MTU = 4;
export const PF_BACKEND_REQ = 5;
export const PF_CROSS_ENDIAN = 6;
export const PF_CRYPTO_SESSION = 7;
export const PF_PAGEFAULT = 8;
export const PF_CONFIG = 9;
export const PF_BACKEND_SEND_FD = 10;
export const PF_HOST_NOTIFIER = 11;
export const PF_INFLIGHT_SHMFD = 12;
export const PF_RESET_DEVICE = 13;
export const PF_INBAND_NOTIFICATIONS = 14;
export const PF_CONFIGURE_MEM_SLOTS = 15;
export const PF_STATUS = 16;
export const PF_XEN_MMAP = 17;
export const PF_SHARED_OBJECT = 18;
export const PF_DEVICE_STATE = 19;
export const PF_GET_VRING_BASE_INFLIGHT = 20;
export const PF_GPA_ADDRESSES = 21;
export const PF_SHMEM = 22;

// Payload of SET_VRING_KICK, CALL and ERR: the ring's index, and whether no fd comes with it.
export const VRING_INDEX_MASK = 0xff;
export const VRING_NOFD = 0x100;
/** SET_VRING_ADDR flags bit 0: log writes to the used ring. */
export const VRING_F_LOG = 1;

// Limits of ours on what a peer may send.
/** Payload bytes of one message. */
export const MAX_PAYLOAD = 4096;
/** Descriptors with one message: rust-vmm sends up to 32 regions, QEMU and DPDK 8. */
export const MAX_FDS = 32;
export const MAX_CONFIG = 256;
