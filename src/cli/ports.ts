// `vhop ports`: the ports of a running switch; with a name, one of them in full.

import { suggestion } from '../config/nearest.ts';
import type { PortInfo } from '../types.ts';
import { type Cli, findWanted, printJson, type QueryOptions, query, type Register } from './cli.ts';
import { paintState } from './live.ts';
import { plain, printTable } from './table.ts';
import { memory } from './units.ts';

export const ports: Register = (program, cli) => {
  query(program, 'ports', 'list the ports of a running switch')
    .argument('[port]', 'show everything about this one')
    .action(async (name: string | undefined, options: QueryOptions) => {
      const found = await (await findWanted(options)).get('/ports');
      if (name !== undefined) {
        const port = pick(found, name);
        if (options.json) printJson(cli, port);
        else printPort(cli, port);
      } else if (options.json) {
        printJson(cli, found);
      } else {
        printPorts(cli, found);
      }
    });
};

/** The port called `name`. Throws with the nearest name if there is none. */
export function pick(found: readonly PortInfo[], name: string): PortInfo {
  const port = found.find((p) => p.name === name);
  if (port !== undefined) return port;
  const names = found.map((p) => p.name);
  throw new Error(`no port named '${name}'${suggestion(name, names)}`);
}

function printPorts(cli: Cli, found: readonly PortInfo[]): void {
  printTable(
    cli.out,
    [
      { title: 'port' },
      { title: 'state' },
      { title: 'queues', align: 'right' },
      { title: 'MAC' },
      { title: 'memory', align: 'right' },
      { title: 'mode' },
      { title: 'socket' },
    ],
    found.map((p) => [
      p.name,
      p.state,
      `${p.queuesEnabled}/${p.queues}`,
      p.mac,
      p.memory > 0 ? memory(p.memory) : undefined,
      p.mode ?? p.type,
      p.path,
    ]),
    (text, column) => (column === 1 ? paintState(cli.out, text) : text),
  );
  for (const { name, reason } of found) {
    if (reason) cli.out.write(` ${name}: ${plain(reason)}\n`);
  }
}

function printPort(cli: Cli, port: PortInfo): void {
  const { peer } = port;
  const facts: [string, string | undefined][] = [
    ['port', port.name],
    ['state', port.reason ? `${port.state}: ${port.reason}` : port.state],
    ['type', port.type],
    ['mode', port.mode],
    ['socket', port.path],
    ['MAC', port.mac],
    ['MTU', port.mtu === undefined ? 'not limited' : `${port.mtu} bytes`],
    ['queue pairs', `${port.queuesEnabled} enabled of ${port.queues} offered`],
    ['memory', port.memory > 0 ? memory(port.memory) : 'none'],
    ['paged', port.paged > 0 ? `${memory(port.paged)} of it, as it is needed` : undefined],
    ['peer', peer && `pid ${peer.pid}, user ${peer.uid}, group ${peer.gid}`],
    ['features', port.features.join(' ') || 'none negotiated'],
  ];
  for (const [title, value] of facts) {
    if (value !== undefined) cli.out.write(` ${title.padEnd(12)} ${plain(value)}\n`);
  }
}
