// A Linux guest in QEMU (TCG: no KVM needed) with a busybox shell to drive it.

import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { extraFiles, guestImages } from './initramfs.ts';
import { sockets } from './nic.ts';
import { Child, lastLines, removeFolder, temporaryFolder, waitFor } from './process.ts';
import { type GuestOptions, qemuArguments } from './qemu.ts';
import { Qmp, type QmpEvent } from './qmp.ts';
import { GuestShell, type RunOptions, type RunResult } from './shell.ts';

export type { GuestOptions } from './qemu.ts';

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
    let { initrd } = images;
    if (options.files) {
      initrd = join(folder, 'initrd');
      writeFileSync(
        initrd,
        Buffer.concat([readFileSync(images.initrd), extraFiles(options.files)]),
      );
    }
    // We listen and QEMU connects at its start, so nothing it says is lost.
    const shellSocket = accept(join(folder, 'shell'));
    const qmpSocket = accept(join(folder, 'qmp'));
    await Promise.all([shellSocket.listening, qmpSocket.listening]);
    const args = qemuArguments(options, images.kernel, initrd, folder);
    const { cpus, netns } = options;
    const qemu = new Child('qemu-system-x86_64', args, { cpus, netns });
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
      if (options.incoming === undefined) {
        await guest.#ready(options.timeoutMs ?? 60_000);
      } else {
        guest.#shell.assumeReady();
        // QEMU answers from its main loop, by when it listens for the migration.
        await Promise.race([guest.qmp('query-status'), gone]);
      }
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
  spawn(command: string): Promise<GuestProcess> {
    return spawnIn(this, command);
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

  /** Migrates to a guest that was booted with `incoming: uri`, live; throws if that fails. */
  async migrate(uri: string, timeoutMs = 60_000): Promise<void> {
    await this.qmp('migrate', { uri });
    const done = async (): Promise<boolean> => {
      const state = (await this.qmp('query-migrate')) as { status: string; 'error-desc'?: string };
      if (state.status === 'failed' || state.status === 'cancelled') {
        throw new Error(`${this.name}: migration ${state.status}: ${state['error-desc']}`);
      }
      return state.status === 'completed';
    };
    await waitFor(done, timeoutMs, `${this.name}: migration`, () => this.#trouble());
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
    return `--- console of ${this.name}\n${console}\n--- QEMU${exit}\n${this.#qemu.tail(40)}`;
  }
}

/** What commands are run in: a guest, or one that moves from QEMU to QEMU. */
export type Machine = Pick<Guest, 'name' | 'run'>;

/** As Guest.spawn; whatever is asked of the process later is asked where the machine is then. */
export async function spawnIn(machine: Machine, command: string): Promise<GuestProcess> {
  const { stdout } = await machine.run(
    `log=$(mktemp /tmp/log.XXXXXX)\n(${command}\n) > $log 2>&1 < /dev/null &\necho $! $log`,
  );
  const [pid = '', log = ''] = stdout.trim().split(' ');
  return {
    output: async () => (await machine.run(`cat ${log}`)).stdout,
    running: async () => (await machine.run(`kill -0 ${pid}`, { ok: false })).status === 0,
    // A background job of a shell without job control shares its group; end its children too.
    kill: async () => {
      await machine.run(`pkill -KILL -P ${pid}; kill -KILL ${pid}`, { ok: false });
    },
  };
}

export interface GuestProcess {
  output(): Promise<string>;
  running(): Promise<boolean>;
  kill(): Promise<void>;
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
