// Open vSwitch with DPDK, started by hand in a folder of its own: a database, the switch, one bridge
// in userspace, two vhost-user ports that listen. script/peers unpacks it into .cache/ovs.

import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Child, exec, root, waitFor } from '../../test/peers/process.ts';

const tree = join(root, '.cache/ovs');
const daemon = join(tree, 'usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk');
const tool = (name: string): string => join(tree, 'usr/bin', name);
/** Where the programs would look for a system's own. */
const data = join(tree, 'usr/share/openvswitch');

/** Why it cannot run here, and the cure; undefined if it can. */
export function lacksOvs(): string | undefined {
  return existsSync(daemon) ? undefined : 'no OVS-DPDK in .cache/ovs: run script/peers';
}

/** What it says of itself, such as `3.1.0, DPDK 22.11.7`. */
export async function ovsVersion(): Promise<string> {
  const text = await exec(daemon, ['--version']);
  const [, own = '?', dpdk = ''] = /Open vSwitch\) (\S+)(?:\s+(DPDK \S+))?/.exec(text) ?? [];
  return [own, dpdk].filter(Boolean).join(', ');
}

export interface Ovs {
  /** The lines that set it up. */
  commands: string[];
  /** Cycles of polls that found frames, and these frames, since the last call. */
  busy(): Promise<{ frames: number; ns: number }>;
  stop(): Promise<void>;
}

export interface OvsOptions {
  /** Where its sockets and database live; the ports listen in it too. */
  folder: string;
  /** Paths in `folder` that its two ports listen on; what comes in at one leaves at the other. */
  sockets: readonly [string, string];
  /** Those of `sockets` that it connects to instead. */
  clients?: readonly string[];
  /** CPU of the thread that polls, and of the rest. */
  pmdCpu: number;
  mainCpu: number;
  /** Whether its packets live in huge pages: 256 of 2 MiB. */
  hugePages: boolean;
}

export async function startOvs(options: OvsOptions): Promise<Ovs> {
  const { folder, sockets, clients = [], pmdCpu, mainCpu, hugePages } = options;
  const env = {
    OVS_RUNDIR: folder,
    OVS_LOGDIR: folder,
    OVS_DBDIR: folder,
    OVS_SYSCONFDIR: folder,
    OVS_PKGDATADIR: data,
  };
  const cpus = `${mainCpu}`;
  const db = join(folder, 'ovs.db');
  const dbSocket = `unix:${folder}/db.sock`;
  const control = join(folder, 'ovs.ctl');
  await exec(tool('ovsdb-tool'), ['create', db, join(data, 'vswitch.ovsschema')], { env });
  const children: Child[] = [];
  const stop = async (): Promise<void> => {
    for (const child of children.reverse()) child.kill('SIGTERM');
    for (const child of children) await child.finish(10_000);
  };
  const start = (command: string, args: string[]): Child => {
    const child = new Child(command, [...args, '-vfile:off'], { env, cpus });
    children.push(child);
    return child;
  };
  const vsctl = (...args: string[]): Promise<string> =>
    exec(tool('ovs-vsctl'), [`--db=${dbSocket}`, '--no-wait', ...args], { env });

  try {
    const server = start(join(tree, 'usr/sbin/ovsdb-server'), [
      ...[db, `--remote=p${dbSocket}`, `--unixctl=${folder}/db.ctl`, '--no-chdir'],
    ]);
    await waitFor(
      () => existsSync(`${folder}/db.sock`),
      5000,
      'ovsdb-server',
      () => server.tail(),
    );
    const memory = hugePages
      ? { 'dpdk-socket-mem': '512', 'dpdk-extra': '"--no-pci --in-memory --no-telemetry"' }
      : {
          // Left out, OVS adds --in-memory, which EAL takes with huge pages only.
          'dpdk-extra': '"--no-pci --no-huge --legacy-mem -m 512 --no-telemetry"',
          // One pool for all ports begins with more than that.
          'per-port-memory': 'true',
        };
    const config = {
      'dpdk-init': 'true',
      'dpdk-lcore-mask': `0x${(1 << mainCpu).toString(16)}`,
      'pmd-cpu-mask': `0x${(1 << pmdCpu).toString(16)}`,
      ...memory,
    };
    const settings = Object.entries(config).map(([name, value]) => `other_config:${name}=${value}`);
    const ports = sockets.map((path, index) => {
      const name = basename(path);
      const type = clients.includes(path)
        ? `type=dpdkvhostuserclient options:vhost-server-path=${path}`
        : 'type=dpdkvhostuser';
      return `add-port br0 ${name} -- set Interface ${name} ${type} ofport_request=${index + 1}`;
    });
    const bridge = 'add-br br0 -- set Bridge br0 datapath_type=netdev fail-mode=secure';
    await vsctl('init');
    await vsctl('set', 'Open_vSwitch', '.', ...settings);
    for (const line of [bridge, ...ports]) await vsctl(...line.split(' '));
    const vswitchd = start(daemon, [dbSocket, `--unixctl=${control}`, '--no-chdir']);
    const ready = () => {
      if (vswitchd.exit !== undefined) throw new Error(`ovs-vswitchd-dpdk:\n${vswitchd.tail()}`);
      const listening = sockets.filter((path) => !clients.includes(path));
      return [...listening, `${folder}/br0.mgmt`].every((path) => existsSync(path));
    };
    await waitFor(ready, 20_000, 'ovs-vswitchd-dpdk', () => vswitchd.tail());
    const flows = ['in_port=1,actions=output:2', 'in_port=2,actions=output:1'];
    for (const flow of flows) {
      await exec(tool('ovs-ofctl'), ['add-flow', `unix:${folder}/br0.mgmt`, flow], { env });
    }
    let since = performance.now();
    const appctl = (command: string): Promise<string> =>
      exec(tool('ovs-appctl'), ['-t', control, `dpif-netdev/${command}`], { env });
    return {
      commands: [
        `ovs-vsctl set Open_vSwitch . ${settings.join(' ')}`,
        ...[bridge, ...ports].map((line) => `ovs-vsctl ${line}`),
        ...flows.map((flow) => `ovs-ofctl add-flow br0 ${flow}`),
      ],
      async busy() {
        const text = await appctl('pmd-stats-show');
        const elapsed = performance.now() - since;
        await appctl('pmd-stats-clear');
        since = performance.now();
        const [, pmd = ''] = text.split(/^pmd thread/m);
        const [, busy, frames] =
          /processing cycles per packet: \S+ \((\d+)\/(\d+)\)/.exec(pmd) ?? [];
        const cycles = [...pmd.matchAll(/(?:idle|processing) cycles: (\d+)/g)].map(([, n]) =>
          Number(n),
        );
        // The thread never sleeps: all its cycles are the time between two calls.
        const total = cycles.reduce((sum, n) => sum + n, 0);
        return { frames: Number(frames ?? 0), ns: (Number(busy ?? 0) / total) * elapsed * 1e6 };
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
