// Where the two ends of vhost-user meet, whichever of them is ours: listens on a path, or connects to
// it again and again, and runs one session at a time. Callers see one peer that comes and goes.

import {
  acceptUnix,
  checkSocketPath,
  close,
  connectUnix,
  EPOLLIN,
  ERRNO,
  type EventLoop,
  peerCredentials,
  SystemError,
} from '../linux/index.ts';
import type { PeerInfo, SocketAccess } from '../types.ts';
import { Budget } from './budget.ts';
import { Notices } from './notices.ts';
import {
  adoptSocketFile,
  closeSocketFile,
  isInPlace,
  openSocketFile,
  type SocketFile,
} from './socket-path.ts';

/** Between attempts to connect, and before accepting again what could not be, milliseconds. */
const RETRY_MS = 50;
/** From one look at the socket's file to the next, milliseconds: who removes it tells nobody. */
const LOOK_MS = 1000;

/** What the rendezvous gives to the session it starts. */
export interface MeetingOptions {
  /** A connected non-blocking Unix socket; the session owns it, also when its start fails. */
  fd: number;
  loop: EventLoop;
  /** Charged for what the peer asks; without one nothing is held back. */
  budget?: Budget;
  /** Trouble that did not end the connection, in one sentence. */
  onNotice: (message: string) => void;
  /** Called once, after everything else. `fault`: not a plain hang-up. */
  onClosed: (reason: string, fault: boolean) => void;
}

/** A session with one peer, from its connection to its end. */
export interface Meeting {
  /** The process at the other end; undefined where the system does not tell. */
  readonly peer: PeerInfo | undefined;
  /** Whether it came to anything: one that only ever fails is told of once. */
  readonly worked: boolean;
  /** Whether the peer is gone, though its last messages may not have been read yet. */
  readonly hungUp: boolean;
  /** Ends the connection; onClosed has been called when this returns. */
  close(reason: string, fault?: boolean): void;
  // Of those that another process can take over (connection.ts).
  suspend?(): boolean;
  resume?(): void;
  release?(): void;
}

/** Of either role. */
export interface SocketOptions {
  /** At most 107 bytes. */
  path: string;
  /** `server`: the peer connects to us. `client`: we connect to it. */
  mode: 'server' | 'client';
  loop: EventLoop;
  /** One sentence for people; each distinct one once per spell of trouble (notices.ts). */
  onNotice: (message: string) => void;
  /** Who may connect to a server; else whoever umask lets. */
  access?: SocketAccess;
  /** A peer is there: `peer` has just been set. As `onNotice`, not for each of a flood. */
  onConnected?: () => void;
  /** What all peers of this port may take of the main thread together. */
  budget?: Budget;
}

export interface RendezvousOptions<S extends Meeting> extends SocketOptions {
  /** What the other end is called. */
  other: 'front end' | 'back end';
  /** Before connecting again after a session that came to nothing, milliseconds. Default 50. */
  retryMs?: number;
  /** Starts a session. It may end before this returns. */
  meet: (options: MeetingOptions) => S;
}

export class Rendezvous<S extends Meeting> {
  readonly #options: RendezvousOptions<S>;
  readonly #notices: Notices;
  /** Apart: who comes and goes must not use up what is left to say about trouble. */
  readonly #arrivals: Notices;
  readonly #budget: Budget;
  #open = false;
  #session: S | undefined;
  #file: SocketFile | undefined;
  #unwatch: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #look: NodeJS.Timeout | undefined;

  constructor(options: RendezvousOptions<S>) {
    this.#options = options;
    this.#notices = new Notices(options.onNotice);
    this.#arrivals = new Notices(options.onNotice);
    this.#budget = options.budget ?? new Budget();
  }

  /** The session of now. */
  get session(): S | undefined {
    return this.#session;
  }

  /** The process connected now. */
  get peer(): PeerInfo | undefined {
    return this.#session?.peer;
  }

  get connected(): boolean {
    return this.#session !== undefined;
  }

