// Numbers of linux/if_tun.h and of the interface requests, the same on x86-64 and arm64.

// linux/if_tun.h
export const TUNSETIFF = 0x400454ca;
export const TUNSETOFFLOAD = 0x400454d0;
export const TUNGETIFF = 0x800454d2;
export const TUNSETVNETHDRSZ = 0x400454d8;
export const TUNSETVNETLE = 0x400454dc;
export const TUNSETCARRIER = 0x400454e2;
export const IFF_TAP = 0x0002;
export const IFF_MULTI_QUEUE = 0x0100;
export const IFF_NO_PI = 0x1000;
export const IFF_VNET_HDR = 0x4000;
export const TUN_F_CSUM = 0x01;
export const TUN_F_TSO4 = 0x02;
export const TUN_F_TSO6 = 0x04;
export const TUN_F_TSO_ECN = 0x08;
/** USO4 and USO6: the kernel takes both or neither. */
export const TUN_F_USO = 0x60;

// linux/sockios.h, linux/if.h, linux/if_arp.h
export const SIOCGIFFLAGS = 0x8913;
export const SIOCSIFFLAGS = 0x8914;
export const SIOCGIFMTU = 0x8921;
export const SIOCSIFMTU = 0x8922;
export const SIOCSIFHWADDR = 0x8924;
export const IFF_UP = 1;
export const ARPHRD_ETHER = 1;

/** errno of every call on a device that somebody has deleted; Node has no name for it. */
export const EBADFD = 77;
