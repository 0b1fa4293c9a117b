// What to give QEMU, libvirt, cloud-hypervisor or testpmd for one port. Pure: a port in, text out.
// All four need guest memory that is shared with the switch; the memory is part of each answer.

export interface GuestPort {
  /** Becomes part of identifiers. */
  name: string;
  path: string;
  /** The switch's side: where it listens the guest connects, and the other way round. */
  mode: 'server' | 'client';
  mac: string;
  /** Queue pairs for the guest, 1-8. */
  queues: number;
  /** IP packet size, bytes. */
  mtu?: number | undefined;
}

export interface GuestOptions {
  /** Guest memory, MiB. */
  memory: number;
  /** QEMU's chardev option that makes it come back after the switch restarts, if wanted. */
  reconnect?: 'reconnect=1' | 'reconnect-ms=1000' | undefined;
  /** Whether testpmd can have its memory in huge pages. */
  hugePages?: boolean;
  /** Ask for packed virtqueues; cloud-hypervisor has none. */
  packed?: boolean;
}

/** One option and its value, as two arguments of a command line. */
export type Argument = readonly [option: string, value?: string];

/** `512M`, `4G` or a number of MiB, to MiB; undefined if it is neither, or 0. */
export function parseMemory(text: string): number | undefined {
  const match = /^(\d{1,7})([MG]?)(?:i?B)?$/i.exec(text);
  if (match === null) return undefined;
  const size = Number(match[1]) * (match[2]?.toUpperCase() === 'G' ? 1024 : 1);
  return size > 0 ? size : undefined;
}

export function qemuArgs(port: GuestPort, options: GuestOptions): Argument[] {
  // In QEMU's option syntax a comma in a value is doubled; identifiers take what port names take.
  const path = port.path.replaceAll(',', ',,');
  const char = `chr-${port.name}`;
  const net = `net-${port.name}`;
  const socket = [`socket,id=${char},path=${path}`];
  if (port.mode === 'client') socket.push('server=on,wait=off');
  else if (options.reconnect) socket.push(options.reconnect);
  const netdev = [`type=vhost-user,id=${net},chardev=${char}`];
  const device = [`virtio-net-pci,netdev=${net},mac=${port.mac}`];
  if (port.queues > 1) {
    netdev.push(`queues=${port.queues}`);
    // A vector for each ring, one for the control queue and one for configuration changes.
    device.push(`mq=on,vectors=${2 * port.queues + 2}`);
  }
  if (port.mtu !== undefined) device.push(`host_mtu=${port.mtu}`);
  if (options.packed) device.push('packed=on');
  return [
    ['-m', `${options.memory}M`],
    ['-object', `memory-backend-memfd,id=mem,size=${options.memory}M,share=on`],
    ['-numa', 'node,memdev=mem'],
    ['-chardev', socket.join(',')],
    ['-netdev', netdev.join(',')],
    ['-device', device.join(',')],
  ];
}

export function cloudHypervisorArgs(port: GuestPort, options: GuestOptions): Argument[] {
  const net = [`vhost_user=true,socket=${port.path},mac=${port.mac}`];
  if (port.mode === 'client') net.push('vhost_mode=server');
  // It counts rings, not pairs.
  net.push(`num_queues=${2 * port.queues}`);
  if (port.mtu !== undefined) net.push(`mtu=${port.mtu}`);
  return [
    ['--memory', `size=${options.memory}M,shared=on`],
    ['--net', net.join(',')],
  ];
}

/** DPDK's testpmd on a virtio-user device: EAL options, and after `--` testpmd's own. */
export function testpmdArgs(port: GuestPort, options: GuestOptions): Argument[] {
  const vdev = [`net_virtio_user0,path=${port.path},mac=${port.mac},queues=${port.queues}`];
  if (port.mode === 'client') vdev.push('server=1');
  if (options.packed) vdev.push('packed_vq=1');
  const queues: Argument[] =
    port.queues > 1 ? [[`--rxq=${port.queues}`], [`--txq=${port.queues}`]] : [];
  return [
    ['--no-pci'],
    [`--file-prefix=${port.name}`],
    ['-m', String(options.memory)],
    // One file for all memory: a vhost-user front end can pass only so many descriptors.
    ...(options.hugePages ? ([['--single-file-segments']] as const) : ([['--no-huge']] as const)),
    [`--vdev=${vdev.join(',')}`],
    ['--'],
    ['-i'],
    // Its default for a few cores, 155456 of 2 KiB, does not fit into 512 MiB.
    ['--total-num-mbufs=16384'],
    ...queues,
  ];
}

/** The two pieces of a libvirt domain, each under a comment that says where it goes. */
export function libvirtXml(port: GuestPort, options: GuestOptions): string {
  const own = port.mode === 'client' ? 'server' : 'client';
  const source = `type='unix' path='${escapeXml(port.path)}' mode='${own}'`;
  const driver = [
    ...(port.queues > 1 ? [`queues='${port.queues}'`] : []),
    ...(options.packed ? ["packed='on'"] : []),
  ];
  const reconnects = options.reconnect !== undefined && own === 'client';
  const lines = [
    '<!-- in <domain> -->',
    `<memory unit='MiB'>${options.memory}</memory>`,
    '<memoryBacking>',
    "  <source type='memfd'/>",
    "  <access mode='shared'/>",
    '</memoryBacking>',
    '',
    '<!-- in <devices> -->',
    "<interface type='vhostuser'>",
    `  <mac address='${port.mac}'/>`,
    ...(reconnects
      ? [`  <source ${source}>`, "    <reconnect enabled='yes' timeout='1'/>", '  </source>']
      : [`  <source ${source}/>`]),
    "  <model type='virtio'/>",
    ...(driver.length > 0 ? [`  <driver name='vhost' ${driver.join(' ')}/>`] : []),
    ...(port.mtu === undefined ? [] : [`  <mtu size='${port.mtu}'/>`]),
    '</interface>',
  ];
  return `${lines.join('\n')}\n`;
}

/** Arguments for a shell, joined by `separator`: by default one option a line, for pasting. */
export function shellLines(lines: readonly Argument[], separator = ' \\\n'): string {
  const words = lines.map((argument) => argument.map((word) => shellWord(word ?? '')).join(' '));
  return `${words.join(separator)}\n`;
}

function shellWord(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function escapeXml(text: string): string {
  const names: Record<string, string> = {
    '&': 'amp',
    '<': 'lt',
    '>': 'gt',
    "'": 'apos',
    '"': 'quot',
  };
  return text.replace(/[&<>'"]/g, (c) => `&${names[c]};`);
}
