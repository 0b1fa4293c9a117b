// What every peer needs: a child process that cannot outlive this one, bounded waiting, and the
// check that the peer is installed at all.

import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../../', import.meta.url));
/** Where script/peers puts the guest's kernel, and the tests the initramfs. */
export const guestCache = join(root, '.cache/guest');

const live = new Set<Child>();
const folders = new Set<string>();
process.on('exit', () => {
  for (const child of live) child.kill();
  for (const folder of folders) removeFolder(folder);
});

/** A new folder for sockets, short because their paths may have 107 bytes; gone when we exit. */
export function temporaryFolder(): string {
  const folder = mkdtempSync('/tmp/vhop-');
  folders.add(folder);
  return folder;
}

export function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
  folders.delete(folder);
}

export interface LaunchOptions {
  cwd?: string;
  env?: Record<string, string>;
  /** CPUs the process may use, such as '1' or '0,1'; all by default. */
  cpus?: string;
  /** A network namespace, named as in `ip netns`. */
  netns?: string;
}

/**
 * A child process with captured output. It is killed when this process exits, and by the kernel
 * (PR_SET_PDEATHSIG, inherited over exec) when this process is killed.
 */
export class Child {
  readonly name: string;
  readonly pid: number;
  /** Settles when the process is gone: its exit code, or the signal's name. */
  readonly exited: Promise<number | string>;
  /** The exit code or signal name, once it is gone. */
  exit: number | string | undefined;
  stdout = '';
  stderr = '';
  readonly #process: ChildProcess;

  constructor(command: string, args: readonly string[], options: LaunchOptions = {}) {
    this.name = command;
    const argv = ['setpriv', '--pdeathsig', 'KILL'];
    if (options.cpus !== undefined) argv.push('taskset', '-c', options.cpus);
    if (options.netns !== undefined) argv.push('nsenter', `--net=/run/netns/${options.netns}`);
    argv.push(command, ...args);
    const child = spawn(argv[0] ?? '', argv.slice(1), {
      cwd: options.cwd,
      env: { ...process.env, PATH: searchPath().join(delimiter), ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#process = child;
    this.pid = child.pid ?? 0;
    live.add(this);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    // The process may leave while we write to it; its exit tells, not EPIPE.
    child.stdin.on('error', () => {});
    this.exited = new Promise((resolve) => {
      const gone = (exit: number | string): void => {
        live.delete(this);
        this.exit = exit;
        resolve(exit);
      };
      child.on('error', (error) => {
        this.stderr += `${error.message}\n`;
        gone(127);
      });
      child.on('close', (code, signal) => gone(code ?? signal ?? 'unknown'));
    });
  }

  write(text: string): void {
    this.#process.stdin?.write(text);
  }

  /** Sends a signal, SIGKILL by default; nothing if the process is gone. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    if (this.exit === undefined) this.#process.kill(signal);
  }

  /** The last lines of both outputs, for an error message. */
  tail(lines = 20): string {
    return lastLines(`${this.stdout}\n${this.stderr}`, lines);
  }

  /** Waits for the process to end and returns its exit code; kills it and throws after `ms`. */
  async finish(ms: number): Promise<number | string> {
    const done = await Promise.race([
      this.exited.then(() => true),
      sleep(ms, false, { ref: false }),
    ]);
    if (!done) {
      this.kill();
      throw new Error(`${this.name} did not end within ${ms} ms\n${this.tail()}`);
    }
    return this.exit ?? 'unknown';
  }
}

/** Runs a command to its end; throws with its output unless it exits 0. Returns its stdout. */
export async function exec(
  command: string,
  args: readonly string[],
  options: LaunchOptions & { ms?: number } = {},
): Promise<string> {
  const child = new Child(command, args, options);
  const exit = await child.finish(options.ms ?? 10_000);
  if (exit !== 0) throw new Error(`${command} ${args.join(' ')}: exit ${exit}\n${child.tail()}`);
  return child.stdout;
}

export function lastLines(text: string, lines: number): string {
  return text.trimEnd().split('\n').slice(-lines).join('\n');
}

/** Polls until `condition` holds; throws after `ms`, naming `what` and adding `detail()`. */
export async function waitFor(
  condition: () => boolean | Promise<boolean>,
  ms: number,
  what: string,
  detail: () => string = () => '',
): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) {
      throw new Error(`${what}: not within ${ms} ms\n${detail()}`.trimEnd());
    }
    await sleep(10);
  }
}

/** Whether a command is on the path, the system directories included. */
export function have(command: string): boolean {
  return searchPath().some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

export type Peer = 'qemu' | 'testpmd' | 'net';

/**
 * True if the peers are here. Otherwise skips the test with the reason, or throws where the CI
 * variable is set: there a missing peer must not look like a pass.
 * 'net' stands for the right to make network namespaces, bridges and TAP devices.
 */
export function requirePeers(t: { skip(reason: string): void }, peers: readonly Peer[]): boolean {
  const reason = peers.map(lacks).find((lack) => lack !== undefined);
  if (reason === undefined) return true;
  if (process.env.CI) throw new Error(reason);
  t.skip(reason);
  return false;
}

function lacks(peer: Peer): string | undefined {
  const commands: Record<Peer, string[]> = {
    qemu: ['qemu-system-x86_64', 'busybox', 'iperf3', 'ethtool', 'nc.openbsd', 'setpriv'],
    testpmd: ['dpdk-testpmd', 'setpriv', 'stdbuf'],
    net: ['ip', 'unshare', 'nsenter'],
  };
  const missing = commands[peer].filter((command) => !have(command));
  if (missing.length > 0) return `no ${missing.join(', ')}: run script/peers`;
  if (peer === 'qemu' && !existsSync(join(guestCache, 'linux/boot'))) {
    return 'no guest kernel: run script/peers';
  }
  if (peer === 'testpmd' && !hasDriver('virtio')) return 'no DPDK virtio driver: run script/peers';
  if (peer === 'net' && process.getuid?.() !== 0) return 'network namespaces need root';
  if (peer === 'net' && !existsSync('/dev/net/tun')) return 'no /dev/net/tun';
  return undefined;
}

/** DPDK loads its drivers from a folder named after its ABI; unknown layouts count as complete. */
function hasDriver(driver: string): boolean {
  const base = '/usr/lib/x86_64-linux-gnu/dpdk';
  if (!existsSync(base)) return true;
  return readdirSync(base).some((folder) =>
    readdirSync(join(base, folder)).some((file) => file.startsWith(`librte_net_${driver}.so`)),
  );
}

function searchPath(): string[] {
  return [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
}
