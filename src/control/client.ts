// Finding a running switch and asking it.

import { existsSync, readdirSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { ConfigError } from '../config/error.ts';
import type { FdbEntry, PortInfo, RingInfo, Stats, SwitchInfo } from '../types.ts';
import { ControlError, controlPath, folderFault, runtimeFolders, surroundings } from './path.ts';
import type { Reloaded, ReloadRequest } from './reload.ts';

/** Milliseconds a switch has to answer: it is on this machine and answers from memory. */
const TIMEOUT = 3000;
/** The same for an order: ports are added one by one, and each may wait for the workers. */
const ORDER_TIMEOUT = 60_000;
/** Bytes of an answer: 256 ports of 16 rings take 2 MB. */
const MAX_ANSWER = 64 << 20;

/** What one can GET, and what comes back. */
export interface Resources {
  '/info': SwitchInfo;
  '/ports': PortInfo[];
  '/rings': RingInfo[];
  '/fdb': FdbEntry[];
  '/stats': Stats;
}

/** What one can POST: what goes with it, and what comes back. */
export interface Orders {
  '/reload': { asks: ReloadRequest; answers: Reloaded };
  /** Hand the ports over to the process that listens at `to`, and end. */
  '/leave': { asks: { format: number; to: string }; answers: object };
}

export interface ControlClient {
  readonly path: string;
  get<K extends keyof Resources>(resource: K): Promise<Resources[K]>;
  /** Rejects with ControlError where the switch refuses, ConfigError where a file is wrong. */
  post<K extends keyof Orders>(order: K, body: Orders[K]['asks']): Promise<Orders[K]['answers']>;
}

export function connectTo(path: string): ControlClient {
  return {
    path,
    get: (resource) => get(path, resource),
    post: (order, body) => ask(path, order, body) as Promise<never>,
  };
}

export type Probe =
  | { state: 'switch'; info: SwitchInfo }
  /** Nobody listens: the socket is stale, or there is none. */
  | { state: 'stale' }
  /** Somebody listens and is not a switch, or may not be asked, or does not answer. */
  | { state: 'other'; why: string };

/** What lives at `path`. Never throws. */
export async function probe(path: string): Promise<Probe> {
  try {
    const info = await get(path, '/info');
    if (typeof info?.name !== 'string' || typeof info.pid !== 'number') {
      return { state: 'other', why: 'it is not a vhop switch' };
    }
    return { state: 'switch', info };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const stale = code === 'ECONNREFUSED' || code === 'ENOENT';
    return stale ? { state: 'stale' } : { state: 'other', why: message };
  }
}

/** Every switch of this user that answers, and the sockets in the runtime folders nobody serves. */
export async function findSwitches(
  of = surroundings(),
): Promise<{ running: { path: string; info: SwitchInfo }[]; stale: string[] }> {
  const paths = runtimeFolders(of)
    .filter((folder) => existsSync(folder) && folderFault(folder, of.uid) === undefined)
    .flatMap((folder) =>
      readdirSync(folder)
        .filter((file) => file.endsWith('.sock'))
        .sort()
        .map((file) => join(folder, file)),
    );
  const found = await Promise.all(paths.map(async (path) => ({ path, ...(await probe(path)) })));
  return {
    running: found.flatMap((f) => (f.state === 'switch' ? [{ path: f.path, info: f.info }] : [])),
    stale: found.flatMap((f) => (f.state === 'stale' ? [f.path] : [])),
  };
}

/**
 * The switch that `--control` or `--name` mean; without either, the only one that runs. Throws
 * ControlError saying what runs, or how to start one.
 */
export async function findSwitch(
  wanted: { name?: string | undefined; control?: string | undefined },
  of = surroundings(),
): Promise<ControlClient> {
  if (wanted.control !== undefined) {
    const path = controlPath('', wanted.control, of);
    const found = await probe(path);
    if (found.state === 'switch') return connectTo(path);
    if (found.state === 'other') throw new ControlError(`cannot ask '${path}': ${found.why}`);
    throw new ControlError(
      `no switch runs at '${path}': start one with: vhop switch --control ${path} a.sock b.sock`,
    );
  }
  const { running } = await findSwitches(of);
  const names = running.map(({ info }) => info.name);
  if (wanted.name !== undefined) {
    const match = running.find(({ info }) => info.name === wanted.name);
    if (match !== undefined) return connectTo(match.path);
    const others = names.length > 0 ? ` (running: ${names.join(', ')})` : '';
    throw new ControlError(
      `no switch named ${wanted.name} runs${others}: ` +
        `start one with: vhop switch --name ${wanted.name} a.sock b.sock`,
    );
  }
  const only = running[0];
  if (only === undefined) {
    throw new ControlError('no switch runs: start one with: vhop switch a.sock b.sock');
  }
  if (running.length > 1) {
    throw new ControlError(
      `${running.length} switches run (${names.join(', ')}): choose one with --name ${names[0]}`,
    );
  }
  return connectTo(only.path);
}

function get<K extends keyof Resources>(path: string, resource: K): Promise<Resources[K]> {
  return ask(path, resource) as Promise<Resources[K]>;
}

/** With a `body` it is an order. */
function ask(path: string, resource: string, body?: object): Promise<unknown> {
  return new Promise((done, failed) => {
    const method = body === undefined ? 'GET' : 'POST';
    const options = { socketPath: path, path: resource, method, agent: false };
    const asked = request(options, (response) => {
      const parts: Buffer[] = [];
      let bytes = 0;
      response.on('data', (part: Buffer) => {
        bytes += part.length;
        if (bytes <= MAX_ANSWER) parts.push(part);
        else asked.destroy(new ControlError('what answers is not a vhop switch'));
      });
      response.on('error', failed);
      response.on('end', () => {
        try {
          const value: unknown = JSON.parse(Buffer.concat(parts).toString('utf8'));
          if (response.statusCode === 200) {
            done(value);
            return;
          }
          const { error } = value as { error?: string };
          const message = error ?? `the switch answered ${response.statusCode}`;
          failed(new (response.statusCode === 422 ? ConfigError : ControlError)(message));
        } catch {
          failed(new ControlError('what answers is not a vhop switch'));
        }
      });
    });
    // From the start to the end: an answer that trickles in is none either.
    const late = setTimeout(
      () => asked.destroy(new ControlError('it does not answer')),
      body === undefined ? TIMEOUT : ORDER_TIMEOUT,
    );
    asked.on('close', () => clearTimeout(late));
    asked.on('error', failed);
    asked.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
