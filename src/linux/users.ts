// Names of users and groups, of processes too: what a person reads instead of a number.

import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { libc } from './ffi.ts';

// By the C library, which asks whatever the machine keeps its users in. The results point to memory of
// its own; uid_t and gid_t both stand behind two pointers.
const cUser = libc.func('void *getpwnam(const char *name)');
const cGroup = libc.func('void *getgrnam(const char *name)');
const ID = 16;

/** The uid of a user; undefined if the system knows none of that name. */
export function userId(name: string): number | undefined {
  return idOf(cUser(name));
}

/** The gid of a group; undefined if the system knows none of that name. */
export function groupId(name: string): number | undefined {
  return idOf(cGroup(name));
}

function idOf(entry: unknown): number | undefined {
  return entry === null ? undefined : (koffi.decode(entry, ID, 'uint32_t') as number);
}

/** When a process began, in clock ticks since the system did; undefined where /proc does not tell. */
export function processStart(pid: number): string | undefined {
  try {
    // Behind the name, which may hold anything, in brackets.
    return readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ')[19];
  } catch {
    return undefined;
  }
}

/** Whether the process `PID:START` (processStart) is there, and not another one of its number. */
export function processLives(identity: string): boolean {
  const [pid, start] = identity.split(':');
  return start !== undefined && processStart(Number(pid)) === start;
}

/** What a process is called (at most 15 characters, its own choice); undefined where /proc does not tell. */
export function processName(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd();
  } catch {
    return undefined;
  }
}
