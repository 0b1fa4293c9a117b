// The guest's file system, as a newc cpio archive: busybox, the virtio modules, iperf3, ethtool and
// an init that serves commands on the second serial port (protocol in guest.ts).

import { execFileSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { rename, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { guestCache } from './process.ts';

/** In load order: insmod resolves no dependencies. */
const modules = [
  'drivers/virtio/virtio_ring.ko',
  'drivers/virtio/virtio.ko',
  'drivers/virtio/virtio_pci_legacy_dev.ko',
  'drivers/virtio/virtio_pci_modern_dev.ko',
  'drivers/virtio/virtio_pci.ko',
  'net/core/failover.ko',
  'drivers/net/net_failover.ko',
  'drivers/net/virtio_net.ko',
];
/** Carried, not loaded: `insmod /modules/pktgen.ko` makes the kernel's packet generator. */
const spareModules = [
  'net/core/pktgen.ko',
  // VLANs, in load order.
  'net/llc/llc.ko',
  'net/802/stp.ko',
  'net/802/garp.ko',
  'net/802/mrp.ko',
  'net/8021q/8021q.ko',
  'drivers/virtio/virtio_mem.ko',
];

/** busybox's own nc moves 1 KiB at a time. */
const commands = ['iperf3', 'ethtool', 'tcpdump', 'nc.openbsd'];

/**
 * Each line on the port is `ID BASE64` (run that shell script) or `kill` (end the running one and
 * all it started). A finished command answers its output, then a line `@@ID:STATUS@@`.
 * One loop reads on while a command runs, so that `kill` is heard, and another runs the commands.
 * The first must have no children, nor be process 1 that inherits orphans: a SIGCHLD during ash's
 * `read` loses what it has read of the line.
 */
const init = `#!/bin/sh
export PATH=/bin HOME=/ LD_LIBRARY_PATH=/lib
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
for module in ${modules.map((path) => basename(path)).join(' ')}; do insmod /modules/$module; done
ip link set lo up
stty -F /dev/ttyS1 raw -echo clocal
exec < /dev/ttyS1 > /dev/ttyS1
printf '\\n@@ready:0@@\\n'
while read -r id script; do
  if [ "$id" = kill ]; then
    read -r pid < /tmp/running && kill -KILL -$pid
  else
    echo "$id $script"
  fi
done 2> /dev/null | while read -r id script; do
  echo "$script" | base64 -d > /tmp/script
  setsid sh /tmp/script < /dev/null > /dev/ttyS1 2>&1 &
  echo $! > /tmp/running
  wait $!
  status=$?
  : > /tmp/running
  printf '\\n@@%s:%s@@\\n' $id $status > /dev/ttyS1
done 2> /dev/null
`;

export interface GuestImages {
  kernel: string;
  initrd: string;
}

/**
 * Paths of the kernel that script/peers unpacked and of an initramfs to match, which is built if
 * its inputs have changed. Safe to call from several processes at once.
 */
export async function guestImages(): Promise<GuestImages> {
  const linux = join(guestCache, 'linux');
  const boot = join(linux, 'boot');
  const kernel = existsSync(boot) && readdirSync(boot).find((name) => name.startsWith('vmlinuz-'));
  if (!kernel) throw new Error(`no guest kernel in ${boot}: run script/peers`);
  const release = kernel.slice('vmlinuz-'.length);
  const archive = build(join(linux, 'lib/modules', release, 'kernel'));
  const hash = createHash('sha256').update(archive).digest('hex').slice(0, 16);
  const initrd = join(guestCache, `initramfs-${hash}.cpio`);
  if (!existsSync(initrd)) {
    const old = readdirSync(guestCache).filter((name) => /^initramfs-\w+\.cpio$/.test(name));
    const draft = `${initrd}.${randomUUID()}`;
    await writeFile(draft, archive);
    await rename(draft, initrd);
    for (const name of old) rmSync(join(guestCache, name), { force: true });
  }
  return { kernel: join(boot, kernel), initrd };
}

function build(moduleRoot: string): Buffer {
  const busybox = onPath('busybox');
  const entries: Entry[] = [
    'bin',
    'dev',
    'lib',
    'lib64',
    'modules',
    'proc',
    'sys',
    'tmp',
    'etc',
  ].map((path) => ({ path, mode: 0o040755, data: Buffer.alloc(0) }));
  const file = (path: string, data: Buffer): void => {
    entries.push({ path, mode: 0o100755, data });
  };
  file('init', Buffer.from(init));
  // ping and iperf3 look up protocol names.
  file('etc/protocols', Buffer.from('icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\n'));
  file('etc/passwd', Buffer.from('root::0:0:root:/:/bin/sh\n'));
  file('bin/busybox', readFileSync(busybox));
  for (const applet of run(busybox, ['--list']).trim().split('\n')) {
    if (applet === 'busybox') continue;
    entries.push({ path: `bin/${applet}`, mode: 0o120777, data: Buffer.from('busybox') });
  }
  const libraries = new Set<string>();
  for (const command of commands) {
    const binary = onPath(command);
    file(`bin/${command}`, readFileSync(binary));
    for (const [, path] of run('ldd', [binary]).matchAll(/(\/\S+) \(0x/g)) {
      if (path) libraries.add(path);
    }
  }
  for (const path of libraries) {
    const folder = path.startsWith('/lib64/') ? 'lib64' : 'lib';
    file(`${folder}/${basename(path)}`, readFileSync(realpathSync(path)));
  }
  for (const path of [...modules, ...spareModules]) {
    file(`modules/${basename(path)}`, readFileSync(join(moduleRoot, path)));
  }
  return newc(entries);
}

/** An archive to append to an initramfs: files of ours (values) at the guest's paths (keys). */
export function extraFiles(files: Record<string, string>): Buffer {
  const folders = new Set(Object.keys(files).map((path) => dirname(path)));
  return newc([
    ...[...folders].map((path) => ({ path, mode: 0o040755, data: Buffer.alloc(0) })),
    ...Object.entries(files).map(([path, source]) => {
      return { path, mode: 0o100755, data: readFileSync(source) };
    }),
  ]);
}

interface Entry {
  path: string;
  /** File type and permissions, as in stat. */
  mode: number;
  /** Contents; for a symbolic link its target. */
  data: Buffer;
}

/** The kernel's "new ASCII" cpio: 110 bytes of hex fields, the name, the data, each padded to 4. */
function newc(entries: Entry[]): Buffer {
  const parts: Buffer[] = [];
  const pad = (length: number): Buffer => Buffer.alloc(-length & 3);
  const trailer = { path: 'TRAILER!!!', mode: 0, data: Buffer.alloc(0) };
  [...entries, trailer].forEach(({ path, mode, data }, index) => {
    const name = Buffer.from(`${path}\0`);
    // Inode, mode, uid, gid, links, mtime, size, device numbers (4), name length, checksum.
    const fields = [index + 1, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length, 0];
    const head = `070701${fields.map((n) => n.toString(16).padStart(8, '0')).join('')}`;
    parts.push(Buffer.from(head), name, pad(head.length + name.length), data, pad(data.length));
  });
  return Buffer.concat(parts);
}

function run(command: string, args: string[]): string {
  return execFileSync(command, args, { encoding: 'utf8' });
}

function onPath(command: string): string {
  return run('sh', ['-c', `PATH=$PATH:/usr/sbin:/sbin; command -v ${command}`]).trim();
}
