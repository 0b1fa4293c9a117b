// Names of netmap ports: `vhop:PATH`, `vhop:PORT@SWITCH`, `tap:DEVICE`, and netmap's suffixes.

import { NetmapError } from './types.ts';

export interface PortName {
  /** As given, without the suffixes: a base that pipes, monitors and host rings share. */
  base: string;
  kind: 'socket' | 'port' | 'tap';
  /** Socket: its path. */
  path: string;
  mode: 'client' | 'server';
  /** Port of a running switch, and that switch's name if one was given. */
  port: string;
  switch?: string | undefined;
  /** `-k`: queue pair k alone. */
  pair?: number;
  /** `^`: host rings alone; `*`: the device's and the host's. Default: the device's. */
  rings: 'device' | 'host' | 'both';
  /** `{id` master, `}id` slave. */
  pipe?: { id: string; master: boolean };
  /** `/` and r, t, z. */
  monitor?: { rx: boolean; tx: boolean; swaps: boolean };
}

const FORM =
  /^(?:(vhop|tap):)?(?:(client|server):)?(.+?)(?:(\^)|(\*)|-([0-7])|([{}])([A-Za-z0-9_]{1,16}))?(?:\/([zrt]{1,3}))?$/;
const PLAIN = /^(?:(vhop|tap):)?(?:(client|server):)?(.+)$/;
const TAP_NAME = /^[A-Za-z0-9_.-]{1,15}$/;
const PORT_NAME = /^([A-Za-z0-9._-]{1,32})(?:@([A-Za-z0-9._-]{1,32}))?$/;

/**
 * A path that `exists` is that path, whatever its end looks like. Throws NetmapError `name` with what names
 * there are.
 */
export function parseName(name: string, exists: (path: string) => boolean = () => false): PortName {
  const fail = (what: string): never => {
    throw new NetmapError(
      'name',
      `'${name}' ${what}: names are vhop:/PATH.sock, vhop:PORT, vhop:PORT@SWITCH or tap:DEVICE, ` +
        'with -K, ^, *, {ID, }ID or /rt behind them',
    );
  };
  const whole = /^(?:vhop:)?(?:client:|server:)?(.*)$/s.exec(name)![1]!;
  const found = (whole.includes('/') && exists(whole) ? PLAIN : FORM).exec(name);
  if (!found) return fail('names no port');
  const [, scheme, given, base, host, both, pair, pipe, id, watched] = found as unknown as [
    string,
    string | undefined,
    'client' | 'server' | undefined,
    string,
    ...(string | undefined)[],
  ];
  const parsed: PortName = {
    base,
    kind: 'socket',
    path: '',
    mode: given ?? 'client',
    port: '',
    rings: host ? 'host' : both ? 'both' : 'device',
  };
  if (pair !== undefined) parsed.pair = Number(pair);
  if (pipe) parsed.pipe = { id: id!, master: pipe === '{' };
  if (watched) {
    const [rx, tx] = [watched.includes('r'), watched.includes('t')];
    if (!rx && !tx) fail('watches neither r nor t');
    parsed.monitor = { rx, tx, swaps: watched.includes('z') };
  }
  const socket = scheme !== 'tap' && (base.includes('/') || base.endsWith('.sock'));
  if (socket) return { ...parsed, path: base };
  if (given) fail('has a mode, which only a socket has');
  if (scheme === 'tap') {
    if (!TAP_NAME.test(base)) fail('names no network device: 1 to 15 of A-Z a-z 0-9 . _ -');
    if (parsed.rings !== 'device') fail('is the host side already, and has no host rings');
    return { ...parsed, kind: 'tap', port: base };
  }
  const port = PORT_NAME.exec(base) ?? fail('names no port');
  return { ...parsed, kind: 'port', port: port[1]!, switch: port[2] };
}
