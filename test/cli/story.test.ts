// The story of a port, as events, as a line below the table, and in full.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { eventLine } from '../../src/cli/banner.ts';
import { storyText } from '../../src/cli/story.ts';
import { span } from '../../src/cli/units.ts';
import type { LinkDown, PortHistory, PortInfo } from '../../src/types.ts';

const LOST: LinkDown = { cause: 'lost', reason: 'the peer closed the connection' };
const STOPPED: LinkDown = { cause: 'stopped' };

function port(state: PortInfo['state'], history: Partial<PortHistory>, more?: object): PortInfo {
  return {
    name: 'a',
    index: 0,
    type: 'vhost-user',
    state,
    mac: '52:54:00:00:00:01',
    queues: 8,
    queuesEnabled: 1,
    offered: [],
    features: ['VERSION_1'],
    memory: 0,
    paged: 0,
    history: { since: 0, connections: 1, lost: 0, restarts: 0, ...history },
    ...more,
  };
}

/** The line of an event, without its time. */
function line(event: 'port-up' | 'port-down' | 'logging', value: PortInfo): string | undefined {
  return eventLine({ write: () => {} }, { event, time: 0, value })?.slice('00:00:00  '.length);
}

describe('a line of an event', () => {
  it('tells how the link came to be up', () => {
    const up = (history: Partial<PortHistory>) => line('port-up', port('up', history));
    assert.equal(up({}), 'a up: 1 queue, VERSION_1');
    assert.equal(
      up({ down: { ...LOST, gap: 38.4 }, lost: 1 }),
      'a reconnected after 38 ms: 1 queue, VERSION_1',
    );
    assert.equal(
      up({ down: { ...STOPPED, gap: 1520 } }),
      'a up again after 1.5 s: 1 queue, VERSION_1',
    );
    assert.equal(
      up({ restarts: 3, resumed: 41 }),
      'a up 41 ms after the switch was restarted: 1 queue, VERSION_1',
    );
    // Only the first time.
    assert.match(
      up({ restarts: 3, resumed: 41, down: { ...LOST, gap: 7.26 } })!,
      /^a reconnected after 7.3 ms: /,
    );
  });

  it('tells a guest that stopped from a connection that was lost', () => {
    const down = (how: LinkDown) => line('port-down', port('listening', { down: how }));
    assert.equal(down(STOPPED), 'a down: stopped by its guest');
    assert.equal(down(LOST), 'a down: connection lost: the peer closed the connection');
    assert.equal(
      down({ cause: 'quarantined', reason: 'ring 1: a loop\u001b[2J' }),
      'a down: ring 1: a loop',
    );
  });

  it('tells that logging goes on and off', () => {
    assert.equal(line('logging', port('up', {}, { logging: true })), 'a logging on');
    assert.equal(line('logging', port('up', {})), 'a logging off');
    assert.equal(line('logging', port('up', {}, { logging: false })), 'a logging off');
  });
});

describe('the story of a port', () => {
  it('is told in few words, or not at all', () => {
    const cases: [PortInfo, string | undefined][] = [
      [port('listening', {}), undefined],
      [port('up', {}), undefined],
      [port('up', { down: { ...STOPPED, gap: 3 } }), undefined],
      [port('connected', { down: STOPPED }), 'stopped by its guest'],
      [port('listening', { down: LOST }), 'connection lost: the peer closed the connection'],
      [port('up', { down: { ...LOST, gap: 38 }, lost: 1 }), 'reconnected after 38 ms'],
      [
        port('up', { down: { ...LOST, gap: 38 }, lost: 4, restarts: 3 }, { logging: true }),
        'reconnected after 38 ms, lost 4 times, 3 restarts of the switch, logging on',
      ],
      [port('up', { restarts: 1, resumed: 41 }), '1 restart of the switch'],
      [
        port(
          'quarantined',
          { down: { cause: 'quarantined', reason: 'ring 1: a loop' } },
          { reason: 'ring 1: a loop' },
        ),
        'ring 1: a loop',
      ],
    ];
    for (const [each, text] of cases) assert.equal(storyText(each), text);
  });

  it('has gaps of any length', () => {
    const spans = [-1, 0, 0.04, 4.21, 38.4, 999.4, 999.6, 59_499, 59_600, 187_000, 7_500_000];
    assert.deepEqual(spans.map(span), [
      ...['0 ms', '0 ms', '0 ms', '4.2 ms', '38 ms', '999 ms'],
      ...['1 s', '59 s', '60 s', '3m07s', '2h05m'],
    ]);
  });
});
