// TAP devices: the kernel's network interfaces of which this process has the other end, frame by frame
// (Documentation/networking/tuntap.rst, linux/if_tun.h).

import { MAC_PATTERN } from '../limits.ts';
import { ERRNO, SystemError } from './errors.ts';
import { close } from './eventfd.ts';
import { checked, lastError, libc, permanentScratch } from './ffi.ts';
import {
  ARPHRD_ETHER,
  EBADFD,
  IFF_MULTI_QUEUE,
  IFF_NO_PI,
  IFF_TAP,
  IFF_UP,
  IFF_VNET_HDR,
  SIOCGIFFLAGS,
  SIOCGIFMTU,
  SIOCSIFFLAGS,
  SIOCSIFHWADDR,
  SIOCSIFMTU,
  TUN_F_CSUM,
  TUN_F_TSO_ECN,
  TUN_F_TSO4,
  TUN_F_TSO6,
  TUN_F_USO,
  TUNGETIFF,
  TUNSETCARRIER,
  TUNSETIFF,
  TUNSETOFFLOAD,
  TUNSETVNETHDRSZ,
  TUNSETVNETLE,
} from './if-tun.ts';

const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;

/** Most queues a Tap may have. */
export const MAX_TAP_QUEUES = 8;
/** Bytes of an interface's name (IFNAMSIZ, with the zero behind it). */
const NAME_SIZE = 16;

const cOpen = libc.func('int open(const char *path, int flags)');
const cSocket = libc.func('int socket(int domain, int type, int protocol)');
const cIoctl = libc.func('int ioctl(int fd, unsigned long request, uintptr_t argument)');

// Scratch: a struct ifreq (40 bytes): the name, and at 16 what the request is about; or an int at 0.
const VALUE = NAME_SIZE;
const { bytes, view, address } = permanentScratch(128);

/** What a TAP device cannot do or be, in one sentence that names the device and the cure. */
export class TapError extends Error {
  override name = 'TapError';
  /** Of the system call that failed, as `EBUSY`. */
  readonly code: string | undefined;

  constructor(device: string, sentence: string, cause?: SystemError, code = cause?.code) {
    super(`TAP ${device}: ${sentence}`, { cause });
    this.code = code;
  }
}

export interface TapOptions {
  /**
   * 1-15 characters; in `%d` the kernel puts a number. Made if it is not there, and gone with close();
   * a persistent one (`ip tuntap add`) is attached to, and stays.
   */
  name: string;
  /** Queues, 1-8, an fd each; the kernel spreads flows over them. Default 1. */
  queues?: number;
  /** Bytes of virtio-net header (little endian) in front of each frame: 12, or 0 for none. */
  header: 0 | 12;
}

/** What the kernel may leave to who reads: sums not made, segments not cut. */
export interface TapOffloads {
  csum?: boolean;
  /** The others need csum; ecn needs tso4 or tso6. */
  tso4?: boolean;
  tso6?: boolean;
  ecn?: boolean;
  /** UDP over IPv4 and IPv6 (Linux 6.2). */
  uso?: boolean;
}

/** A TAP device, open. Its interface is looked for in the network namespace of the calling thread. */
export class Tap {
  readonly name: string;
  /** One for each queue, non-blocking and CLOEXEC: a frame a read or write. They are the Tap's. */
  readonly fds: number[];
  readonly header: 0 | 12;

  /** Made by openTap. */
  constructor(name: string, fds: number[], header: 0 | 12) {
    this.name = name;
    this.fds = fds;
    this.header = header;
  }

  /**
   * What the kernel may leave to the reader, of all queues; none at first. Frames written may have any
   * of it at all times. Throws RangeError for what needs something else, TapError where the kernel has no uso.
   */
  setOffloads({ csum, tso4, tso6, ecn, uso }: TapOffloads): void {
    if (this.header === 0 && csum) throw new RangeError('TAP offloads need the virtio-net header');
    if ((tso4 || tso6 || uso) && !csum) throw new RangeError('TAP offloads: tso and uso need csum');
    if (ecn && !(tso4 || tso6)) throw new RangeError('TAP offloads: ecn needs tso4 or tso6');
    const bits =
      (csum ? TUN_F_CSUM : 0) |
      (tso4 ? TUN_F_TSO4 : 0) |
      (tso6 ? TUN_F_TSO6 : 0) |
      (ecn ? TUN_F_TSO_ECN : 0) |
      (uso ? TUN_F_USO : 0);
    try {
      onDevice(this.fds[0]!, TUNSETOFFLOAD, 'TUNSETOFFLOAD', this.name, bits);
    } catch (error) {
      if (!(uso && error instanceof SystemError && error.errno === ERRNO.EINVAL)) throw error;
      const cure = 'this kernel leaves no UDP uncut: do without uso, or take Linux 6.2 or later';
      throw new TapError(this.name, cure, error);
    }
  }

