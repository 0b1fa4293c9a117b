// `vhop ports`: the ports of a running switch; with a name, one of them in full; with --features,
// bit by bit what was negotiated.

import { suggestion } from '../config/nearest.ts';
import type { Limits, PortHistory, PortInfo } from '../types.ts';
import { peerText } from './banner.ts';
import {
  type Cli,
  findWanted,
  type Output,
  printJson,
  type QueryOptions,
  query,
  type Register,
} from './cli.ts';
import { type FeatureRow, featureGroups, featureTitle, LEGEND } from './features.ts';
import { paintState } from './live.ts';
import { downText, storyText } from './story.ts';
import { type Column, paint, plain, printTable, tableLines } from './table.ts';
import { duration, memory, scaled, span } from './units.ts';

interface PortsOptions extends QueryOptions {
  features?: boolean;
}

export const ports: Register = (program, cli) => {
  query(program, 'ports', 'list the ports of a running switch')
    .argument('[port]', 'show everything about this one')
    .option('-f, --features', 'explain every feature bit: on, not offered, not accepted')
    .action(async (name: string | undefined, options: PortsOptions) => {
      const found = await (await findWanted(options)).get('/ports');
      if (options.features) {
        const chosen = name === undefined ? found : [pick(found, name)];
        if (!options.json) printFeatures(cli, chosen);
        else if (name === undefined) printJson(cli, chosen.map(withBits));
        else printJson(cli, withBits(chosen[0]!));
      } else if (name !== undefined) {
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
      { title: 'for', align: 'right' },
      { title: 'queues', align: 'right' },
      { title: 'MAC' },
      { title: 'memory', align: 'right' },
      { title: 'mode' },
      { title: 'socket' },
    ],
    found.map((p) => [
      p.name,
      p.state,
      age(p),
      `${p.queuesEnabled}/${p.queues}`,
      p.mac,
      p.memory > 0 ? memory(p.memory) : undefined,
      p.type === 'vhost-user' ? p.mode : p.type,
      p.path ?? p.device,
    ]),
    (text, column) => (column === 1 ? paintState(cli.out, text) : text),
  );
  const stories = found.flatMap((port) => {
    const story = storyText(port);
    return story === undefined ? [] : [` ${port.name}: ${plain(story)}\n`];
  });
  if (stories.length > 0) cli.out.write(`\n${stories.join('')}`);
}

/** Since a port is as it is: 42s, 3m07s. */
function age({ history }: PortInfo): string {
  return duration(Math.max(0, Date.now() - history.since) / 1000);
}

function printPort(cli: Cli, port: PortInfo): void {
  const { peer, history } = port;
  const facts: [string, string | undefined][] = [
    ['port', port.name],
    ['state', port.reason ? `${port.state}: ${port.reason}` : port.state],
    ['for', age(port)],
    ['type', port.type],
    ['mode', port.mode],
    ['socket', port.path],
    ['device', port.device],
    ['MAC', port.mac],
    ['MTU', port.mtu === undefined ? 'not limited' : `${port.mtu} bytes`],
    ['queue pairs', `${port.queuesEnabled} enabled of ${port.queues} offered`],
    ['memory', port.memory > 0 ? memory(port.memory) : 'none'],
    ['paged', port.paged > 0 ? `${memory(port.paged)} of it, as it is needed` : undefined],
    ['may send', port.rate && limitsText(port.rate, '/s')],
    ['at once', port.burst && limitsText(port.burst, '')],
    ['sealed', sealedText(port.sealed)],
    ['peer', peer && peerText(peer)],
    ['connections', connectionsText(history)],
    ['link', linkText(history)],
    ['restarts', restartsText(history)],
    ['logging', port.logging ? 'on: what is written to its memory is noted' : undefined],
    ['features', port.features.join(' ') || 'none negotiated'],
  ];
  for (const [title, value] of facts) {
    if (value !== undefined) cli.out.write(` ${title.padEnd(12)} ${plain(value)}\n`);
  }
}

function connectionsText({ connections, lost }: PortHistory): string {
  return lost === 0 ? `${connections}` : `${connections}, ${lost} of them lost`;
}

function linkText({ down }: PortHistory): string | undefined {
  if (!down) return undefined;
  const gap = down.gap === undefined ? '' : ` for ${span(down.gap)}`;
  return `last down${gap}: ${downText(down)}`;
}

function restartsText({ restarts, resumed }: PortHistory): string | undefined {
  if (restarts === 0) return undefined;
  const back = resumed === undefined ? '' : `; up ${span(resumed)} after the last one`;
  return `${restarts} of the switch${back}`;
}

function limitsText({ bits, frames }: Limits, per: string): string {
  return [
    bits === undefined ? undefined : `${scaled(bits)}bit${per}`,
    frames === undefined ? undefined : `${scaled(frames)} frames${per}`,
  ]
    .filter(Boolean)
    .join(', ');
}

function sealedText(sealed: boolean | undefined): string | undefined {
  if (sealed === undefined) return undefined;
  return sealed
    ? 'yes: its memory cannot shrink'
    : 'no: if its memory shrinks, the port is quarantined (require_sealed refuses such memory)';
}

/** For --features --json: the port, and `bits`, an object for each feature bit. */
function withBits(port: PortInfo): PortInfo & { bits: FeatureRow[] } {
  return { ...port, bits: featureGroups(port).flat() };
}

/** A table for each port, a line for each bit, a blank line between groups; the legend once. */
function printFeatures(cli: Cli, found: readonly PortInfo[]): void {
  const { out } = cli;
  const columns: Column[] = [
    { title: 'feature' },
    { title: 'bit', align: 'right' },
    { title: 'state' },
    { title: 'here' },
  ];
  for (const port of found) {
    const groups = featureGroups(port);
    const lines = tableLines(
      columns,
      groups.flat().map(({ name, bit, state, why, meaning }) => {
        const text = state === 'undecided' ? 'offered' : state.replace('-', ' ');
        // Who did not accept stands in the legend; why a bit is not offered differs.
        const here = [state === 'not-offered' ? why : undefined, meaning];
        return [name, bit, text, here.filter(Boolean).join('; ') || ' '];
      }),
      { cell: (text, column) => (column === 2 ? paintFeature(out, text) : text) },
    );
    out.write(` ${paint(out, 'bold', plain(featureTitle(port)))}\n\n${lines.shift()}\n`);
    for (const group of groups) out.write(`${lines.splice(0, group.length).join('\n')}\n\n`);
  }
  for (const line of LEGEND) out.write(` ${line}\n`);
}

function paintFeature(out: Output, state: string): string {
  if (state === 'on') return paint(out, 'green', state);
  return state === 'not accepted' ? paint(out, 'yellow', state) : state;
}
