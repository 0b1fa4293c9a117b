// Three guests: what one is not meant to see, and what its death does to the others.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { openFds } from '../linux/fds.ts';
import { configure } from '../peers/iperf.ts';
import { waitFor } from '../peers/process.ts';
import { scenario } from './lab.ts';
import { A, agree, B, bootPair, onPort, pingAll, pinging } from './pair.ts';

const C = '10.0.0.3';

scenario('three guests on a switch', ['qemu'], {}, async (lab, t) => {
  await lab.ports('a', 'b', 'c');
  const [a, b] = await bootPair(lab);
  const descriptors = openFds();
  const bootC = async () => {
    const c = await lab.boot(onPort(lab, 'c'));
    await configure(c, `${C}/24`);
    await lab.state('c', 'up');
    return c;
  };
  let c = await bootC();

  await lab.step(t, 'the third sees no unicast between the others', async () => {
    await pingAll(a, B, 5);
    const sniffer = await c.spawn('exec tcpdump -Z root -i eth0 -n -e -U -w /tmp/seen.pcap');
    const ready = async () => (await sniffer.output()).includes('listening on');
    await waitFor(ready, 10_000, 'tcpdump');
    await pingAll(a, B, 100);
    await pingAll(b, A, 100);
    // An address nobody has is asked for by broadcast: that it does see, so the sniffer works.
    await a.run('ping -c 1 -W 1 10.0.0.99', { ok: false });
    const seen = async (filter: string) => {
      const { stdout } = await c.run(`tcpdump -Z root -r /tmp/seen.pcap -n -t ${filter}`, {
        ok: false,
      });
      return stdout.split('\n').filter((line) => line.startsWith('ARP') || line.startsWith('IP'));
    };
    const asked = async () => (await seen('arp and host 10.0.0.99')).length > 0;
    await waitFor(asked, 5000, 'a broadcast in c');
    await sniffer.kill();
    assert.deepEqual(await seen(`icmp and host ${A} and host ${B}`), []);
  });

  await lab.step(t, 'all reach all', async () => {
    await pingAll(c, A, 20);
    await pingAll(c, B, 20);
    await pingAll(a, C, 20);
    assert.deepEqual(
      lab.sw
        .fdb()
        .map(({ port }) => port)
        .sort(),
      ['a', 'b', 'c'],
    );
    await agree(lab, a, b, c);
  });

  await lab.step(
    t,
    'the third is killed and comes back while the others lose nothing',
    async () => {
      const echoes = await pinging(a, B);
      for (let round = 0; round < 2; round++) {
        // In the middle of traffic of its own.
        await pinging(c, B);
        await sleep(200);
        await c.kill();
        await lab.state('c', 'listening');
        await waitFor(
          () => openFds() === descriptors,
          5000,
          "c's descriptors closed",
          () => `${openFds()} instead of ${descriptors}`,
        );
        assert.equal(lab.portInfo('c').memory, 0);
        assert.deepEqual(
          lab.sw.fdb().filter(({ port }) => port === 'c'),
          [],
        );
        c = await bootC();
        await pingAll(c, B, 20);
      }
      const { sent, received } = await echoes.stop();
      assert.ok(sent > 0);
      assert.equal(received, sent);
      await agree(lab, a, b);
    },
  );
});
