// tx and txseq.

import { NetmapError, type NetmapRing } from '../netmap/types.ts';
import { ConstantFiller, CopyFiller, type Cut, type Filler } from './fill.ts';
import type { Job } from './job.ts';
import { Pacer } from './rate.ts';
import { Replay, type Source, UdpSource } from './source.ts';

/** Nanoseconds that the other side may take none of what was sent last. */
const FLUSH = 3e9;

/** One filler for each ring. */
export function fillers(job: Job, cut: Cut): Filler[] {
  const { port, settings } = job;
  const { traffic } = settings;
  const numbered = settings.mode === 'txseq';
  let source: Source;
  let constant: boolean;
  if (traffic.frames !== undefined) {
    source = new Replay(traffic.frames);
    constant = traffic.frames.length === 1;
  } else {
    const udp = new UdpSource(traffic, { numbered });
    source = udp;
    constant = udp.constant;
  }
  const frame = source.view;
  const whole = cut.fragments === 1 && frame.length <= cut.longest;
  if (settings.rubbish || (constant && whole && !settings.copy)) {
    const size = settings.rubbish ? Math.min(frame.length, cut.longest) : frame.length;
    const written = settings.rubbish ? undefined : frame;
    return port.tx.map(
      (ring) => new ConstantFiller(port.memory, ring, size, written, settings.header),
    );
  }
  const copies = new CopyFiller(port.memory, source, cut, settings.header);
  return port.tx.map(() => copies);
}

/** Sends until the count is reached or the run ends, on all TX rings in turn. */
export async function transmit(job: Job, fill: readonly Filler[]): Promise<void> {
  const { port, settings, time, counts } = job;
  const { burst, rate, dump } = settings;
  const rings = port.tx;
  const all = new Set(fill);
  job.start();
  const pacer = rate === undefined ? undefined : new Pacer(rate, job.started);
  // Frames to wait for, so that a fast pace does not make a sync of each.
  const batch = rate === undefined ? 1 : Math.min(Math.max(Math.floor(rate / 300), 1), burst);
  let first = 0;
  while (!job.ended && job.left > 0) {
    const now = time.now();
    if (now >= job.turnAt) await job.turn();
    let quota = job.left;
    if (pacer !== undefined) {
      const wanted = Math.min(batch, quota);
      quota = Math.min(pacer.due(now), quota);
      if (quota < wanted) {
        await job.waitUntil(pacer.when(wanted));
        continue;
      }
    }
    let sent = 0;
    for (let k = 0; k < rings.length && sent < quota; k++) {
      // Each round begins with another ring: a pace that one could keep is spread over all.
      const index = (first + k) % rings.length;
      const ring = rings[index]!;
      job.sawSpace(ring.space);
      const from = ring.head;
      const frames = fill[index]!.fill(ring, Math.min(burst, quota - sent));
      if (dump) job.dump(ring, from, ring.head);
      port.txSync(ring);
      if (frames === 0) continue;
      sent += frames;
      counts.events++;
    }
    first = (first + 1) % rings.length;
    if (sent === 0) {
      await job.wait({ tx: true });
      continue;
    }
    job.busy();
    pacer?.sent(sent);
    counts.packets += sent;
    counts.bytes = 0;
    for (const filler of all) counts.bytes += filler.bytes;
  }
  await flush(job, rings);
}

/** What is in the rings goes out before the totals are told, unless Ctrl-C has come. */
async function flush(job: Job, rings: readonly NetmapRing[]): Promise<void> {
  const { port, time } = job;
  job.busy();
  for (const ring of rings) {
    let left = ring.slots;
    let until = 0;
    while (!job.ended) {
      const now = time.now();
      const pending = ring.slots - 1 - port.txSync(ring);
      if (pending === 0) break;
      if (pending < left) until = now + FLUSH;
      left = pending;
      if (now >= until) {
        throw new NetmapError(
          'down',
          `${port.name}: ${left} slots were not sent, the other side takes no more: see whether it runs`,
        );
      }
      await job.pause();
    }
  }
}
