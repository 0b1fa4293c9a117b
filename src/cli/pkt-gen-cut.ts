// pkt-gen's options against the port that was opened.

import { MAX_FRAGS, type NetmapPort } from '../netmap/types.ts';
import { type Cut, fits, pieceSize } from '../tools/fill.ts';
import type { Settings } from '../tools/settings.ts';
import { UsageError } from './cli.ts';
import { leastBytes, type PktGenOptions, SENDERS } from './pkt-gen-settings.ts';

/** How frames are cut into slots; throws for what the port cannot do. */
export function cutFor(port: NetmapPort, options: PktGenOptions, settings: Settings): Cut {
  const queues = port.tx.filter((ring) => !ring.host).length;
  if (options.p !== undefined && queues < options.p) {
    throw new UsageError(`-p ${options.p}: ${port.name} has ${queues} queue pairs: ask for fewer`);
  }
  const room = Math.min(...port.tx.map((ring) => ring.bufferSize - ring.offset(0)));
  const longest = Math.min(settings.fragmentSize ?? room, room);
  const cut = { fragments: settings.fragments, longest };
  if (!SENDERS.includes(settings.mode)) return cut;
  const { frames, size } = settings.traffic;
  const given = frames === undefined ? `-l ${size}` : `-P: '${options.P}'`;
  frames?.forEach((frame, i) => {
    if (frame.length <= room || options.F > 1 || options.M !== undefined) return;
    throw new UsageError(
      `${given}: frame ${i + 1} has ${frame.length} bytes, a buffer of ${port.name} holds ` +
        `${room}: give -F ${Math.ceil(frame.length / room)} to spread frames over slots`,
    );
  });
  const { family, smallest = size } = settings.traffic;
  const least = leastBytes(settings.mode, family);
  if (settings.mode !== 'tx' && pieceSize(smallest, cut) < least) {
    throw new UsageError(
      `-l ${smallest}: a frame's first piece must hold ${least} bytes for -f ${settings.mode}: ` +
        'give larger frames or fewer pieces',
    );
  }
  const largest = frames === undefined ? size : Math.max(...frames.map((frame) => frame.length));
  if (!fits(largest, cut)) {
    throw new UsageError(
      `${given}: ${largest} bytes in pieces of ${longest} are more than ${MAX_FRAGS} slots: ` +
        'give a larger -M',
    );
  }
  return cut;
}
