// What a switch in the foreground says: once at the start, then a line per event.

import type { SwitchEvent } from '../control/events.ts';
import type { PeerInfo, PortInfo, SwitchInfo } from '../types.ts';
import type { Output } from './cli.ts';
import { reloadText } from './reload.ts';
import { downText, upText } from './story.ts';
import { paint, plain, tableLines } from './table.ts';
import { clock } from './units.ts';

/**
 * The start of a switch: on a terminal its ports and what to type next, anywhere else one line that
 * says it is ready. `elsewhere`: the control socket is not where a query would look by itself.
 */
export function banner(
  out: Output,
  info: SwitchInfo,
  ports: readonly PortInfo[],
  control: string,
  elsewhere: boolean,
): string {
  const what = info.forwarding === 'wire' ? 'wire' : 'switch';
  const head = `${what} ${info.name} runs (pid ${info.pid})`;
  if (!out.isTTY) {
    const list = ports.map((p) => `${p.name}=${placeText(p)}`);
    return plain(`vhop: ${head}: ${list.join(' ')} control=${control}`).concat('\n');
  }
  let text = `vhop: ${head}\n\n`;
  const lines = tableLines(
    [{ title: 'port' }, { title: 'mode' }, { title: 'socket' }, { title: 'MAC' }],
    ports.map((p) => [
      p.name,
      p.type === 'vhost-user' ? p.mode : p.type,
      p.path ?? p.device,
      p.mac,
    ]),
    { title: (line) => paint(out, 'bold', line) },
  );
  text += `${lines.join('\n')}\n`;
  const which = elsewhere
    ? ` --control ${control}`
    : info.name === 'default'
      ? ''
      : ` --name ${info.name}`;
  const next = [
    [`vhop args ${ports[0]?.name ?? 'PORT'} --qemu${which}`, 'what to give the guest of that port'],
    [`vhop stats --live${which}`, 'watch it, from another terminal'],
  ] as const;
  const width = Math.max(...next.map(([command]) => command.length));
  text += '\nnext:\n';
  for (const [command, why] of next) {
    text += `  ${paint(out, 'bold', command)}${' '.repeat(width - command.length)}   ${why}\n`;
  }
  return `${text}Ctrl-C ends it.\n\n`;
}

/** As it is given on the command line. */
function placeText({ type, mode, path, device }: PortInfo): string {
  if (type === 'tap') return `tap:${device}`;
  if (type === 'virtio-user') return `virtio-user:${mode === 'server' ? 'server:' : ''}${path}`;
  return `${mode === 'client' ? 'client:' : ''}${path}`;
}

/**
 * One event as a line without its end: `12:00:01  a up: 2 queues, VERSION_1 MRG_RXBUF`; undefined
 * for features settled on the way up, which the line of port-up is about to tell.
 */
export function eventLine(out: Output, { event, time, value }: SwitchEvent): string | undefined {
  const at = `${clock(time)}  `;
  switch (event) {
    case 'connected':
      return `${at}${value.name} connected: ${peerText(value.peer)}`;
    case 'port-up':
      return `${at}${value.name} ${paint(out, 'green', upText(value.history))}: ${details(value)}`;
    case 'port-down':
      return `${at}${value.name} ${paint(out, 'yellow', 'down')}${why(value)}`;
    case 'quarantined':
      return `${at}${value.name} ${paint(out, 'red', 'quarantined')}${reason(value)}`;
    case 'logging':
      return `${at}${value.name} logging ${value.logging ? 'on' : 'off'}`;
    case 'link-features':
      return value.state === 'up' ? `${at}${value.name} negotiated: ${details(value)}` : undefined;
    case 'reloaded': {
      const failed = value.failed.map((sentence) => `; ${paint(out, 'red', plain(sentence))}`);
      return `${at}reloaded ${plain(value.file)}: ${reloadText(value)}${failed.join('')}`;
    }
    case 'notice':
      return `${at}${value.port ? `${value.port}: ` : ''}${plain(value.message)}`;
  }
}

/** `qemu-system-x86 (pid 4711, user 1000, group 107)`. */
export function peerText(peer: PeerInfo | undefined): string {
  if (peer === undefined) return 'by whom the system does not tell';
  const { pid, uid, gid, process = 'a process' } = peer;
  return `${plain(process)} (pid ${pid}, user ${uid}, group ${gid})`;
}

function details(port: PortInfo): string {
  const features = port.features.length > 0 ? port.features.join(' ') : 'no features';
  // A guest enables its queues one by one, and the first event may come before any of them.
  if (port.queuesEnabled === 0) return features;
  return `${port.queuesEnabled} queue${port.queuesEnabled === 1 ? '' : 's'}, ${features}`;
}

function why({ history: { down } }: PortInfo): string {
  return down ? `: ${plain(downText(down))}` : '';
}

function reason(port: PortInfo): string {
  return port.reason ? `: ${plain(port.reason)}` : '';
}
