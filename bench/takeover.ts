// How long guests are without a frame when their switch is replaced: by a process that takes its ports over,
// by one that is ready and opens them anew, and by a restart.
//
//   node bench/takeover.ts [TIMES]

import type { Child } from '../test/peers/process.ts';
import { Lab } from '../test/restart/lab.ts';

const times = Number(process.argv[2] ?? 20);

const ready = (child: Child) => () => child.stdout.includes('"started"');
/** Milliseconds for guests to be back after the new switch is. */
const SETTLE = 500;

/** Replaces `old`; `at`: an instant at which guests were not served, `pause`: what the switch tells of that. */
type Replace = (lab: Lab, old: Child) => Promise<{ next: Child; at: number; pause?: number }>;

function taken(...more: string[]): Replace {
  return async (lab, old) => {
    const next = lab.start('--takeover', ...more);
    await lab.traffic(ready(next));
    await lab.traffic(() => old.exit !== undefined);
    return { next, ...lab.handedOver(old) };
  };
}

const WAYS: Record<string, Replace> = {
  'taken over': taken(),
  // Another limit each time: no port is the same, so none is handed over.
  'opened anew by a process that is ready': (lab, old) =>
    taken('--mtu', String(9000 + Math.floor(Math.random() * 1000)))(lab, old),
  restarted: async (lab, old) => {
    const at = performance.timeOrigin + performance.now();
    old.kill('SIGTERM');
    await lab.traffic(() => old.exit !== undefined);
    const next = lab.start();
    await lab.traffic(ready(next));
    return { next, at };
  },
};

function summary(values: number[]): string {
  const sorted = values.toSorted((a, b) => a - b);
  const median = sorted[sorted.length >> 1] ?? 0;
  return `median ${median.toFixed(1)} ms, worst ${(sorted.at(-1) ?? 0).toFixed(1)} ms`;
}

for (const packed of [false, true]) {
  for (const [name, replace] of Object.entries(WAYS)) {
    const lab = new Lab(packed);
    lab.lossy = true;
    const gaps: number[] = [];
    const pauses: number[] = [];
    try {
      let child = await lab.open();
      for (let time = 0; time < times; time++) {
        lab.gaps = [];
        const { next, at, pause } = await replace(lab, child);
        child = next;
        const until = performance.now() + SETTLE;
        await lab.traffic(() => performance.now() > until);
        // Handed over: the gap at that instant. Else the longest after it, since guests come back later.
        const after = lab.gaps.filter(({ to }) => to >= at).map(({ from, to }) => to - from);
        const handedOver = name === 'taken over';
        gaps.push(handedOver ? lab.gapAt(at) : Math.max(0, ...after));
        if (handedOver) pauses.push(pause ?? 0);
      }
    } finally {
      await lab.close();
    }
    const told = pauses.length > 0 ? `; as the switch tells: ${summary(pauses)}` : '';
    console.log(`${packed ? 'packed' : 'split'}, ${name}: ${summary(gaps)} of ${times}${told}`);
  }
}
