// A Linux guest in QEMU (TCG: no KVM needed) with a busybox shell to drive it.

import { existsSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { guestImages } from './initramfs.ts';
import { type Nic, nicArguments, sockets } from './nic.ts';
import { Child, lastLines, removeFolder, temporaryFolder, waitFor } from './process.ts';
import { Qmp, type QmpEvent } from './qmp.ts';
import { GuestShell, type RunOptions, type RunResult } from './shell.ts';

export interface GuestOptions {
  /** For messages and MAC addresses; unique among the guests of one network. */
  name: string;
  /** MiB; 256 by default. */
  memory?: number;
  /**
   * Virtual CPUs; 2 by default. With one, QEMU before 8.1 drops the guest's memory barriers, and
   * kick suppression towards another process may lose wake-ups.
   */
  smp?: number;
  nics?: Nic[];
  /** Added to QEMU's command line as they are. */
  extraArgs?: string[];
  /** Added to the kernel's command line. */
  append?: string;
  /** Exit instead of rebooting; off by default. */
  noReboot?: boolean;
  /** A migration URI to wait on; boot() then returns at once, and run() works after migration. */
  incoming?: string;
  /** Host CPUs for QEMU, such as '1'. */
  cpus?: string;
  /** For the boot; 60 s by default. */
  timeoutMs?: number;
}

export class Guest {
  readonly name: string;
  /** Holds the sockets and the console log; removed once QEMU is gone. */
  readonly folder: string;
  readonly #qemu: Child;
  readonly #shell: GuestShell;
  readonly #qmp: Qmp;

  private constructor(name: string, folder: string, qemu: Child, shell: GuestShell, qmp: Qmp) {
    this.name = name;
    this.folder = folder;
    this.#qemu = qemu;
    this.#shell = shell;
    this.#qmp = qmp;
  }

  /** Starts a guest and waits for its shell. Throws with the console's tail if it does not come. */
  static async boot(options: GuestOptions): Promise<Guest> {
    const nics = options.nics ?? [];
    const paths = nics.map(sockets);
    // A stale socket would fool the guest that waits for this one: QEMU 7.2 reports no failure of a
    // stream's connect.
    for (const { makes } of paths) if (makes) rmSync(makes, { force: true });
    for (const { needs } of paths) {
      if (needs) await waitFor(() => existsSync(needs), 10_000, `${options.name}: socket ${needs}`);
    }
    const images = await guestImages();
    const folder = temporaryFolder();
    // We listen and QEMU connects at its start, so nothing it says is lost.
    const shellSocket = accept(join(folder, 'shell'));
    const qmpSocket = accept(join(folder, 'qmp'));
    await Promise.all([shellSocket.listening, qmpSocket.listening]);
    const args = qemuArguments(options, images.kernel, images.initrd, folder);
    const qemu = new Child('qemu-system-x86_64', args, { cpus: options.cpus });
    void qemu.exited.then(() => {
      shellSocket.close();
      qmpSocket.close();
    });
    const gone = qemu.exited.then((exit) => {
      throw new Error(`${options.name}: QEMU exited with ${exit}\n${qemu.tail()}`);
    });
    gone.catch(() => {});
    try {
      const sockets = [shellSocket.connected, qmpSocket.connected] as const;
      const [shell, qmp] = await Promise.race([Promise.all(sockets), gone]);
      const guest = new Guest(
        options.name,
        folder,
        qemu,
        new GuestShell(shell, options.name, () => guest.#trouble()),
        new Qmp(qmp),
      );
      if (options.incoming === undefined) await guest.#ready(options.timeoutMs ?? 60_000);
      else guest.#shell.assumeReady();
      return guest;
    } catch (error) {
      qemu.kill();
      await qemu.exited;
      removeFolder(folder);
      throw error;
    }
  }

  /** QEMU's process id. */
  get pid(): number {
    return this.#qemu.pid;
  }

  /** Settles with QEMU's exit code, or signal name, when it is gone. */
  get exited(): Promise<number | string> {
    return this.#qemu.exited;
  }

  /** QMP events so far, oldest first. */
  get events(): readonly QmpEvent[] {
    return this.#qmp.events;
  }

  /** The console log so far. */
  console(): string {
    const path = join(this.folder, 'console');
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }

  /**
   * Runs shell text in the guest, stderr into stdout, stdin empty. Commands run one after another.
   * Throws on a non-zero status unless `ok` is false, and after `timeoutMs` (10 s), when the
   * command is killed and the shell is usable again.
   */
  run(command: string, options?: RunOptions): Promise<RunResult> {
    return this.#shell.run(command, options);
  }

  /** Starts shell text in the background, its output into a file. */
  async spawn(command: string): Promise<GuestProcess> {
    const { stdout } = await this.run(
      `log=$(mktemp /tmp/log.XXXXXX)\n(${command}\n) > $log 2>&1 < /dev/null &\necho $! $log`,
    );
    const [pid = '', log = ''] = stdout.trim().split(' ');
    return {
      output: async () => (await this.run(`cat ${log}`)).stdout,
      running: async () => (await this.run(`kill -0 ${pid}`, { ok: false })).status === 0,
      // A background job of a shell without job control shares its group; end its children too.
      kill: async () => {
        await this.run(`pkill -KILL -P ${pid}; kill -KILL ${pid}`, { ok: false });
      },
    };
  }

  /** Runs a QMP command and returns its answer. */
  async qmp(command: string, args?: Record<string, unknown>): Promise<unknown> {
    try {
      return await this.#qmp.execute(command, args);
    } catch (error) {
      throw new Error(`${this.name}: ${(error as Error).message}\n${this.#trouble()}`);
    }
  }

  /** Resets the machine and waits for its shell. */
  async reboot(timeoutMs = 60_000): Promise<void> {
    this.#shell.reset();
    await this.qmp('system_reset');
    await this.#ready(timeoutMs);
  }

  /** SIGKILL, as in a crash of QEMU. */
  async kill(): Promise<void> {
    this.#qemu.kill();
    await this.#qemu.exited;
    removeFolder(this.folder);
  }

  /** Lets QEMU shut its devices down and exit; kills it after 5 s. */
  async stop(): Promise<void> {
    if (this.#qemu.exit === undefined) {
      this.#qmp.execute('quit').catch(() => {});
      await this.#qemu.finish(5000).catch(() => {});
    }
    await this.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #ready(ms: number): Promise<void> {
    await waitFor(
      () => {
        if (this.#qemu.exit !== undefined || this.console().includes('Kernel panic')) {
          throw new Error(`${this.name} died at boot\n${this.#trouble()}`);
        }
        return this.#shell.ready;
      },
      ms,
      `${this.name}: boot`,
      () => this.#trouble(),
    );
  }

  #trouble(): string {
    const exit = this.#qemu.exit === undefined ? '' : ` (exited: ${this.#qemu.exit})`;
    const console = lastLines(this.console(), 25);
    return `--- console of ${this.name}\n${console}\n--- QEMU${exit}\n${this.#qemu.tail(10)}`;
  }
}

export interface GuestProcess {
  output(): Promise<string>;
  running(): Promise<boolean>;
  kill(): Promise<void>;
}

function qemuArguments(
  options: GuestOptions,
  kernel: string,
  initrd: string,
  folder: string,
): string[] {
  const memory = `${options.memory ?? 256}M`;
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-name', options.name],
    ...['-machine', 'q35,memory-backend=mem', '-accel', 'tcg,thread=multi', '-cpu', 'max'],
    ...['-smp', `${options.smp ?? 2}`, '-m', memory],
    ...['-object', `memory-backend-memfd,id=mem,size=${memory},share=on`],
    ...['-kernel', kernel, '-initrd', initrd],
    // A panic halts, to be read on the console; it does not reboot.
    ...['-append', `console=ttyS0 quiet panic=0 mitigations=off ${options.append ?? ''}`],
    ...[
      '-chardev',
      `file,id=console,path=${join(folder, 'console')}`,
      '-serial',
      'chardev:console',
    ],
    ...['-chardev', `socket,id=shell,path=${join(folder, 'shell')}`, '-serial', 'chardev:shell'],
    ...[
      '-chardev',
      `socket,id=qmp,path=${join(folder, 'qmp')}`,
      '-mon',
      'chardev=qmp,mode=control',
    ],
    ...(options.noReboot ? ['-no-reboot'] : []),
    ...(options.incoming === undefined ? [] : ['-incoming', options.incoming]),
    ...(options.nics ?? []).flatMap((nic, index) =>
      nicArguments(nic, index, nic.mac ?? macOf(options.name, index)),
    ),
    ...(options.extraArgs ?? []),
  ];
}

/** A locally administered address from a hash (FNV-1a) of the guest's name. */
export function macOf(name: string, index: number): string {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  const tail = [hash >>> 16, hash >>> 8, hash + index].map((n) => n & 0xff);
  return [0x52, 0x54, 0, ...tail].map((n) => n.toString(16).padStart(2, '0')).join(':');
}

/** A unix socket that takes one connection. */
function accept(path: string): {
  listening: Promise<void>;
  connected: Promise<Socket>;
  close(): void;
} {
  const server = createServer();
  const connected = new Promise<Socket>((resolve) => server.once('connection', resolve));
  const listening = new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(path, resolve);
  });
  return {
    listening,
    connected: connected.then((socket) => {
      server.close();
      return socket;
    }),
    close: () => server.close(),
  };
}
