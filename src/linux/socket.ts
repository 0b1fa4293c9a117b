// Unix stream sockets that pass file descriptors (SCM_RIGHTS), which Node's own `net` cannot.
// Every socket and every fd received is CLOEXEC; every socket is non-blocking.

import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  openSync,
  unlinkSync,
} from 'node:fs';
import { MAX_SOCKET_PATH } from '../limits.ts';
import { ERRNO, SystemError } from './errors.ts';
import { close } from './eventfd.ts';
import { checked, lastErrno, lastError, libc, permanentScratch } from './ffi.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const POLLHUP_OR_ERR = 0x10 | 0x08;
const POLLRDHUP = 0x2000;
const BACKLOG = 16;
const O_PATH = 0o10000000;

/** Most fds one message may carry (SCM_MAX_FD). */
export const MAX_MESSAGE_FDS = 253;

const cSocket = libc.func('int socket(int domain, int type, int protocol)');
const cSocketpair = libc.func('int socketpair(int domain, int type, int protocol, uintptr_t fds)');
const cBind = libc.func('int bind(int fd, uintptr_t address, unsigned int length)');
const cConnect = libc.func('int connect(int fd, uintptr_t address, unsigned int length)');
const cChown = libc.func('int chown(const char *path, unsigned int uid, unsigned int gid)');
const cListen = libc.func('int listen(int fd, int backlog)');
const cAccept = libc.func('int accept4(int fd, uintptr_t address, uintptr_t length, int flags)');
const cGetsockopt = libc.func(
  'int getsockopt(int fd, int level, int name, uintptr_t value, uintptr_t length)',
);
const cPoll = libc.func('int poll(uintptr_t fds, unsigned long count, int timeout)');
const cRecvmsg = libc.func('intptr_t recvmsg(int fd, uintptr_t message, int flags)');
const cSendmsg = libc.func('intptr_t sendmsg(int fd, uintptr_t message, int flags)');

// Scratch: struct msghdr at 0 (56 bytes), one struct iovec at 64, the control buffer at 128,
// payload bytes at 4096. Small structures of other calls use the front as well.
const IOVEC = 64;
const CONTROL = 128;
const DATA = 4096;
const CAPACITY = 65536 - DATA;
const CMSG_HEADER = 16;
const scratch = permanentScratch(65536);
const { bytes: memory, view } = scratch;

function fillMessage(length: number, controlLength: number): void {
  memory.fill(0, 0, 80);
  view.setBigUint64(16, BigInt(scratch.address + IOVEC), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, BigInt(controlLength === 0 ? 0 : scratch.address + CONTROL), true);
  view.setBigUint64(40, BigInt(controlLength), true);
  view.setBigUint64(IOVEC, BigInt(scratch.address + DATA), true);
  view.setBigUint64(IOVEC + 8, BigInt(length), true);
}

/** Throws RangeError for a path no Unix socket can have: one of more than 107 bytes, say. */
export function checkSocketPath(path: string): void {
  encodePath(path);
}

function encodePath(path: string): Buffer {
  const name = Buffer.from(path);
  if (name.length > MAX_SOCKET_PATH) {
    throw new RangeError(
      `socket path ${path} is ${name.length} bytes long; the system allows ${MAX_SOCKET_PATH}, ` +
        'so choose a shorter directory or name',
    );
  }
  if (name.length === 0 || name.includes(0)) {
    throw new RangeError('a socket path is empty or contains a zero byte');
  }
  return name;
}

/** Writes sockaddr_un to the scratch and returns its length. */
function fillAddress(path: string): number {
  const name = encodePath(path);
  view.setUint16(0, AF_UNIX, true);
  name.copy(memory, 2);
  memory[2 + name.length] = 0;
  return 2 + name.length + 1;
}

