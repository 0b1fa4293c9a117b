// A guest that moves from one QEMU to another while it talks: live migration, both on one switch and over a link
// between two. Under way all the time: a TCP stream whose bytes are compared at the end, iperf3 over TCP and UDP with
// checksums in every packet, and an echo a millisecond with a payload of its own. VHOP_LONG=1 makes it 100 migrations each instead of 5.

import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import { Guest, type Machine, spawnIn } from '../peers/guest.ts';
import { configure, serve } from '../peers/iperf.ts';
import type { Nic } from '../peers/nic.ts';
import { lastLines, waitFor } from '../peers/process.ts';
import { macOf } from '../peers/qemu.ts';
import { type Lab, scenario } from '../qemu/lab.ts';
import { A, B, pingAll } from '../qemu/pair.ts';
import { snmp } from '../qemu/snmp.ts';
import { stream } from '../qemu/stream.ts';
import { LONG } from '../stress/stress.ts';
import { PROBE_MAC, Probe } from './probe.ts';

const MIGRATIONS = LONG ? 100 : 5;
const PROBE = '10.0.0.9';
/** Pages of the guest that nobody writes to once they are filled: they must arrive as they are. */
const STILL = 'head -c 16000000 /dev/urandom > /tmp/still; sha256sum /tmp/still';

/**
 * MiB. Of memory that is a multiple of 256 KiB QEMU before 9.0 loses pages under TCG while it migrates, with any
 * card or none: it takes a short cut that forgets to watch pages again which its CPUs have written to.
 */
const MEMORY = 256 + 8 / 1024;

interface Shape {
  packed: boolean;
  queues: number;
  /** Whether the places lie on two switches. */
  linked: boolean;
  /** Whether the guest tells itself where it is now; otherwise QEMU has the switch send a RARP. */
  announce: boolean;
}

const SHAPES: Shape[] = [
  { packed: false, queues: 1, linked: false, announce: true },
  { packed: true, queues: 1, linked: true, announce: false },
  { packed: false, queues: 2, linked: true, announce: true },
  { packed: true, queues: 2, linked: false, announce: false },
];

for (const shape of SHAPES) {
  const { packed, queues, linked, announce } = shape;
  const name =
    `${packed ? 'packed' : 'split'} rings, queues=${queues}, ${linked ? 'two switches' : 'one switch'}, ` +
    `${announce ? 'announced by the guest' : 'announced by RARP'}`;
  scenario(name, ['qemu'], {}, (lab, t) => migrate(lab, t, shape));
}