  /**
   * Starts listening or connecting. A server throws PathError where the path cannot be had; a
   * client waits for it to appear. Both throw RangeError for a path of more than 107 bytes.
   */
  open(): void {
    if (this.#open) return;
    const { mode, path, access } = this.#options;
    if (mode === 'server') {
      this.#file = openSocketFile(path, access);
      try {
        this.#listen();
      } catch (error) {
        closeSocketFile(this.#file);
        throw error;
      }
      this.#open = true;
    } else {
      checkSocketPath(path);
      this.#open = true;
      this.#connect();
    }
  }

  // --- hand-over: the same rendezvous in another process --------------------------------------------

  /** Accepts nobody and reads nothing until `resume`. False, and nothing changes, where that must wait. */
  suspend(): boolean {
    if (!this.#open) return false;
    if (this.#session !== undefined && !this.#session.suspend?.()) return false;
    clearTimeout(this.#timer);
    this.#unwatch?.();
    this.#unwatch = undefined;
    return true;
  }

  resume(): void {
    if (!this.#open) return;
    this.#session?.resume?.();
    if (this.#file !== undefined) this.#relisten();
    else if (this.#session === undefined) this.#connect();
  }

  /** The socket that is listened on. */
  get listening(): number | undefined {
    return this.#file?.fd;
  }

  /** Lets go of the sockets, which another process has now: neither peers nor the path notice. */
  release(): void {
    this.#receiveNobody();
    this.#session?.release?.();
    this.#session = undefined;
    if (this.#file !== undefined) close(this.#file.fd);
    this.#file = undefined;
  }

  /**
   * Instead of `open`: owns the sockets of another process's rendezvous, suspended. `meet` starts the session on
   * `connected`.
   */
  adopt(
    { listening, connected }: { listening?: number | undefined; connected?: number | undefined },
    meet: (options: MeetingOptions) => S,
  ): void {
    this.#open = true;
    if (listening !== undefined) this.#file = adoptSocketFile(listening, this.#options.path);
    if (connected !== undefined) this.#start(connected, meet);
    this.#session?.suspend?.();
  }

  /** Ends the session for a fault of its peer's; the next one may come. */
  hangUp(reason: string): void {
    this.#session?.close(reason, true);
  }

  /** Gives the path back: nobody new comes. The session goes on. */
  withdraw(): void {
    this.#receiveNobody();
    const file = this.#file;
    this.#file = undefined;
    if (file !== undefined) closeSocketFile(file);
  }

  #receiveNobody(): void {
    this.#open = false;
    clearTimeout(this.#timer);
    clearInterval(this.#look);
    this.#look = undefined;
    this.#unwatch?.();
    this.#unwatch = undefined;
  }

  /** Ends the session and gives the path back. Repeating it does nothing. */
  close(): void {
    // The path goes first: a peer that reconnects at once must not find the old socket.
    try {
      this.withdraw();
    } finally {
      this.#session?.close('the port was closed');
    }
  }

  #later(action: () => void, ms = RETRY_MS): void {
    clearTimeout(this.#timer);
    // Whoever was told of the trouble may have closed the endpoint for it.
    if (!this.#open) return;
    this.#timer = setTimeout(action, ms);
  }

  #listen(): void {
    this.#unwatch = this.#options.loop.watch(this.#file!.fd, EPOLLIN, () => this.#accept());
    this.#look ??= setInterval(() => this.#keepFile(), LOOK_MS).unref();
  }

  /** Nobody finds a socket whose file was removed: listens on a new one, if the path can be had. */
  #keepFile(): void {
    const old = this.#file;
    if (old === undefined || this.#unwatch === undefined) return;
    const { path, access } = this.#options;
    try {
      if (isInPlace(old)) return;
      this.#file = openSocketFile(path, access);
    } catch (error) {
      this.#notices.say(`the socket file ${path} was removed: ${text(error)}`);
      return;
    }
    this.#unwatch();
    this.#unwatch = undefined;
    close(old.fd);
    this.#relisten();
    this.#notices.say(`the socket file ${path} was removed: there is a new one`);
  }

  #relisten(): void {
    if (this.#budget.exhausted) {
      this.#later(() => this.#relisten());
      return;
    }
    try {
      this.#listen();
    } catch (error) {
      this.#notices.say(`cannot listen on ${this.#options.path}: ${text(error)}`);
      this.#later(() => this.#relisten());
    }
  }

  #accept(): void {
    try {
      // Bounded by the caller's turn: whoever still waits makes the fd ready again.
      this.#budget.charge(() => {
        const fd = acceptUnix(this.#file!.fd);
        if (fd >= 0) this.#admit(fd);
      });
      if (this.#budget.exhausted) this.#lookAway();
    } catch (error) {
      // Out of descriptors: the connection stays in the queue, and the fd stays ready.
      this.#notices.say(`cannot accept on ${this.#options.path}: ${text(error)}`);
      this.#lookAway();
    }
  }

  /** Accepts nobody for a while. */
  #lookAway(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#later(() => this.#relisten());
  }

  #admit(fd: number): void {
    if (this.#session?.hungUp) this.#session.close('the peer closed the connection');
    if (this.#session === undefined) {
      this.#start(fd);
      return;
    }
    const { path, other } = this.#options;
    this.#notices.say(
      `a second ${other} (pid ${pidOf(fd)}) on ${path} was turned away: ` +
        `pid ${this.#session.peer?.pid ?? 0} is connected`,
    );
    close(fd);
  }

  // Runs from a timer: whatever fails is told and tried again.
  #connect(): void {
    const { path } = this.#options;
    try {
      this.#start(connectUnix(path));
    } catch (error) {
      this.#notices.say(`waiting for ${path}: ${absence(error)}`);
      this.#later(() => this.#connect());
    }
  }

  #start(fd: number, meet = this.#options.meet): void {
    let ended = false;
    const session = meet({
      fd,
      loop: this.#options.loop,
      budget: this.#budget,
      onNotice: (message) => this.#notices.say(message),
      onClosed: (reason, fault) => {
        ended = true;
        this.#ended(reason, fault);
      },
    });
    // The peer may have been refused at once.
    if (ended) return;
    this.#session = session;
    const { onConnected } = this.#options;
    if (onConnected) this.#arrivals.say(JSON.stringify(session.peer), onConnected);
  }

  #ended(reason: string, fault: boolean): void {
    // A session that did some work ends the spell of trouble before it; one that only ever fails
    // would say the same for each attempt.
    const worked = this.#session?.worked === true;
    if (worked) {
      this.#notices.forget();
      this.#arrivals.forget();
    }
    this.#session = undefined;
    if (fault) this.#notices.say(reason);
    if (!this.#open || this.#options.mode !== 'client') return;
    this.#later(() => this.#connect(), worked ? RETRY_MS : this.#options.retryMs);
  }
}

function absence(error: unknown): string {
  if (!(error instanceof SystemError)) return text(error);
  switch (error.errno) {
    case ERRNO.ENOENT:
      return 'there is no such socket yet';
    case ERRNO.ECONNREFUSED:
      return 'nobody listens on it';
    case ERRNO.EACCES:
      return 'this user may not connect to it; change its permissions or run as its owner';
    default:
      return error.message;
  }
}

function pidOf(fd: number): number {
  try {
    return peerCredentials(fd).pid;
  } catch {
    return 0;
  }
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
