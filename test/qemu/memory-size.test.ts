// Guests whose memory does not fit the 4 GiB of addresses a switch has: two of 4 GiB, as every example
// command line makes them, and one of 64 GiB beside them.

import assert from 'node:assert/strict';
import { configure, iperf } from '../peers/iperf.ts';
import { scenario } from './lab.ts';
import { A, agree, B, copy, onPort, pingAll } from './pair.ts';

const GIB = 2 ** 30;
const C = '10.0.0.3';

scenario('guests of 4, 4 and 64 GiB', ['qemu'], { workers: 2 }, async (lab, t) => {
  await lab.ports('a', 'b', 'c');
  const [a, b, c] = await Promise.all([
    lab.boot({ ...onPort(lab, 'a'), memory: 4096 }),
    // Its rings packed: their views in paged memory are other ones.
    lab.boot({ ...onPort(lab, 'b', { device: { packed: true } }), memory: 4096 }),
    // The kernel has a page structure for each of its 16 million pages to set up.
    lab.boot({ ...onPort(lab, 'c'), memory: 65_536, timeoutMs: 180_000 }),
  ]);
  for (const [guest, address] of [
    [a, A],
    [b, B],
    [c, C],
  ] as const) {
    await configure(guest, `${address}/24`);
    await lab.state(guest.name, 'up');
  }

  await lab.step(t, 'are mapped as far as there is room, the rest is paged', async () => {
    for (const [name, size] of [
      ['a', 4],
      ['b', 4],
      ['c', 64],
    ] as const) {
      const { memory, paged } = lab.portInfo(name);
      // A hole below 1 MiB is not RAM that a device may use.
      assert.ok(memory > size * GIB - 2 ** 20 && memory <= size * GIB, `${name} has ${memory}`);
      assert.ok(paged >= (size - 3) * GIB, `${paged} bytes of ${name} are paged`);
    }
  });

  assert.ok(lab.portInfo('b').features.includes('RING_PACKED'));

  await lab.step(t, 'ping', async () => {
    await pingAll(a, B, 100);
    await pingAll(a, C, 100, '-s 1472');
    await pingAll(c, B, 100);
  });

  await lab.step(t, 'TCP', async () => {
    for (const [server, client, address] of [
      [b, a, B],
      [c, b, C],
      [a, c, A],
    ] as const) {
      assert.ok((await iperf(server, client, address, { seconds: 2 })) > 0);
    }
  });

  await lab.step(t, 'a copy, compared by SHA-256', async () => {
    await copy(a, c, C, 64);
    await copy(c, b, B, 64);
  });

  await lab.step(t, 'the pages that took', async () => {
    await agree(lab, a, b, c);
    const { workers, ports, paging } = lab.sw.stats();
    assert.ok(workers.some(({ pagesIn }) => pagesIn > 0));
    assert.ok(paging.free < paging.slots);
    for (const { drops } of ports) {
      assert.equal(drops['rx_paging'], undefined);
      assert.equal(drops['tx_paging'], undefined);
    }
    t.diagnostic(JSON.stringify({ workers, paging }));
  });
});
