// `vhop up`: a switch or wire from a file. `--check` only says whether the file is right.

import type { Register } from './cli.ts';
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
`;

interface UpOptions {
  name?: string;
  control?: string;
  state?: string;
  live?: boolean;
  json?: boolean;
  check?: boolean;
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
      const { name, control, state, live, json } = options;
      await runSwitch(cli, {
        switch: { ...config.switch, ...(name === undefined ? {} : { name }) },
        ports: config.ports,
        control,
        state,
        live,
        json,
      });
    });
};