  /** Whether the interface is up. Throws SystemError. */
  get up(): boolean {
    return (this.#flags() & IFF_UP) !== 0;
  }

  /** Throws TapError without CAP_NET_ADMIN. While it is down, writes end with EIO. */
  setUp(up: boolean): void {
    const flags = this.#flags();
    view.setInt16(VALUE, up ? flags | IFF_UP : flags & ~IFF_UP, true);
    this.#change(SIOCSIFFLAGS, 'SIOCSIFFLAGS', up ? 'up' : 'down');
  }

  /** Bytes of the largest packet, the Ethernet header not counted. Throws SystemError. */
  mtu(): number {
    this.#ask(SIOCGIFMTU, 'SIOCGIFMTU');
    return view.getInt32(VALUE, true);
  }

  /** Bytes, 68-65521. Throws TapError without CAP_NET_ADMIN, SystemError (EINVAL). */
  setMtu(mtu: number): void {
    this.#findName();
    view.setInt32(VALUE, mtu, true);
    this.#change(SIOCSIFMTU, 'SIOCSIFMTU', `mtu ${mtu}`);
  }

  /** The kernel's own address. Who has the device open may change it. Throws RangeError, SystemError. */
  setMac(mac: string): void {
    if (!MAC_PATTERN.test(mac)) throw new RangeError(`${mac} is no unicast MAC address`);
    bytes.fill(0, 0, 40);
    view.setUint16(VALUE, ARPHRD_ETHER, true);
    bytes.set(Buffer.from(mac.replaceAll(':', ''), 'hex'), VALUE + 2);
    onDevice(this.fds[0]!, SIOCSIFHWADDR, 'SIOCSIFHWADDR', this.name);
  }

  /** Carrier, as of a cable plugged in; on at first. Throws SystemError. */
  setCarrier(on: boolean): void {
    setInt(this.fds[0]!, TUNSETCARRIER, 'TUNSETCARRIER', this.name, on ? 1 : 0);
  }

  /** Closes every queue; with the last one the device goes, unless persistent. Repeating it does nothing. */
  close(): void {
    for (const fd of this.fds.splice(0)) close(fd);
  }

  #flags(): number {
    this.#ask(SIOCGIFFLAGS, 'SIOCGIFFLAGS');
    return view.getInt16(VALUE, true);
  }

  #ask(request: number, call: string): void {
    this.#findName();
    onSocket(request, call, this.name);
  }

  /** Puts the interface's name of today where a request has it: somebody may have given it another. */
  #findName(): void {
    onDevice(this.fds[0]!, TUNGETIFF, 'TUNGETIFF', this.name);
  }

  #change(request: number, call: string, setting: string): void {
    try {
      onSocket(request, call, this.name);
    } catch (error) {
      if (!(error instanceof SystemError && error.errno === ERRNO.EPERM)) throw error;
      const cure = `needs root or CAP_NET_ADMIN: \`sudo ip link set ${this.name} ${setting}\``;
      throw new TapError(this.name, cure, error);
    }
  }
}

/**
 * Opens a TAP device in the network namespace of the calling thread; without offloads, and as up or down
 * as it is. Throws RangeError for options that cannot be, TapError with the cure, SystemError.
 */
export function openTap({ name, queues = 1, header }: TapOptions): Tap {
  checkName(name);
  if (!(Number.isInteger(queues) && queues >= 1 && queues <= MAX_TAP_QUEUES)) {
    throw new RangeError(`TAP ${name}: ${queues} queues; it may have 1 to ${MAX_TAP_QUEUES}`);
  }
  const fds: number[] = [];
  try {
    let actual = name;
    while (fds.length < queues) {
      fds.push(openDevice(name));
      actual = attach(fds.at(-1)!, { name: actual, queues, header });
    }
    const fd = fds[0]!;
    if (header !== 0) {
      setInt(fd, TUNSETVNETHDRSZ, 'TUNSETVNETHDRSZ', actual, header);
      setInt(fd, TUNSETVNETLE, 'TUNSETVNETLE', actual, 1);
    }
    // A persistent device has those of who had it before.
    onDevice(fd, TUNSETOFFLOAD, 'TUNSETOFFLOAD', actual, 0);
    return new Tap(actual, fds, header);
  } catch (error) {
    for (const fd of fds) close(fd);
    throw error;
  }
}

