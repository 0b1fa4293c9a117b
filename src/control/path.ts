// Where a switch's control socket lives, and who may have put it there.

import { existsSync, lstatSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { MAX_SOCKET_PATH } from '../limits.ts';

/** The switch cannot be controlled, or not reached; the message is one sentence with the cure. */
export class ControlError extends Error {
  override name = 'ControlError';
}

/** What decides the folder; the process's own by default, other values in tests. */
export interface Surroundings {
  /** $XDG_RUNTIME_DIR. */
  runtimeDir?: string | undefined;
  uid: number;
  /** `/` but in tests. */
  root?: string;
}

export function surroundings(): Surroundings {
  return { runtimeDir: process.env['XDG_RUNTIME_DIR'], uid: process.getuid?.() ?? 0 };
}

/**
 * The folders a control socket of this user may be in, best first. A switch uses the first one; a
 * client looks in all, since the two may have been started from different kinds of sessions.
 */
export function runtimeFolders(of: Surroundings = surroundings()): string[] {
  const root = of.root ?? '/';
  const folders: string[] = [];
  if (of.runtimeDir?.startsWith('/') && existsSync(of.runtimeDir)) {
    folders.push(join(of.runtimeDir, 'vhop'));
  }
  const byUser = join(root, 'run/user', String(of.uid));
  if (existsSync(byUser)) folders.push(join(byUser, 'vhop'));
  folders.push(join(root, 'tmp', `vhop-${of.uid}`));
  return [...new Set(folders)];
}

/**
 * The control socket's path for a switch called `name`: `given` (--control) if there is one, else
 * in the first runtime folder. Does not touch the file system beyond looking.
 */
export function controlPath(name: string, given?: string, of = surroundings()): string {
  const path =
    given === undefined ? join(runtimeFolders(of)[0] ?? '/tmp', `${name}.sock`) : resolve(given);
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_PATH) {
    throw new ControlError(
      `the control socket's path '${path}' is ${bytes} bytes, at most ${MAX_SOCKET_PATH} work: ` +
        'give a shorter one with --control',
    );
  }
  return path;
}

/**
 * Where a switch called `name` keeps what is to outlive it: memory, not a disk, whose write-back would hold
 * workers up. Undefined where the system has none.
 */
export function statePath(name: string, of = surroundings()): string | undefined {
  const memory = join(of.root ?? '/', 'dev/shm');
  return existsSync(memory) ? join(memory, `vhop-${of.uid}`, `${name}.state`) : undefined;
}

/**
 * Makes the runtime folder, for its user only (0700). Throws ControlError if it is somebody else's
 * or not a folder: in /tmp anyone could have made it first, and would then own the switch.
 */
export function makeRuntimeFolder(folder: string, uid = surroundings().uid): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'EEXIST') {
      throw new ControlError(
        `the folder '${folder}' cannot be made (${code}): give another place with --control`,
      );
    }
  }
  const fault = folderFault(folder, uid);
  if (fault !== undefined) {
    throw new ControlError(`the folder '${folder}' ${fault}: give another place with --control`);
  }
}

/** Why a runtime folder is not to be trusted, or undefined when it is. It must exist. */
export function folderFault(folder: string, uid = surroundings().uid): string | undefined {
  const stat = lstatSync(folder);
  if (!stat.isDirectory()) return 'is not a folder';
  if (stat.uid !== uid) return `belongs to user ${stat.uid}, not to you`;
  if ((stat.mode & 0o022) !== 0) return 'can be written by other users (chmod 700 cures it)';
  return undefined;
}
