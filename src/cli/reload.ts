// `vhop reload`: a switch that `vhop up` started reads its file again, and changes what changed.

import { resolve } from 'node:path';
import type { ControlClient } from '../control/client.ts';
import type { Reloaded, ReloadRequest } from '../control/reload.ts';
import {
  type Cli,
  findWanted,
  printJson,
  type QueryOptions,
  type Register,
  whichSwitch,
} from './cli.ts';
import { plain } from './table.ts';

const HELP = `
Ports that are the same in both files lose no frame. rate and burst change in
place; a port of which anything else changed is removed and added again. SIGHUP
to the vhop up process does the same.
`;

interface ReloadOptions extends QueryOptions {
  dryRun?: boolean;
}

export const reload: Register = (program, cli) => {
  whichSwitch(program.command('reload').description('apply a changed file to the running switch'))
    .argument('[file]', 'another file (default: the one it was started from)')
    .option('--dry-run', 'only print what would be done')
    .option('--json', 'print JSON for programs')
    .addHelpText('after', HELP)
    .action(async (file: string | undefined, options: ReloadOptions) => {
      if (file !== undefined) {
        // Checked here first: errors name the file as it was typed.
        const { loadConfig } = await import('../config/load.ts');
        loadConfig(file);
      }
      const { name, dryRun, json } = options;
      const client = await findWanted(options);
      await applyFile(
        cli,
        client,
        {
          ...(file === undefined ? {} : { file: resolve(file) }),
          ...(name === undefined ? {} : { name }),
          ...(dryRun ? { dryRun } : {}),
        },
        json === true,
      );
    });
};

/** Has the switch apply its file and prints what that did; the exit status is 1 if not all could be done. */
export async function applyFile(
  cli: Cli,
  client: ControlClient,
  request: ReloadRequest,
  json: boolean,
): Promise<void> {
  const report = await client.post('/reload', request);
  if (json) printJson(cli, report);
  else cli.out.write(`${report.dryRun ? 'would have ' : ''}${reloadText(report)}\n`);
  for (const sentence of report.failed) cli.err.write(`vhop: ${plain(sentence)}\n`);
  if (report.failed.length > 0) cli.status = 1;
}

/** `added c, changed b (rate), removed a; 3 ports untouched`. */
export function reloadText(report: Reloaded): string {
  const { added, changed, replaced, removed, untouched } = report;
  const why = ({ port, keys }: { port: string; keys: string[] }) => `${port} (${keys.join(', ')})`;
  const done = [
    ['added', added],
    ['changed', [...changed.map(why), ...report.switch]],
    ['replaced', replaced.map(why)],
    ['removed', removed],
  ] as const;
  const parts = done.flatMap(([what, names]) =>
    names.length > 0 ? [`${what} ${names.join(' ')}`] : [],
  );
  const left = `${untouched} port${untouched === 1 ? '' : 's'} untouched`;
  return `${parts.length > 0 ? parts.join(', ') : 'changed nothing'}; ${left}`;
}
