// What a testpmd is started with: its ports and its command line.

import { checkPath } from './nic.ts';

/** A virtio-user front end: it connects to `path`, or listens there with `server`. */
export interface VirtioUserPort {
  virtioUser: string;
  /** Queue pairs; 1 by default. */
  queues?: number;
  /** Ring size; 1024 by default. */
  queueSize?: number;
  server?: boolean;
  packed?: boolean;
  /** mrg_rxbuf and in_order: negotiated if the back end offers them, unless false. */
  mrgRxbuf?: boolean;
  inOrder?: boolean;
  /** DPDK's vector code paths: off unless true. */
  vectorized?: boolean;
  mac?: string;
}

/** A vhost back end: it listens on `path`, or connects (and retries each second) with `client`. */
export interface VhostPort {
  vhost: string;
  queues?: number;
  client?: boolean;
  /** Offer segmentation and checksum offloads to the front end. */
  tso?: boolean;
}

export type TestpmdPort = VirtioUserPort | VhostPort;

export interface TestpmdOptions {
  /** Unique among running DPDK programs: the EAL's --file-prefix. */
  name: string;
  ports: TestpmdPort[];
  /**
   * Where the mbufs live; the default is 'none'.
   * - 'none': `--no-huge`, one memfd of 4 KiB pages, which virtio-user can share (one
   *   region). It refuses --in-memory and --single-file-segments.
   * - 'huge': `--in-memory --single-file-segments`, hugetlb memfds without a hugetlbfs mount;
   *   needs `memory` / 2 free huge pages (/proc/sys/vm/nr_hugepages).
   */
  pages?: 'none' | 'huge';
  /** MiB for DPDK, 256 by default; much of the start is spent on touching it. */
  memory?: number;
  /** Packet buffers of 2176 B, 16384 by default. */
  mbufs?: number;
  /** Host CPUs of the main thread (prompt, vhost messages) and of the forwarder; 0 and 0. */
  mainCpu?: number;
  cpu?: number;
  /** io by default; also mac, macswap, txonly, rxonly, flowgen, csum, icmpecho, 5tswap, noisy. */
  forward?: string;
  /** Added to testpmd's own options, after `--`. */
  extraArgs?: string[];
  /** Added to EAL's options, before `--`. */
  ealArgs?: string[];
  /** For the start; 20 s by default. */
  timeoutMs?: number;
}

export function testpmdArguments(options: TestpmdOptions): string[] {
  const { name, ports, pages = 'none', mainCpu = 0, cpu = 0, forward = 'io' } = options;
  const queues = Math.max(...ports.map((port) => port.queues ?? 1));
  const memory = pages === 'none' ? ['--no-huge'] : ['--in-memory', '--single-file-segments'];
  const perQueue = queues > 1 ? [`--rxq=${queues}`, `--txq=${queues}`] : [];
  return [
    ...['--lcores', `0@${mainCpu},1@${cpu}`, '-m', `${options.memory ?? 256}`, ...memory],
    ...['--no-pci', '--no-telemetry', `--file-prefix=${name}`],
    ...ports.flatMap((port, index) => ['--vdev', device(port, index)]),
    ...(options.ealArgs ?? []),
    ...['--', '-i', '--nb-cores=1', `--forward-mode=${forward}`, ...perQueue],
    ...[
      '--rxd=1024',
      '--txd=1024',
      `--total-num-mbufs=${options.mbufs ?? 16384}`,
      ...(options.extraArgs ?? []),
    ],
  ];
}

/** The socket this port listens on, if it does. */
export function boundPath(port: TestpmdPort): string | undefined {
  if ('vhost' in port) return port.client ? undefined : port.vhost;
  return port.server ? port.virtioUser : undefined;
}

function device(port: TestpmdPort, index: number): string {
  const flag = (name: string, value: boolean | undefined): string[] =>
    value === undefined ? [] : [`${name}=${value ? 1 : 0}`];
  if ('vhost' in port) {
    return [
      `net_vhost${index}`,
      `iface=${checkPath(port.vhost)}`,
      `queues=${port.queues ?? 1}`,
      ...flag('client', port.client),
      ...flag('tso', port.tso),
    ].join(',');
  }
  return [
    `net_virtio_user${index}`,
    `path=${checkPath(port.virtioUser)}`,
    `queues=${port.queues ?? 1}`,
    `queue_size=${port.queueSize ?? 1024}`,
    ...flag('server', port.server),
    ...flag('packed_vq', port.packed),
    ...flag('mrg_rxbuf', port.mrgRxbuf),
    ...flag('in_order', port.inOrder),
    ...flag('vectorized', port.vectorized),
    ...(port.mac === undefined ? [] : [`mac=${port.mac}`]),
  ].join(',');
}
