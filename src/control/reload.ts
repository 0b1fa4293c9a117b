// A file's changes carried over to the switch that runs from it: what is the same in both is not touched.

import { isAbsolute, resolve } from 'node:path';
import type { CheckedPort } from '../config/check.ts';
import { type Action, difference } from '../config/difference.ts';
import { ConfigError } from '../config/error.ts';
import type { SwitchApi } from '../types.ts';
import { ControlError } from './path.ts';

/** POST /reload. */
export interface ReloadRequest {
  /** An absolute path. Default: the file of last time. */
  file?: string;
  /** The name the switch goes by, whatever the file says. */
  name?: string;
  /** Only say what would be done. */
  dryRun?: boolean;
}

/** `body` as a request. Throws ControlError. */
export function reloadRequest(body: Record<string, unknown>): ReloadRequest {
  const { file, name, dryRun, ...rest } = body;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) {
    throw new ControlError(`'${unknown}' is no key of a reload: there are file, name and dryRun`);
  }
  if (file !== undefined && !(typeof file === 'string' && isAbsolute(file))) {
    throw new ControlError('file must be an absolute path');
  }
  if (name !== undefined && typeof name !== 'string') throw new ControlError('name must be text');
  if (dryRun !== undefined && typeof dryRun !== 'boolean') {
    throw new ControlError('dryRun must be true or false');
  }
  return { ...(file && { file }), ...(name && { name }), ...(dryRun && { dryRun }) };
}

/** What a reload did, or would do; ports by name. */
export interface Reloaded {
  file: string;
  dryRun: boolean;
  added: string[];
  /** In place; `keys` of the file. */
  changed: { port: string; keys: string[] }[];
  /** Removed and added again, since these keys cannot change in place. */
  replaced: { port: string; keys: string[] }[];
  removed: string[];
  /** Keys of the switch itself. */
  switch: string[];
  untouched: number;
  /** What could not be done, a sentence each; the rest was. */
  failed: string[];
}

/** Where the ports of a switch come from. */
export interface Source {
  file: string;
  /** Given on the command line in place of the file's. */
  name?: string | undefined;
}

type Restart = Extract<Action, { do: 'restart' }>;

const NOTHING_DONE = () => ({
  added: [],
  changed: [],
  replaced: [],
  removed: [],
  switch: [],
  untouched: 0,
  failed: [],
});

export class Reloader {
  readonly #api: SwitchApi;
  readonly #onReloaded: (report: Reloaded) => void;
  /** What was asked for and is there, by name: a port that could not be added is tried again. */
  readonly #ports: Map<string, CheckedPort>;
  #source: Source;

  /** `ports` are those that `api` has; `onReloaded` hears of each reload that was more than a dry run. */
  constructor(
    api: SwitchApi,
    source: Source,
    ports: readonly CheckedPort[],
    onReloaded: (report: Reloaded) => void,
  ) {
    this.#api = api;
    this.#source = { ...source, file: resolve(source.file) };
    this.#ports = new Map(ports.map((port) => [port.name, port]));
    this.#onReloaded = onReloaded;
  }

  /** The file of last time, absolute. */
  get file(): string {
    return this.#source.file;
  }

  /**
   * Applies what changed; one reload at a time. Rejects with ConfigError when the file is wrong or is that of
   * another switch: then nothing was changed.
   */
  async reload({ file, name, dryRun = false }: ReloadRequest = {}): Promise<Reloaded> {
    // Loaded here: a client of the control socket needs neither YAML nor the schema.
    const { loadConfig } = await import('../config/load.ts');
    const same = file === undefined || file === this.#source.file;
    const source: Source = same ? { ...this.#source } : { file };
    if (name !== undefined) source.name = name;
    const config = loadConfig(source.file);
    const { name: running, forwarding, workers, ageing } = this.#api.info();
    const meant = source.name ?? config.switch.name ?? 'default';
    if (meant !== running) {
      throw new ConfigError(
        `${source.file}: name: '${meant}' is not the switch that runs, which is '${running}': ` +
          `start the other one with: vhop up ${source.file}, or keep the name with: --name ${running}`,
      );
    }
    const before = { switch: { forwarding, workers, ageing }, ports: [...this.#ports.values()] };
    const actions = difference(before, config);
    const report: Reloaded = { file: source.file, dryRun, ...NOTHING_DONE() };
    report.untouched = config.ports.length - touched(actions);
    for (const action of actions) {
      try {
        if (action.do === 'restart') throw new Error(restart(action, source.file));
        if (!dryRun) await this.#carryOut(action);
        note(report, action);
      } catch (error) {
        report.failed.push(failure(action, (error as Error).message));
        if (action.do === 'add' && action.keys) report.removed.push(action.port.name);
      }
    }
    if (dryRun) return report;
    this.#source = source;
    this.#onReloaded(report);
    return report;
  }

  async #carryOut(action: Exclude<Action, Restart>): Promise<void> {
    switch (action.do) {
      case 'remove':
        await this.#api.removePort(action.port);
        this.#ports.delete(action.port);
        break;
      case 'configure':
        this.#api.configure(action.settings);
        break;
      case 'police': {
        this.#api.setPolicing(action.port, action.policing);
        const { rate: _, burst: __, ...port } = this.#ports.get(action.port)!;
        this.#ports.set(action.port, { ...port, ...action.policing });
        break;
      }
      case 'add':
        await this.#api.addPort(action.port);
        this.#ports.set(action.port.name, action.port);
        break;
    }
  }
}

/** Adds what was done, or would be, to the report. */
function note(report: Reloaded, action: Exclude<Action, Restart>): void {
  switch (action.do) {
    case 'remove':
      if (!action.keys) report.removed.push(action.port);
      break;
    case 'configure':
      report.switch.push(...Object.keys(action.settings));
      break;
    case 'police':
      report.changed.push({ port: action.port, keys: action.keys });
      break;
    case 'add': {
      const { name } = action.port;
      if (action.keys) report.replaced.push({ port: name, keys: action.keys });
      else report.added.push(name);
    }
  }
}

/** Ports of the new file that something is done about. */
function touched(actions: readonly Action[]): number {
  return actions.filter((action) => action.do === 'add' || action.do === 'police').length;
}

function restart({ key, from, to }: Restart, file: string): string {
  return (
    `${key} stays ${from} while the switch runs: ` +
    `for ${to} start it anew, which its guests outlive: vhop up --takeover ${file}`
  );
}

function failure(action: Action, why: string): string {
  if (action.do !== 'add') return why;
  const { name } = action.port;
  return why.startsWith(`port ${name}`) ? why : `port ${name} could not be added: ${why}`;
}
