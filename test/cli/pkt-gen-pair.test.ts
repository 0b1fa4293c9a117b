// Two pkt-gens, one at each end of a wire.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { macFromName } from '../../src/limits.ts';
import { backToBack, FakeMemory, type FakePort, FakeTime, opener } from './fake-netmap.ts';
import { decode } from './fixtures/frames.ts';
import { run } from './fixtures/run.ts';

function pair(options: { slots?: number; queues?: number } = {}) {
  const time = new FakeTime();
  const [a, b] = backToBack({ time, slots: 256, memory: new FakeMemory(10_000), ...options });
  const { open } = opener({ a, b });
  const gen = (port: string, ...args: string[]) =>
    run(['pkt-gen', '-i', port, ...args], { netmap: open, time });
  return { time, a, b, gen };
}

/** The last JSON object that was printed. */
const total = (out: string) => JSON.parse(out.trimEnd().split('\n').at(-1)!);

/** Frames with these indices are lost, counted from 0. */
function loses(port: FakePort, ...indices: number[]): void {
  let index = 0;
  port.lose = () => indices.includes(index++);
}

describe('pkt-gen at both ends', () => {
  it('tx to rx: each counts what the other does', async () => {
    for (const more of [[], ['-F', '3', '-l', '300'], ['-p', '4']]) {
      const { gen } = pair({ queues: 4 });
      const [tx, rx] = await Promise.all([
        gen('a', '-f', 'tx', '-n', '20000', '--json', ...more),
        gen('b', '-f', 'rx', '-n', '20000', '--json'),
      ]);
      const [sent, received] = [total(tx.out), total(rx.out)];
      assert.deepEqual([sent.packets, received.packets], [20_000, 20_000]);
      assert.equal(received.bytes, sent.bytes);
      assert.equal(received.size, more.includes('300') ? 300 : 60);
      assert.deepEqual([tx.status, rx.status], [0, 0]);
    }
  });

  it('rx takes so many and no more', async () => {
    const { b, gen } = pair();
    await gen('a', '-f', 'tx', '-n', '100');
    assert.match((await gen('b', '-f', 'rx', '-n', '50')).out, /^Received 50 packets 3000 bytes/m);
    assert.equal(b.rx[0]!.head, 50);
  });

  it('pong sends a frame of several slots back as it came', async () => {
    const { gen } = pair();
    const [ping, pong] = await Promise.all([
      gen('a', '-f', 'ping', '-n', '50', '-F', '3', '-l', '300'),
      gen('b', '-f', 'pong', '-n', '50'),
    ]);
    assert.match(ping.out, /^RTT over 50 packets/m);
    assert.match(pong.out, /^Sent 50 packets 15000 bytes/m);
  });

  it('rx -W ends after a second of silence, which is not part of its time', async () => {
    const { gen } = pair();
    const [, rx] = await Promise.all([
      gen('a', '-f', 'tx', '-n', '100', '-R', '1000'),
      gen('b', '-f', 'rx', '-W'),
    ]);
    assert.match(
      rx.out,
      /^Receiving from b: 1 queues, 1 threads and 1 cpus\.\nReceived 100 packets/,
    );
    assert.match(rx.out, / in 0\.10 seconds\.$/m);
    assert.match(rx.err, /main_thread .* min_space$/m);
  });

  it('txseq to rxseq: nothing amiss, or what the wire did', async () => {
    for (const six of [[], ['-6']]) {
      const { gen } = pair();
      const [, rx] = await Promise.all([
        gen('a', '-f', 'txseq', '-n', '5000', ...six),
        gen('b', '-f', 'rxseq', '-n', '5000'),
      ]);
      assert.match(rx.out, /^Sequence: 0 gaps, 0 lost, 0 out of order, 0 twice$/m);
    }
    const { a, gen } = pair();
    loses(a, 10, 11, 12, 500);
    const [, rx] = await Promise.all([
      gen('a', '-f', 'txseq', '-n', '1000', '-R', '500', '-F', '2', '-l', '200'),
      gen('b', '-f', 'rxseq', '-W'),
    ]);
    assert.match(rx.out, /^Received 996 packets/m);
    assert.match(rx.out, /^Sequence: 2 gaps, 4 lost, 0 out of order, 0 twice$/m);
    assert.match(rx.err, /Sequence GAP: exp 500 found 501$/m);
  });

  it('ping to pong: every answer is timed', async () => {
    for (const six of [[], ['-6']]) {
      const { a, gen } = pair();
      const [ping, pong] = await Promise.all([
        gen('a', '-f', 'ping', '-n', '200', '--json', ...six),
        gen('b', '-f', 'pong', '-n', '200'),
      ]);
      const { rtt, packets } = total(ping.out);
      assert.deepEqual([packets, rtt.count, rtt.lost, rtt.late], [200, 200, 0, 0]);
      assert.ok(rtt.min > 0 && rtt.min <= rtt.p50 && rtt.p50 <= rtt.p99 && rtt.p99 <= rtt.max);
      assert.equal(
        rtt.counts.reduce((sum: number, count: number) => sum + count),
        200,
      );
      assert.match(pong.out, /^Working on b: .*\nSent 200 packets/);
      // The last answer still lies in a's ring: addresses swapped, checksums as they should be.
      const { from, to, mac } = decode(a.rx[0]!.bytes(199));
      const [there, back] = six.length > 0 ? ['fd00:0001', 'fd00:0000'] : ['10.1.0.1', '10.0.0.1'];
      assert.ok(from.startsWith(there!) && to.startsWith(back!), `${from} ${to}`);
      // Not from the group address that it was sent to: from its own.
      assert.equal(mac[0], macFromName('b'));
    }
  });

  it('a ping that is lost is counted after a second, and the next one goes', async () => {
    const { a, time, gen } = pair();
    loses(a, 3, 4);
    const start = time.ns;
    const [ping] = await Promise.all([
      gen('a', '-f', 'ping', '-n', '10', '-R', '100'),
      gen('b', '-f', 'pong', '-n', '8'),
    ]);
    assert.ok(time.ns - start > 2e9);
    assert.match(ping.out, /^Sent 10 packets/m);
    assert.match(ping.out, /^RTT over 8 packets: min \d+ av \d+ ns$/m);
    assert.match(ping.out, /^RTT percentiles: p50 \d+ p99 \d+ p99\.9 \d+ max \d+ ns, 2 lost$/m);
    assert.match(ping.err, /count \d+ RTT: min \d+ av \d+ ns\nk: \d+ \.\. \d+\n\t( +\d+)+$/m);
  });

  it('a port that goes down ends the run: one sentence, the totals, status 1', async () => {
    for (const [mode, verb] of [
      ['tx', 'Sent'],
      ['rx', 'Received'],
      ['ping', 'Sent'],
      ['pong', 'Sent'],
    ] as const) {
      const { a, time, gen } = pair();
      const turn = time.turn.bind(time);
      time.turn = () => {
        if (time.turns === 20) a.goDown(mode === 'rx');
        return turn();
      };
      const { status, out, err } = await gen('a', '-f', mode, '-T', '3600000');
      assert.equal(status, 1);
      assert.equal(err, 'vhop: a is gone: start it again\n');
      assert.match(out, new RegExp(`^${verb} `, 'm'));
      assert.ok(a.closed);
    }
  });

  it('Ctrl-C ends a run with its totals, status 0', async () => {
    const { time, gen } = pair();
    const turn = time.turn.bind(time);
    time.turn = () => {
      if (time.turns === 20) process.emit('SIGINT');
      return turn();
    };
    const { status, out } = await gen('b', '-f', 'rx');
    assert.equal(status, 0);
    assert.match(out, /^Received nothing\.$/m);
  });
});
