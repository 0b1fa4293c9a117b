// What became of a port's link, in few words.

import type { LinkDown, PortHistory, PortInfo } from '../types.ts';
import { span } from './units.ts';

/** `stopped by its guest`, `connection lost: the peer closed the connection`, or why it was quarantined. */
export function downText({ cause, reason = '' }: LinkDown): string {
  if (cause === 'stopped') return 'stopped by its guest';
  return cause === 'lost' ? `connection lost: ${reason}` : reason;
}

/** How the link came to be up: `reconnected after 38 ms`; just `up` the first time. */
export function upText({ down, resumed }: PortHistory): string {
  if (down?.gap !== undefined) {
    return `${down.cause === 'lost' ? 'reconnected' : 'up again'} after ${span(down.gap)}`;
  }
  return resumed === undefined ? 'up' : `up ${span(resumed)} after the switch was restarted`;
}

/** `reconnected after 38 ms, lost 4 times, 3 restarts of the switch`; undefined where there is nothing to tell. */
export function storyText({ state, reason, history, logging }: PortInfo): string | undefined {
  const { down, lost, restarts } = history;
  const parts: string[] = [];
  if (reason !== undefined) parts.push(reason);
  else if (down && state !== 'up') parts.push(downText(down));
  // A guest that stops its rings and starts them again is none of the switch's business.
  else if (down && down.cause !== 'stopped') parts.push(upText(history));
  if (lost > 1) parts.push(`lost ${lost} times`);
  if (restarts > 0) parts.push(`${restarts} restart${restarts === 1 ? '' : 's'} of the switch`);
  if (logging) parts.push('logging on');
  return parts.length > 0 ? parts.join(', ') : undefined;
}
