// What a session of either role tells people of its peer, and of what went wrong with it.

import { peerCredentials, processName, SystemError } from '../linux/index.ts';
import type { PeerInfo } from '../types.ts';
import { Refusal } from './backend.ts';

/** The process behind a socket; undefined where the system does not tell. */
export function peerOf(fd: number): PeerInfo | undefined {
  try {
    const peer = peerCredentials(fd);
    const process = processName(peer.pid);
    return process === undefined ? peer : { ...peer, process };
  } catch {
    return undefined;
  }
}

/** An exception for people. One that nobody foresaw keeps its kind, so that it can be reported. */
export function sentence(error: unknown): string {
  if (error instanceof Refusal || error instanceof SystemError) return error.message;
  return `internal error (${error instanceof Error ? `${error.name}: ${error.message}` : error})`;
}
