// `vhop fdb`: which MAC address is behind which port, as `ovs-appctl fdb/show` prints it.

import { findWanted, printJson, type QueryOptions, query, type Register } from './cli.ts';
import { printTable } from './table.ts';

export const fdb: Register = (program, cli) => {
  query(program, 'fdb', 'list the MAC addresses it has learned').action(
    async (options: QueryOptions) => {
      const entries = await (await findWanted(options)).get('/fdb');
      if (options.json) {
        // `mac` and `ifname` are what `bridge -j fdb show` calls them.
        printJson(
          cli,
          entries.map((e) => ({ mac: e.mac, ifname: e.port, port: e.port, age: e.age })),
        );
        return;
      }
      printTable(
        cli.out,
        [{ title: 'port', align: 'right' }, { title: 'MAC' }, { title: 'Age', align: 'right' }],
        entries.map((e) => [e.port, e.mac, Math.floor(e.age)]),
      );
    },
  );
};
