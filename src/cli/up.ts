// `vhop up`: a switch or wire from a file. `--check` only says whether the file is right.

import { resolve } from 'node:path';
import { connectTo, probe } from '../control/client.ts';
import { ControlError, controlPath } from '../control/path.ts';
import type { Cli, Register } from './cli.ts';
import { applyFile } from './reload.ts';
import { runSwitch } from './run.ts';
import { runOptions } from './sockets.ts';

const HELP = `
A file:
  name: lab
  forwarding: switch        # or wire
  ports:
    - path: /tmp/a.sock
      socket: { mode: '0660', group: kvm }
    - path: /tmp/b.sock
      name: web
      mode: client
      queues: 2
      mtu: 1500
      mac: 52:54:00:12:34:56

schema/vhop.schema.json describes it for editors.

Where the switch runs already, what changed in the file is applied to it (as
vhop reload does), and the command ends. With --takeover this process goes on
in place of the running one, a newer version of vhop for one.
`;

interface UpOptions {
  name?: string;
  control?: string;
  state?: string;
  live?: boolean;
  json?: boolean;
  check?: boolean;
  takeover?: boolean;
}

export const up: Register = (program, cli) => {
  runOptions(program.command('up').description('run the switch or wire a YAML file describes'))
    .argument('<file>', 'the YAML file')
    .option('--check', 'check the file and print nothing if it is right')
    .addHelpText('after', HELP)
    .action(async (file: string, options: UpOptions) => {
      // YAML and the schema take longer to load than all else: only this command pays for them.
      const { loadConfig } = await import('../config/load.ts');
      const config = loadConfig(file);
      if (options.check) return;
      const { name, control, state, live, json, takeover } = options;
      if (!takeover && (await applied(cli, file, config.switch.name, options))) return;
      await runSwitch(cli, {
        switch: { ...config.switch, ...(name === undefined ? {} : { name }) },
        ports: config.ports,
        source: { file, name },
        control,
        state,
        live,
        json,
        takeover,
      });
    });
};

/**
 * Applies the file to the switch of its name, should that run from a file; false where it does not. Throws
 * ControlError where only the lack of a name makes them the same switch.
 */
async function applied(
  cli: Cli,
  file: string,
  named: string | undefined,
  { name, control, json }: UpOptions,
): Promise<boolean> {
  const path = controlPath(name ?? named ?? 'default', control);
  const found = await probe(path);
  if (found.state !== 'switch' || found.info.file === undefined) return false;
  const { info } = found;
  const given = name ?? named ?? control;
  if (given === undefined && info.file !== resolve(file)) {
    throw new ControlError(
      `a switch named ${info.name} already runs (pid ${info.pid}) from ${info.file}: ` +
        `use --name for another, or make that one what this file says with: vhop reload ${file}`,
    );
  }
  const request = { file: resolve(file), ...(name === undefined ? {} : { name }) };
  await applyFile(cli, connectTo(path), request, json === true);
  return true;
}