async function migrate(lab: Lab, t: TestContext, shape: Shape): Promise<void> {
  const places = await makePlaces(lab, shape);
  const { packed, queues, announce } = shape;
  const switches = new Set(places.map(({ sw }) => sw));
  let logged = 0;
  for (const sw of switches) {
    sw.on('logging', ({ logging }) => {
      if (logging) logged++;
    });
  }
  const mac = macOf('mobile', 0);
  const nic = (place: Place): Nic => ({
    backend: { vhostUser: place.path, queues },
    mac,
    device: { packed, guest_announce: announce },
  });
  const boot = async (place: Place, incoming?: string): Promise<Guest> => {
    const guest = await Guest.boot({
      name: 'mobile',
      nics: [nic(place)],
      memory: MEMORY,
      incoming,
    });
    lab.closing(() => guest.stop());
    return guest;
  };
  await lab.port('a');
  const [still, first] = await Promise.all([
    lab.boot({ name: 'still', nics: [{ backend: { vhostUser: lab.path('a') } }] }),
    boot(places[0]!),
  ]);
  let home = first;
  const mobile: Machine = { name: 'mobile', run: (command, options) => home.run(command, options) };
  await configure(still, `${A}/24`);
  await configure(mobile, `${B}/24`);
  if (queues > 1) await mobile.run(`ethtool -L eth0 combined ${queues}`);
  await mobile.run(`arp -s ${PROBE} ${PROBE_MAC}`);
  const before = (await mobile.run(STILL)).stdout;
  await pingAll(still, B, 3);

  // Its kernel sums all that it sends, and the other's verifies it.
  await still.run('ethtool -K eth0 tx off');
  const daemon = await serve(mobile);
  const iperf = await still.spawn(`iperf3 -J -t 600 -i 1 -b 10M -c ${B}`);
  const datagrams = await spawnIn(mobile, 'exec iperf3 -s -1 -p 5202');
  const sender = await still.spawn(`sleep 1; iperf3 -u -t 600 -i 1 -b 5M -l 1400 -p 5202 -c ${B}`);
  const bytes = await stream(still, mobile, B);
  const probe = new Probe(lab.sw, { mac: PROBE_MAC, ip: PROBE }, { mac, ip: B });
  lab.closing(() => probe.close());
  await waitFor(() => probe.answered > 100, 5000, 'the probe is answered');
  probe.takeWorst();

  const gaps: number[] = [];
  for (let i = 1; i <= MIGRATIONS; i++) {
    const [from, to] = [places[(i + 1) % 2]!, places[i % 2]!];
    const uri = `unix:${lab.path(`migration-${i}`)}`;
    const next = await boot(to, uri);
    await home.qmp('migrate-set-parameters', { 'max-bandwidth': 2 ** 30, 'downtime-limit': 100 });
    await home.migrate(uri);
    const answered = probe.answered;
    await waitFor(
      () => probe.answered > answered + 50,
      10_000,
      'the probe is answered again',
      () => `${report(places)}\n${lastLines(next.console(), 20)}\n${lab.report()}`,
    );
    gaps.push(probe.takeWorst());
    assert.equal(from.sw.ports().find((port) => port.name === from.port)?.state, 'connected');
    await home.stop();
    home = next;
    // The address moved, on this switch and behind the link.
    for (const sw of switches) {
      const entry = sw.fdb().find((found) => found.mac === mac);
      assert.equal(entry?.port, sw === to.sw ? to.port : 'link', `after migration ${i}`);
    }
    assert.equal((await mobile.run('sha256sum /tmp/still')).stdout, before);
  }
  assert.equal(logged, MIGRATIONS);
  assert.ok((await bytes.stop()) > 0);
  await pingAll(still, B, 20);
  // Its one connection is the one it began with.
  assert.ok(await iperf.running(), await iperf.output());
  assert.ok(await sender.running(), await sender.output());
  const counters = await snmp(mobile);
  assert.ok(counters['Udp:InDatagrams']! > 100 * MIGRATIONS, JSON.stringify(counters));
  for (const errors of ['Tcp:InCsumErrors', 'Udp:InCsumErrors', 'Ip:InHdrErrors']) {
    assert.equal(counters[errors], 0, errors);
  }
  for (const process of [iperf, sender, daemon, datagrams]) await process.kill();
  const { stdout } = await mobile.run(
    'dmesg | grep -c -E "id .* is not a head|BUG|corrupt" || true',
  );
  assert.equal(stdout.trim(), '0');
  const sorted = gaps.map((ms) => Math.round(ms)).sort((x, y) => x - y);
  t.diagnostic(
    `longest silence in ${MIGRATIONS} migrations: worst ${sorted.at(-1)} ms, median ` +
      `${sorted[sorted.length >> 1]} ms; ${probe.answered} of ${probe.sent} echoes answered`,
  );
}

interface Place {
  sw: Switch;
  port: string;
  path: string;
}

/** What the switches say of the guest's ports. */
function report(places: readonly Place[]): string {
  const lines = places.flatMap(({ sw, port }) => [
    ...sw.ports().filter(({ name }) => name === port || name === 'link'),
    ...sw.rings().filter((ring) => ring.started && (ring.port === port || ring.port === 'link')),
    sw.fdb(),
  ]);
  return lines.map((line) => JSON.stringify(line)).join('\n');
}

/** Two ports for the guest to move between: of the lab's switch, or the second behind a link. */
async function makePlaces(lab: Lab, { linked }: Shape): Promise<Place[]> {
  await lab.port('m0');
  const places: Place[] = [{ sw: lab.sw, port: 'm0', path: lab.path('m0') }];
  if (!linked) {
    await lab.port('m1');
    return [...places, { sw: lab.sw, port: 'm1', path: lab.path('m1') }];
  }
  const other = await openSwitch({ name: 'other' });
  lab.closing(() => other.close());
  const path = lab.path('link');
  await other.addPort({ type: 'vhost-user', name: 'link', path });
  await other.addPort({ type: 'vhost-user', name: 'm1', path: lab.path('m1') });
  await lab.sw.addPort({ type: 'virtio-user', name: 'link', path });
  await lab.state('link', 'up');
  return [...places, { sw: other, port: 'm1', path: lab.path('m1') }];
}
