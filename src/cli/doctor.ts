// `vhop doctor`: what on this machine works, what could be better, what stops vhop; with cures.

import { type Cli, printJson, type Register } from './cli.ts';
import { CHECKS, type Finding } from './doctor-checks.ts';
import { paint, plain } from './table.ts';

const COLOUR = { PASS: 'green', WARN: 'yellow', FAIL: 'red' } as const;

export const doctor: Register = (program, cli) => {
  program
    .command('doctor')
    .description('check whether this machine can run vhop')
    .option('--json', 'print JSON for programs')
    .addHelpText('after', '\nExits 1 if a check FAILs; WARN is for what could be better.\n')
    .action(async (options: { json?: boolean }) => {
      const findings: Finding[] = [];
      for (const check of CHECKS) {
        const found = await check();
        findings.push(found);
        if (!options.json) print(cli, found);
      }
      if (options.json) printJson(cli, findings);
      if (findings.some((f) => f.verdict === 'FAIL')) cli.status = 1;
    });
};

function print(cli: Cli, { verdict, check, found, cure }: Finding): void {
  cli.out.write(`${paint(cli.out, COLOUR[verdict], verdict)}  ${check}: ${plain(found)}\n`);
  if (cure !== undefined) cli.out.write(`      ${plain(cure)}\n`);
}
