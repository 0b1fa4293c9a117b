// The command line of npm run bench: what may be asked for, and one clear sentence for what may not.

import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Case, Options } from './case.ts';

export interface Command extends Options {
  cases: Case[];
  markdown?: string | undefined;
  json: boolean;
  help: boolean;
}

/** A command line that means nothing; the message says what would. */
export class UsageError extends Error {}

const FORMATS = ['split', 'packed', 'in-order'];

/** Unless said otherwise; and with --quick. */
const FULL = {
  sizes: '64,128,256,512,1024,1518,imix',
  formats: 'split,packed',
  mergeable: 'on,off',
  rings: '1024',
  rounds: '3',
  seconds: '1',
};
const QUICK: typeof FULL = {
  sizes: '64,1518',
  formats: 'split',
  mergeable: 'on',
  rings: '1024',
  rounds: '1',
  seconds: '1',
};

/** Reads a command line; `usual` are the cases of a run that names none. */
export function parse(args: string[], all: readonly Case[], usual: readonly Case[]): Command {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean', default: false } as const;
  const { values } = (() => {
    try {
      return parseArgs({
        args,
        options: {
          ...{ cases: text, sizes: text, formats: text, mergeable: text, rings: text },
          ...{ rounds: text, seconds: text, against: text, markdown: text },
          ...{ quick: flag, json: flag, help: flag },
        },
      });
    } catch (error) {
      throw new UsageError(`${(error as Error).message.split('.')[0]}; --help lists the options`);
    }
  })();
  const base = values.quick ? QUICK : FULL;
  const list = (name: keyof typeof FULL): string[] => (values[name] ?? base[name]).split(',');
  const named = values.cases?.split(',').map((name) =>
    oneOf(
      'cases',
      name,
      all.map((c) => c.name),
    ),
  );
  const { against, markdown, json, help } = values;
  if (against !== undefined && !existsSync(join(against, 'bin/vhop'))) {
    throw new UsageError(
      `--against ${against}: no bin/vhop there; name a checkout that was set up`,
    );
  }
  if (markdown !== undefined && !isFolder(dirname(markdown))) {
    throw new UsageError(`--markdown ${markdown}: there is no folder ${dirname(markdown)}`);
  }
  return {
    cases: named === undefined ? [...usual] : all.filter(({ name }) => named.includes(name)),
    sizes: list('sizes').map((size) =>
      size === 'imix' ? size : number('sizes', size, { from: 64, to: 1518, or: ' or imix' }),
    ),
    formats: list('formats').map((format) => oneOf('formats', format, FORMATS)),
    mergeable: list('mergeable').map((on) => oneOf('mergeable', on, ['on', 'off']) === 'on'),
    rings: list('rings').map((ring) =>
      Number(oneOf('rings', ring, ['64', '128', '256', '512', '1024', '2048', '4096'])),
    ),
    rounds: number('rounds', values.rounds ?? base.rounds, { from: 1, to: 1000 }),
    seconds: number('seconds', values.seconds ?? base.seconds, { from: 0.1, to: 600, part: true }),
    ...{ against, markdown, json, help },
  };
}

const isFolder = (path: string): boolean =>
  statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

function oneOf(option: string, value: string, allowed: readonly string[]): string {
  if (allowed.includes(value)) return value;
  throw new UsageError(`--${option} ${value}: choose from ${allowed.join(', ')}`);
}

function number(
  option: string,
  value: string,
  { from, to, or = '', part = false }: { from: number; to: number; or?: string; part?: boolean },
): number {
  const n = Number(value);
  if (value !== '' && n >= from && n <= to && (part || Number.isInteger(n))) return n;
  const kind = part ? 'a number' : 'a whole number';
  throw new UsageError(`--${option} ${value}: give ${kind} from ${from} to ${to}${or}`);
}

/** What --help prints. */
export function help(all: readonly Case[], usual: readonly Case[]): string {
  const cases = all.map((one) => {
    const mark = usual.includes(one) ? '*' : ' ';
    return `  ${mark} ${one.name.padEnd(12)} ${one.about}`;
  });
  return `npm run bench -- [options]

Cases (* unless --cases says otherwise):
${cases.join('\n')}

  --cases a,b        which of them
  --sizes 64,imix    frame lengths, bytes from 64 to 1518; imix is 7 x 64, 4 x 594, 1 x 1518
  --formats a,b      rings: split, packed, in-order (packed, with VIRTIO_F_IN_ORDER)
  --mergeable on,off whether receive buffers may be merged
  --rings 1024       entries of a ring
  --rounds 3         turns of each contender
  --seconds 1        of each measurement
  --quick            one round, 64 and 1518 B, split rings, mergeable buffers: some 3 minutes
  --against DIR      compare with vhop in DIR too: another checkout, set up
  --markdown FILE    write a report, and its charts beside it
  --json             every single measurement on stdout, instead of tables
  --help`;
}