function openSocket(): number {
  return checked(cSocket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket');
}

/** Who may connect to a socket file: permission bits, and ids of its owner and group. */
export interface FileAccess {
  mode?: number;
  uid?: number;
  gid?: number;
}

/**
 * Creates the socket file at `path` and listens. With any of `access` the file is nobody's to connect
 * to until it is as asked (mode: 0o600 by default, with a gid 0o660); without, umask decides. The caller
 * owns the fd and the file. Throws SystemError (EADDRINUSE, ENOENT, EACCES; of chown: EPERM), or
 * RangeError for a path of more than 107 bytes.
 */
export function listenUnix(path: string, access: FileAccess = {}): number {
  const { uid, gid, mode = gid === undefined ? 0o600 : 0o660 } = access;
  const asked = Object.values(access).some((value) => value !== undefined);
  const length = fillAddress(path);
  const fd = openSocket();
  let bound = false;
  try {
    // bind() gives the file the socket's own mode, less umask.
    if (asked) fchmodSync(fd, 0);
    checked(cBind(fd, scratch.address, length), 'bind', path);
    bound = true;
    if (asked) setAccess(path, mode, uid, gid);
    checked(cListen(fd, BACKLOG), 'listen', path);
  } catch (error) {
    close(fd);
    if (bound) unlinkSync(path);
    throw error;
  }
  return fd;
}

/** By descriptor: whoever may write to the directory could put something else at the path meanwhile. */
function setAccess(path: string, mode: number, uid = -1, gid = -1): void {
  const file = openSync(path, O_PATH | constants.O_NOFOLLOW);
  const at = `/proc/self/fd/${file}`;
  try {
    if (!fstatSync(file).isSocket()) throw new SystemError('open', ERRNO.ENOTSOCK, path);
    // The owner last: of somebody else's file only root may change the rest.
    if (gid !== -1) checked(cChown(at, -1, gid), 'chown', path);
    chmodSync(at, mode);
    if (uid !== -1) checked(cChown(at, uid, -1), 'chown', path);
  } finally {
    closeSync(file);
  }
}

/** Accepts one connection; -1 if none is waiting. The caller owns it. Throws SystemError. */
export function acceptUnix(fd: number): number {
  for (;;) {
    const peer = cAccept(fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (peer >= 0) return peer;
    const errno = lastErrno();
    if (errno === ERRNO.EAGAIN) return -1;
    if (errno !== ERRNO.EINTR && errno !== ERRNO.ECONNABORTED) throw lastError('accept');
  }
}

/**
 * Connects to a listening socket, without waiting. The caller owns the fd. Throws SystemError
 * (ENOENT: no such file, ECONNREFUSED: nobody listens, EAGAIN: too many are waiting), or RangeError
 * for a path of more than 107 bytes.
 */
export function connectUnix(path: string): number {
  const length = fillAddress(path);
  const fd = openSocket();
  // A Unix stream socket connects at once or not at all: there is no EINPROGRESS.
  const result = cConnect(fd, scratch.address, length);
  if (result === 0) return fd;
  const error = lastError('connect', path);
  close(fd);
  throw error;
}

/** What one recvmsg returned. The caller owns every fd in it. */
export interface Received {
  /** Bytes put into the buffer; 0: the peer closed its end. */
  bytes: number;
  fds: number[];
  /** MSG_CTRUNC: the peer sent more fds than asked for, or this process may open no more. */
  truncated: boolean;
}

/**
 * Receives up to `buffer.length` (and at most 60 KiB) bytes with up to `maxFds` (0..253) fds.
 * 'again' if nothing is there. Throws SystemError (ECONNRESET).
 */
export function recvWithFds(fd: number, buffer: Uint8Array, maxFds: number): Received | 'again' {
  const room = Math.min(buffer.length, CAPACITY);
  // CMSG_LEN, not CMSG_SPACE: the padding would be room for one fd more.
  const controlRoom = maxFds === 0 ? 0 : CMSG_HEADER + 4 * Math.min(maxFds, MAX_MESSAGE_FDS);
  for (;;) {
    fillMessage(room, controlRoom);
    const bytes = cRecvmsg(fd, scratch.address, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (bytes < 0) {
      const errno = lastErrno();
      if (errno === ERRNO.EAGAIN) return 'again';
      if (errno === ERRNO.EINTR) continue;
      throw lastError('recvmsg', `fd ${fd}`);
    }
    buffer.set(memory.subarray(DATA, DATA + bytes));
    const fds = controlRoom === 0 ? [] : receivedFds(Number(view.getBigUint64(40, true)));
    return { bytes, fds, truncated: (view.getUint32(48, true) & MSG_CTRUNC) !== 0 };
  }
}

function receivedFds(controlLength: number): number[] {
  const fds: number[] = [];
  const end = CONTROL + controlLength;
  let at = CONTROL;
  while (at + CMSG_HEADER <= end) {
    const length = Number(view.getBigUint64(at, true));
    if (length < CMSG_HEADER || at + length > end) break;
    const level = view.getInt32(at + 8, true);
    const type = view.getInt32(at + 12, true);
    if (level === SOL_SOCKET && type === SCM_RIGHTS) {
      for (let p = at + CMSG_HEADER; p + 4 <= at + length; p += 4) fds.push(view.getInt32(p, true));
    }
    at += (length + 7) & ~7;
  }
  return fds;
}

/**
 * Sends bytes (at least one; at most 60 KiB at a time) with fds, which stay the caller's. Returns
 * how many bytes went, the fds with the first of them; 'again' if none. Throws SystemError (EPIPE).
 */
export function sendWithFds(fd: number, bytes: Uint8Array, fds: number[] = []): number | 'again' {
  if (bytes.length === 0) throw new RangeError('sendmsg: no bytes to carry the descriptors');
  if (fds.length > MAX_MESSAGE_FDS) throw new RangeError(`sendmsg: ${fds.length} descriptors`);
  const length = Math.min(bytes.length, CAPACITY);
  memory.set(length === bytes.length ? bytes : bytes.subarray(0, length), DATA);
  const controlLength = fds.length === 0 ? 0 : CMSG_HEADER + 4 * fds.length;
  fillMessage(length, controlLength);
  if (fds.length > 0) {
    view.setBigUint64(CONTROL, BigInt(controlLength), true);
    view.setInt32(CONTROL + 8, SOL_SOCKET, true);
    view.setInt32(CONTROL + 12, SCM_RIGHTS, true);
    for (const [i, each] of fds.entries()) view.setInt32(CONTROL + CMSG_HEADER + 4 * i, each, true);
  }
  for (;;) {
    const sent = cSendmsg(fd, scratch.address, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    const errno = lastErrno();
    if (errno === ERRNO.EAGAIN) return 'again';
    if (errno !== ERRNO.EINTR) throw lastError('sendmsg', `fd ${fd}`);
  }
}

/** Who is at the other end, as it was when it connected (SO_PEERCRED). Throws SystemError. */
export function peerCredentials(fd: number): { pid: number; uid: number; gid: number } {
  view.setUint32(16, 12, true);
  checked(
    cGetsockopt(fd, SOL_SOCKET, SO_PEERCRED, scratch.address, scratch.address + 16),
    'getsockopt',
    'SO_PEERCRED',
  );
  return {
    pid: view.getInt32(0, true),
    uid: view.getUint32(4, true),
    gid: view.getUint32(8, true),
  };
}

/** Whether the other end has closed or shut down its side, however much is left to read. */
export function hungUp(fd: number): boolean {
  view.setInt32(0, fd, true);
  view.setInt16(4, POLLRDHUP, true);
  view.setInt16(6, 0, true);
  const ready = cPoll(scratch.address, 1, 0);
  return ready > 0 && (view.getInt16(6, true) & (POLLRDHUP | POLLHUP_OR_ERR)) !== 0;
}

/** Two connected sockets; the caller owns both. Throws SystemError. */
export function socketPair(): [number, number] {
  const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  checked(cSocketpair(AF_UNIX, type, 0, scratch.address), 'socketpair');
  return [view.getInt32(0, true), view.getInt32(4, true)];
}