/** dev_valid_name() and dev_alloc_name() in net/core/dev.c. */
function checkName(name: string): void {
  const length = Buffer.byteLength(name);
  const plain = name.replace('%d', '').replaceAll('\0', ':');
  if (length > 0 && length < NAME_SIZE && !/[/:%\s]|^\.{1,2}$/.test(plain)) return;
  throw new RangeError(
    `"${name}" is no name for a TAP: 1 to ${NAME_SIZE - 1} bytes without space, slash or colon`,
  );
}

function openDevice(name: string): number {
  const fd = cOpen('/dev/net/tun', O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd >= 0) return fd;
  const cause = lastError('open', '/dev/net/tun');
  const cures: Record<string, string> = {
    ENOENT: 'there is no /dev/net/tun: `sudo modprobe tun`, or give it to the container',
    ENODEV: 'nothing is behind /dev/net/tun: `sudo modprobe tun`',
    EACCES: '/dev/net/tun may not be opened: needs root, or `sudo chmod 666 /dev/net/tun`',
    EPERM: '/dev/net/tun may not be opened: give it to the container',
  };
  const cure = cures[cause.code];
  throw cure === undefined ? cause : new TapError(name, cure, cause);
}

/** Makes fd a queue of the device, and returns the device's name. */
function attach(fd: number, options: Required<TapOptions>): string {
  const { name, queues, header } = options;
  const flags = IFF_TAP | IFF_NO_PI | (header === 0 ? 0 : IFF_VNET_HDR);
  let result = setInterface(fd, name, queues > 1 ? flags | IFF_MULTI_QUEUE : flags);
  // A persistent device of many queues may be used with one, but not as one that has no more.
  if (result?.errno === ERRNO.EINVAL && queues === 1) {
    result = setInterface(fd, name, flags | IFF_MULTI_QUEUE);
  }
  if (result !== undefined) throw attachError(result, options);
  onDevice(fd, TUNGETIFF, 'TUNGETIFF', name);
  // With a queue open elsewhere the device stays what it is there, whatever was asked for.
  const headers = (view.getUint16(VALUE, true) & IFF_VNET_HDR) !== 0;
  if (headers !== (header !== 0)) {
    const how = headers ? 'with' : 'without';
    throw new TapError(name, `somebody else has it open ${how} virtio-net headers: close it there`);
  }
  return bytes.toString('utf8', 0, bytes.indexOf(0));
}

function setInterface(fd: number, name: string, flags: number): SystemError | undefined {
  bytes.fill(0, 0, 40);
  bytes.write(name);
  view.setUint16(VALUE, flags, true);
  return cIoctl(fd, TUNSETIFF, address) === 0 ? undefined : lastError('TUNSETIFF', name);
}

function attachError(cause: SystemError, { name, queues, header }: Required<TapOptions>): Error {
  const make =
    `ip tuntap add ${name} mode tap user $USER` +
    `${queues > 1 ? ' multi_queue' : ''}${header === 0 ? '' : ' vnet_hdr'}`;
  const many = `is no TAP of many queues: \`sudo ip tuntap del ${name} mode tap\`, then \`sudo ${make}\``;
  const cures: Record<string, string> = {
    EPERM: `needs root or CAP_NET_ADMIN: use sudo, or make it once with \`sudo ${make}\``,
    EBUSY: 'somebody else has it open: stop that program, or take another name',
    E2BIG: 'somebody else has its queues open: stop that program, or ask for fewer',
    EINVAL: queues > 1 ? many : 'there is a device of that name that is no TAP: take another name',
  };
  const cure = cures[cause.code];
  return cure === undefined ? cause : new TapError(name, cure, cause);
}

function setInt(fd: number, request: number, call: string, subject: string, value: number): void {
  view.setInt32(0, value, true);
  onDevice(fd, request, call, subject);
}

/** A request of the device's own. Throws TapError where the device is gone, SystemError. */
function onDevice(fd: number, request: number, call: string, name: string, value = address): void {
  if (cIoctl(fd, request, value) === 0) return;
  const cause = lastError(call, name);
  if (cause.errno !== EBADFD) throw cause;
  const cure = 'somebody has deleted the device: close it, and open it anew';
  throw new TapError(name, cure, cause, 'EBADFD');
}

/** A request about an interface, which is in the scratch: any socket takes it. */
function onSocket(request: number, call: string, subject: string): void {
  const fd = checked(cSocket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  try {
    checked(cIoctl(fd, request, address), call, subject);
  } finally {
    close(fd);
  }
}
