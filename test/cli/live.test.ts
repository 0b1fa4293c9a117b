import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { LiveTable, liveLines, runLive, type Sample } from '../../src/cli/live.ts';
import { rates } from '../../src/cli/rates.ts';
import { tableLines } from '../../src/cli/table.ts';
import { duration, memory, scaled } from '../../src/cli/units.ts';
import type { PortInfo, Stats } from '../../src/types.ts';

const PORT: PortInfo = {
  name: 'a',
  index: 0,
  type: 'vhost-user',
  state: 'up',
  mac: '52:54:00:00:00:01',
  queues: 8,
  queuesEnabled: 1,
  offered: [],
  features: [],
  memory: 0,
  paged: 0,
  history: { since: 0, connections: 1, lost: 0, restarts: 0 },
};

function reading(second: number, frames: number, load: number): Stats {
  const port = {
    port: 'a',
    txFrames: frames,
    txBytes: frames * 1000,
    rxFrames: frames / 2,
    rxBytes: frames * 500,
    kicks: 0,
    calls: 0,
    txBursts: frames / 32,
    segmented: 0,
    segments: 0,
    summed: 0,
    drops: { full: frames / 100, other: frames / 100 } as Record<string, number>,
  };
  const worker = { worker: 0, polls: 0, frames, nsPerFrame: 61.4, load, sleeps: 0 };
  const paging = { pagesIn: 0, pagingNs: 0, evictions: 0 };
  return {
    time: second * 1000,
    ports: [port],
    workers: [{ ...worker, ...paging, state: 'busy' }],
    fdb: { entries: 0, capacity: 0, moves: 0, full: 0 },
    paging: { slots: 512, free: 512 },
  };
}

const sample = (stats: Stats, uptime: number): Sample => ({ ports: [PORT], stats, uptime });

describe('rates', () => {
  it('are differences per second; load is taken out of its mean since the start', () => {
    // Idle for 8 s, then busy for 2: a mean of 0.2 after 10 s.
    const figures = rates(reading(8, 1e6, 0), reading(10, 3e6, 0.2), 10);
    assert.equal(figures.seconds, 2);
    assert.deepEqual(figures.ports, [
      { port: 'a', txPps: 1e6, rxPps: 5e5, txBps: 8e9, rxBps: 4e9, dropsPps: 2e4, burst: 32 },
    ]);
    assert.equal(figures.workers[0]?.load, 1);
    assert.equal(figures.workers[0]?.fps, 1e6);
  });

  it('begin at zero for a port that was added, or added again', () => {
    assert.equal(
      rates({ ...reading(0, 0, 0), ports: [] }, reading(1, 100, 0), 1).ports[0]?.txPps,
      100,
    );
    assert.equal(rates(reading(0, 500, 0), reading(1, 100, 0), 1).ports[0]?.txPps, 100);
    assert.equal(rates(reading(0, 500, 0), reading(1, 500, 0), 1).ports[0]?.burst, 0);
  });
});

class Screen {
  isTTY = true;
  columns = 60;
  rows = 24;
  text = '';
  write(text: string) {
    this.text += text;
  }
}

describe('the live table', () => {
  it('shows ports, then workers', () => {
    const figures = rates(reading(0, 0, 0), reading(1, 16.5e6, 0.37), 1);
    assert.deepEqual(liveLines({ write() {} }, sample(reading(1, 16.5e6, 0.37), 1), figures), [
      ' port  state  tx pps  rx pps  tx Gb/s  rx Gb/s  drops/s  burst',
      ' a     up      16.5M   8.25M    132.0     66.0     330k   32.0',
      '',
      ' worker  state  load  ns/frame  frames/s',
      '      0  busy    37%        61     16.5M',
    ]);
  });

  it('redraws in place, hides the cursor and gives it back', () => {
    const screen = new Screen();
    const table = new LiveTable(screen);
    table.update(sample(reading(0, 0, 0), 0));
    assert.ok(screen.text.startsWith('\u001b[?25l'));
    screen.text = '';
    table.update(sample(reading(1, 1000, 0.1), 1));
    assert.ok(screen.text.startsWith('\u001b[5A\r'));
    screen.text = '';
    table.note('a goes down');
    assert.ok(screen.text.startsWith('\u001b[5A\r\u001b[Ja goes down\n\r'));
    screen.text = '';
    table.end();
    assert.equal(screen.text, '\u001b[?25h');
  });

  it('never draws wider or taller than the terminal', () => {
    const screen = Object.assign(new Screen(), { columns: 20, rows: 4 });
    new LiveTable(screen).update(sample(reading(0, 0, 0), 0));
    // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are stripped.
    const drawn = screen.text.replace(/\u001b\[[0-9;?]*[A-Za-z]|\r/g, '').split('\n');
    assert.equal(drawn.length - 1, 3);
    for (const line of drawn) assert.ok(line.length <= 20, line);
  });

  it('is one line for each interval where it cannot redraw', async () => {
    const screen = Object.assign(new Screen(), { isTTY: false });
    let second = 0;
    const read = () => sample(reading(second, 1e6 * second, 0.5), second++);
    await runLive(read, new LiveTable(screen), { seconds: 0.03, interval: 10 });
    const lines = screen.text.trimEnd().split('\n');
    assert.equal(lines.length, 3);
    assert.match(
      lines[0]!,
      /^\d\d:\d\d:\d\d {2}a tx 1\.00M rx 500k pps; drops 20\.0k\/s; load 50%$/,
    );
  });

  it('stops at once when it is told to', async () => {
    const stop = new AbortController();
    const read = () => sample(reading(0, 0, 0), 0);
    const done = runLive(read, new LiveTable(new Screen()), {
      signal: stop.signal,
      interval: 60_000,
    });
    setTimeout(() => stop.abort(), 10);
    await done;
    await runLive(() => assert.fail('read'), new LiveTable(new Screen()), { signal: stop.signal });
  });
});

describe('numbers', () => {
  it('have three digits and a suffix', () => {
    const cases: [number, string][] = [
      [0, '0'],
      [0.25, '0.3'],
      [7, '7'],
      [9.96, '10'],
      [999, '999'],
      [999.6, '1.00k'],
      [1000, '1.00k'],
      [12_345, '12.3k'],
      [999_600, '1.00M'],
      [16.5e6, '16.5M'],
      [1e9, '1.00G'],
      [5e15, '5000T'],
      [Number.NaN, '-'],
      [-1, '-'],
    ];
    for (const [value, text] of cases) assert.equal(scaled(value), text);
  });

  it('have units', () => {
    assert.deepEqual(
      [memory(512), memory(512 << 20), memory(6 * 2 ** 30)],
      ['512 B', '512 MiB', '6 GiB'],
    );
    assert.deepEqual([duration(42.9), duration(187), duration(7500)], ['42s', '3m07s', '2h05m']);
  });
});

describe('a table', () => {
  it('aligns, and shows nothing a terminal would obey', () => {
    const lines = tableLines(
      [{ title: 'name' }, { title: 'n', align: 'right' }],
      [
        ['a', 1],
        ['evil\u001b[2J\u0007\n', 1000],
        [undefined, ''],
      ],
    );
    assert.deepEqual(lines, [' name       n', ' a          1', ' evil??  1000', ' -          -']);
  });
});
