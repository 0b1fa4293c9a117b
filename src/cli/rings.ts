// `vhop rings`: every virtqueue of a running switch, with the indices both sides have reached.

import type { RingInfo } from '../types.ts';
import { findWanted, printJson, type QueryOptions, query, type Register } from './cli.ts';
import { pick } from './ports.ts';
import { plain, printTable } from './table.ts';

const HELP = `
rx rings carry frames to the guest, tx rings from it.
last-avail: the next entry the switch will take; avail: what the guest has posted;
used: what was given back; waiting: posted and not taken yet. Split rings' indices
wrap at 65536; a packed ring's are slots, the first with the wrap counter behind it:
66:1.
notify: the guest is asked to kick, since the switch sleeps on this ring.
`;

export const rings: Register = (program, cli) => {
  query(program, 'rings', 'show its virtqueues')
    .argument('[port]', 'only those of this port')
    .option('-a, --all', 'also those no guest has set up')
    .addHelpText('after', HELP)
    .action(async (port: string | undefined, options: QueryOptions & { all?: boolean }) => {
      const control = await findWanted(options);
      if (port !== undefined) pick(await control.get('/ports'), port);
      const found = (await control.get('/rings')).filter((r) => !port || r.port === port);
      if (options.json) {
        printJson(cli, found);
        return;
      }
      // A port offers rings for 8 queue pairs, and most guests take one: the rest says nothing.
      const shown = found.filter((r) => options.all || r.started || r.size > 0 || r.broken);
      const right = (title: string) => ({ title, align: 'right' }) as const;
      printTable(
        cli.out,
        [
          { title: 'port' },
          right('ring'),
          { title: 'dir' },
          { title: 'type' },
          right('size'),
          { title: 'state' },
          right('last-avail'),
          right('avail'),
          right('used'),
          right('waiting'),
          { title: 'notify' },
          right('kicks'),
          right('calls'),
        ],
        shown.map((r) => [
          r.port,
          r.index,
          r.direction,
          r.type,
          r.size,
          state(r),
          r.wrap === undefined ? r.lastAvail : `${r.lastAvail}:${r.wrap}`,
          r.availIdx,
          r.usedIdx,
          r.inFlight,
          r.notify ? 'on' : 'off',
          r.kicks,
          r.calls,
        ]),
      );
      const hidden = found.length - shown.length;
      if (hidden > 0) cli.out.write(` ${hidden} more are not set up (--all shows them)\n`);
      for (const { port: name, index, broken } of found) {
        if (broken) cli.out.write(` ${name} ring ${index}: ${plain(broken)}\n`);
      }
    });
};

function state(ring: RingInfo): string {
  if (ring.broken) return 'broken';
  if (!ring.started) return 'stopped';
  return ring.enabled ? 'enabled' : 'disabled';
}
