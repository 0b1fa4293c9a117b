// A TCP stream that goes on until it is told to stop, and is then found whole by SHA-256.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type Machine, spawnIn } from '../peers/guest.ts';
import { waitFor } from '../peers/process.ts';

/** What the stream repeats, numbered: the guests' busybox. */
const CHUNK = readFileSync(
  execFileSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).trim(),
);
const PORT = 5100;

export interface Stream {
  /** Ends it, compares what was sent with what arrived, and returns the bytes. */
  stop(): Promise<number>;
}

/** Starts sending from one guest to `address`, which is the other's; one stream a receiver. */
export async function stream(from: Machine, to: Machine, address: string): Promise<Stream> {
  const stop = `/tmp/stop-${to.name}`;
  // busybox's nc ends the connection when its input does: here is one that never does.
  const receiver = await spawnIn(
    to,
    `[ -p /tmp/open ] || mkfifo /tmp/open\nnc -l -p ${PORT} 0<> /tmp/open | sha256sum`,
  );
  const listening = async (): Promise<boolean> =>
    (await to.run(`netstat -tln | grep -q :${PORT}`, { ok: false })).status === 0;
  await waitFor(listening, 10_000, 'nc -l');
  const sender = await spawnIn(
    from,
    `rm -f ${stop}; i=0
     until [ -e ${stop} ]; do i=$((i + 1)); echo $i; cat /bin/busybox; done | nc ${address} ${PORT}
     echo sent`,
  );
  return {
    async stop() {
      await from.run(`touch ${stop}`);
      let output = '';
      const hashed = async (): Promise<boolean> => {
        output = await receiver.output();
        return output.includes('\n');
      };
      await waitFor(hashed, 120_000, 'the end of the stream', () => output);
      const digest = output.split(' ')[0];
      const ended = async () => (await sender.output()).includes('sent');
      await waitFor(ended, 30_000, `the end of nc in ${from.name}`);
      // The receiver's hash tells how many rounds there were, or that they did not arrive as sent.
      const hash = createHash('sha256');
      for (let i = 1; i < 10_000; i++) {
        hash.update(`${i}\n`).update(CHUNK);
        if (hash.copy().digest('hex') === digest) return i * CHUNK.length;
      }
      assert.fail(`what arrived from ${from.name} is no prefix of what was sent: ${output}`);
    },
  };
}
