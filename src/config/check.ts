// The rules a schema cannot state: what must differ between ports, and what a wire is. Shared by
// the file loader (which adds the line) and by the command line.

import { DEVICE_PATTERN, MAX_SOCKET_PATH } from '../limits.ts';
import { policingProblem } from '../switch/policing.ts';
import type {
  Forwarding,
  TapPortOptions,
  VhostUserPortOptions,
  VirtioUserPortOptions,
} from '../types.ts';

/** A port from a file or the command line, with every identifying field filled in. */
export type CheckedPort = (VhostUserPortOptions | VirtioUserPortOptions | TapPortOptions) & {
  name: string;
  mac: string;
};

export interface Problem {
  /** Index of the port, or undefined when the list as a whole is wrong. */
  port?: number;
  key: 'ports' | 'name' | 'path' | 'device' | 'mac' | 'rate' | 'burst' | 'socket';
  /** One sentence without the place. */
  message: string;
}

/** Everything wrong with `ports` as a whole, in order; empty when nothing is. */
export function checkPorts(ports: readonly CheckedPort[], forwarding: Forwarding): Problem[] {
  const problems: Problem[] = [];
  if (forwarding === 'wire' && ports.length !== 2) {
    problems.push({
      key: 'ports',
      message: `a wire joins exactly 2 ports, not ${ports.length}: give 2, or use a switch`,
    });
  }
  const seen = {
    name: new Map<string, number>(),
    path: new Map<string, number>(),
    device: new Map<string, number>(),
  };
  const macs = new Map<string, number>();
  ports.forEach((port, index) => {
    const path = 'path' in port ? port.path : undefined;
    const device = port.type === 'tap' ? (port.device ?? port.name) : undefined;
    const bytes = Buffer.byteLength(path ?? '');
    if (bytes > MAX_SOCKET_PATH) {
      problems.push({
        port: index,
        key: 'path',
        message:
          `'${path}' is ${bytes} bytes, a Unix socket's path has at most ` +
          `${MAX_SOCKET_PATH}: use a shorter folder, such as /tmp`,
      });
    }
    if (path?.includes('\0')) {
      problems.push({ port: index, key: 'path', message: 'a path cannot hold a zero byte' });
    }
    if (device !== undefined && !DEVICE_PATTERN.test(device)) {
      problems.push({
        port: index,
        key: 'device',
        message: `'${device}' names no network device: give 1 to 15 of A-Z a-z 0-9 . _ -`,
      });
    }
    if (port.type === 'vhost-user' && port.socket !== undefined && port.mode === 'client') {
      problems.push({
        port: index,
        key: 'socket',
        message:
          `'${port.path}' is connected to, not listened on: ` +
          'who may connect is for its server to say, so leave this out',
      });
    }
    for (const [key, value] of Object.entries({ name: port.name, path, device }) as [
      'name' | 'path' | 'device',
      string | undefined,
    ][]) {
      if (value === undefined) continue;
      const first = seen[key].get(value);
      if (first === undefined) seen[key].set(value, index);
      else {
        problems.push({
          port: index,
          key,
          message: `${key} '${value}' is already that of port ${first + 1}: give each its own`,
        });
      }
    }
    const policing = policingProblem(port);
    if (policing) problems.push({ port: index, ...policing });
    const mac = port.mac.toLowerCase();
    const first = macs.get(mac);
    if (first === undefined) macs.set(mac, index);
    else if (seen.name.get(port.name) === index) {
      problems.push({
        port: index,
        key: 'mac',
        message: `MAC ${mac} is already that of port ${first + 1}: give each its own`,
      });
    }
  });
  return problems;
}
