// What every command is given, and the options several of them share.

import { type Command, InvalidArgumentError, Option } from 'commander';
import { type ControlClient, findSwitch } from '../control/client.ts';
import { NAME_PATTERN } from '../limits.ts';
import type { NetmapOptions, NetmapPort } from '../netmap/types.ts';
import type { Time } from '../tools/time.ts';
import type { SwitchApi, SwitchOptions } from '../types.ts';

export interface Output {
  write(text: string): unknown;
  isTTY?: boolean | undefined;
  /** Width of the terminal, characters. */
  columns?: number | undefined;
  /** Height of the terminal, lines. */
  rows?: number | undefined;
}

/** The world outside a command: the process's own streams but in tests. */
export interface Cli {
  out: Output;
  err: Output;
  /** The exit status so far: 0, 1 for a failure at run time, 2 for usage. */
  status: number;
  open(options: SwitchOptions): Promise<SwitchApi>;
  netmap(name: string, options: NetmapOptions): Promise<NetmapPort>;
  time: Time;
}

/** Adds one command to the program. Each command's file exports one of these. */
export type Register = (program: Command, cli: Cli) => void;

/** Wrong usage: one sentence that names the thing and the cure. Exit status 2. */
export class UsageError extends Error {
  override name = 'UsageError';
}

export interface Wanted {
  name?: string;
  control?: string;
}

export interface QueryOptions extends Wanted {
  json?: boolean;
}

export function parseName(value: string): string {
  if (!NAME_PATTERN.test(value)) {
    throw new InvalidArgumentError('Give 1 to 32 letters, digits, dots, dashes or underscores.');
  }
  return value;
}

/** A parser of whole numbers from `min` to `max`, for `option()` of commander. */
export function wholeNumber(min: number, max: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (!/^\d+$/.test(value) || number < min || number > max) {
      throw new InvalidArgumentError(`Give a whole number from ${min} to ${max}.`);
    }
    return number;
  };
}

/** --name and --control, as the commands that ask a running switch take them. */
export function whichSwitch(command: Command): Command {
  return command
    .addOption(new Option('-n, --name <name>', 'which switch, if several run').argParser(parseName))
    .option('--control <path>', "the running switch's control socket");
}

/** A command that asks a running switch: --name, --control, --json. */
export function query(program: Command, name: string, description: string): Command {
  return whichSwitch(program.command(name).description(description)).option(
    '--json',
    'print JSON for programs',
  );
}

export function findWanted(options: Wanted): Promise<ControlClient> {
  return findSwitch({ name: options.name, control: options.control });
}

export function printJson(cli: Cli, value: unknown): void {
  cli.out.write(`${JSON.stringify(value, null, 2)}\n`);
}
