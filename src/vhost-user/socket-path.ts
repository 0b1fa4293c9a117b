// The file of a listening socket: taken with a clear word about whoever has it already, and given
// back only if it is still ours.

import { lstatSync, type Stats, unlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import {
  close,
  connectUnix,
  ERRNO,
  type FileAccess,
  groupId,
  listenUnix,
  peerCredentials,
  processStart,
  SystemError,
  userId,
} from '../linux/index.ts';
import type { SocketAccess } from '../types.ts';

/** A path that cannot be listened on; the message says why and what to do, in one sentence. */
export class PathError extends Error {
  override name = 'PathError';
}

/** A listening socket and the file it was given. */
export interface SocketFile {
  readonly fd: number;
  readonly path: string;
  readonly device: number;
  readonly inode: number;
}

/**
 * Listens on `path`, taking over a stale socket file (one that nobody listens on). Throws PathError, or
 * RangeError for a path of more than 107 bytes.
 */
export function openSocketFile(path: string, access: SocketAccess = {}): SocketFile {
  const { mode, owner, group } = access;
  const ids = { mode, uid: idOf('user', owner, userId), gid: idOf('group', group, groupId) };
  const listen = () => tryListen(path, ids, access);
  let fd = listen();
  if (fd === 'taken') {
    removeStale(path);
    fd = listen();
  }
  if (fd === 'taken') throw new PathError(`${path} is in use by another process`);
  const { dev, ino } = lstatSync(path);
  return { fd, path, device: dev, inode: ino };
}

/** The file of a socket that another process made and handed over. */
export function adoptSocketFile(fd: number, path: string): SocketFile {
  const found = lstat(path);
  return { fd, path, device: found?.dev ?? 0, inode: found?.ino ?? 0 };
}

/** Stops listening, and removes the file unless another has taken its place. */
export function closeSocketFile(file: SocketFile): void {
  close(file.fd);
  if (isInPlace(file)) unlink(file.path);
}

/** Whether who connects to the path finds this socket. */
export function isInPlace({ path, device, inode }: SocketFile): boolean {
  const now = lstat(path);
  return now?.dev === device && now.ino === inode;
}

function idOf(
  kind: 'user' | 'group',
  wanted: string | number | undefined,
  find: (name: string) => number | undefined,
): number | undefined {
  if (typeof wanted !== 'string') return wanted;
  const id = find(wanted);
  if (id !== undefined) return id;
  throw new PathError(`there is no ${kind} '${wanted}' on this machine; create it or give another`);
}

function tryListen(path: string, ids: FileAccess, access: SocketAccess): number | 'taken' {
  try {
    return listenUnix(path, ids);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (error.errno === ERRNO.EADDRINUSE) return 'taken';
    const why = error.syscall === 'chown' ? gift(access) : cure(error, dirname(path));
    throw new PathError(`cannot listen on ${path}: ${why}`);
  }
}

function gift({ owner, group }: SocketAccess): string {
  const whom = [
    ...(owner === undefined ? [] : [`user ${owner} (only root may)`]),
    ...(group === undefined ? [] : [`group ${group} (only its members may, and root)`]),
  ];
  return `this user may not give it to ${whom.join(' and ')}; run as one who may, or leave that out`;
}

function cure(error: SystemError, directory: string): string {
  switch (error.errno) {
    case ERRNO.ENOENT:
      return `the directory ${directory} does not exist; create it (mkdir -p ${directory})`;
    case ERRNO.ENOTDIR:
      return `${directory} is not a directory; choose another path`;
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      return (
        `this user may not create files in ${directory}; ` +
        'run as one who may, or choose another directory'
      );
    case ERRNO.EROFS:
      return `${directory} is on a read-only file system; choose another directory`;
    default:
      return error.message;
  }
}

function removeStale(path: string): void {
  const found = lstat(path);
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new PathError(
      `cannot listen on ${path}: it is ${kind(found)}, not a socket; ` +
        'remove it or choose another path',
    );
  }
  if (!isStale(path)) return;
  // Between the two looks another process may have put its own socket there.
  if (lstat(path)?.ino === found.ino) unlink(path);
}

/** True if nobody listens; throws PathError if somebody does. False: it vanished meanwhile. */
function isStale(path: string): boolean {
  let fd: number;
  try {
    fd = connectUnix(path);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (error.errno === ERRNO.ECONNREFUSED) return true;
    if (error.errno === ERRNO.ENOENT) return false;
    // EAGAIN: its queue is full. EPROTOTYPE: a socket of another type. Both have an owner.
    if (error.errno === ERRNO.EAGAIN || error.errno === ERRNO.EPROTOTYPE) {
      throw new PathError(`${path} is in use by another process`);
    }
    throw new PathError(`cannot take over ${path}: ${error.message}`);
  }
  const { pid } = peerCredentials(fd);
  close(fd);
  if (pid === process.pid) throw new PathError(`${path} is in use by this very process`);
  // Zero: the process is in another pid namespace. Gone: it handed the socket over to somebody else.
  const named = pid > 0 && processStart(pid) !== undefined;
  throw new PathError(`${path} is in use by another process${named ? ` (pid ${pid})` : ''}`);
}

function kind(found: Stats): string {
  if (found.isDirectory()) return 'a directory';
  if (found.isSymbolicLink()) return 'a symbolic link';
  if (found.isFile()) return 'a regular file';
  return 'a device or pipe';
}

function lstat(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

function unlink(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT') throw new PathError(`cannot remove ${path}: ${message}`);
  }
}
