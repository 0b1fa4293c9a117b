// A guest's network card as QEMU arguments: the back end (-netdev) and the device.

export type Backend =
  /** A vhost-user socket: QEMU connects, or listens with `server`. `reconnect` is in seconds. */
  | { vhostUser: string; queues?: number; server?: boolean; reconnect?: number }
  /** Frames over a unix stream socket between two QEMUs, one of them with `server`. */
  | { stream: string; server?: boolean }
  /** An existing TAP device with virtio-net headers, handled by QEMU itself. */
  | { tap: string; queues?: number }
  /** Any other -netdev, without its id: ['user', 'restrict=on']. */
  | { netdev: string[] };

export interface Nic {
  backend: Backend;
  /** 52:54:00:… chosen from the guest's name and the card's number if left out. */
  mac?: string;
  /**
   * Properties of virtio-net-pci (mrg_rxbuf, indirect_desc, event_idx, packed, csum, host_tso4,
   * guest_tso4, rx_queue_size, …); true and false stand for on and off.
   * A vhost-user card gets vectors=0: QEMU 7.2 under TCG crashes when one starts with MSI-X.
   */
  device?: Record<string, string | number | boolean>;
  /** With QEMU's own network boot ROM. (One named with romfile= does not get the card's ids.) */
  rom?: boolean;
}

/** The socket this back end makes, and the one that must exist before QEMU starts, if any. */
export function sockets({ backend }: Nic): { makes?: string; needs?: string } {
  const path =
    'vhostUser' in backend ? backend.vhostUser : 'stream' in backend ? backend.stream : undefined;
  if (path === undefined) return {};
  if ('server' in backend && backend.server) return { makes: path };
  return 'reconnect' in backend && backend.reconnect ? {} : { needs: path };
}

export function nicArguments(nic: Nic, index: number, mac: string): string[] {
  const { backend } = nic;
  const id = `net${index}`;
  const args: string[] = [];
  const device: Record<string, string | number | boolean> = { netdev: id, mac };
  if (!nic.rom) device.romfile = '';
  const netdev = (...parts: (string | undefined | false)[]): void => {
    const [type, ...rest] = parts.filter((part) => typeof part === 'string');
    args.push('-netdev', [type, `id=${id}`, ...rest].join(','));
  };
  let queues = 1;
  if ('vhostUser' in backend) {
    queues = backend.queues ?? 1;
    const chardev = ['socket', `id=char${index}`, `path=${checkPath(backend.vhostUser)}`];
    if (backend.server) chardev.push('server=on', 'wait=off');
    if (backend.reconnect) chardev.push(`reconnect=${backend.reconnect}`);
    args.push('-chardev', chardev.join(','));
    netdev('vhost-user', `chardev=char${index}`, queues > 1 && `queues=${queues}`);
    device.vectors = 0;
  } else if ('stream' in backend) {
    const server = backend.server ? 'on' : 'off';
    netdev(
      'stream',
      `server=${server}`,
      'addr.type=unix',
      `addr.path=${checkPath(backend.stream)}`,
    );
  } else if ('tap' in backend) {
    queues = backend.queues ?? 1;
    netdev(
      'tap',
      `ifname=${backend.tap}`,
      'script=no',
      'downscript=no',
      'vhost=off',
      queues > 1 && `queues=${queues}`,
    );
  } else {
    netdev(...backend.netdev);
  }
  if (queues > 1) device.mq = true;
  const options = Object.entries({ ...device, ...nic.device }).map(([key, value]) => {
    if (typeof value !== 'boolean') return `${key}=${value}`;
    return `${key}=${value ? 'on' : 'off'}`;
  });
  args.push('-device', ['virtio-net-pci', ...options].join(','));
  return args;
}

/** sun_path holds 107 bytes and a NUL; QEMU's own message does not say which socket it was. */
export function checkPath(path: string): string {
  if (Buffer.byteLength(path) > 107) throw new Error(`socket path over 107 bytes: ${path}`);
  return path;
}
