// TAP devices in a network namespace of this process's own, with the kernel as the peer.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readSync, writeSync } from 'node:fs';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { EBADFD, openTap, type Tap, TapError, type TapOptions } from '../../src/linux/index.ts';
import { exec, waitFor } from '../peers/process.ts';
import { openFds } from './fds.ts';
import {
  addressDevice,
  arpRequest,
  ip,
  ipv4,
  KERNEL_MAC,
  ownNetwork,
  PEER_IP,
  Udp,
  udp,
} from './network.ts';

const HEADER = 12;
const ETHERNET = 14;
/** Of a UDP datagram in an IPv4 frame. */
const HEADERS = ETHERNET + 20 + 8;

// virtio_net_hdr
const NEEDS_CSUM = 1;
const GSO_TCPV4 = 1;
const GSO_UDP_L4 = 5;

function virtioHeader({ flags = 0, gso = 0, headers = 0, size = 0, start = 0, offset = 0 } = {}) {
  const bytes = Buffer.alloc(HEADER);
  bytes[0] = flags;
  bytes[1] = gso;
  for (const [i, value] of [headers, size, start, offset].entries()) {
    bytes.writeUInt16LE(value, 2 + 2 * i);
  }
  return bytes;
}

function readVirtioHeader(bytes: Buffer) {
  const [headers, size, start, offset] = [2, 4, 6, 8].map((at) => bytes.readUInt16LE(at));
  return { flags: bytes[0], gso: bytes[1], headers, size, start, offset };
}

/** The next frame with its header, or undefined. */
function read(fd: number): Buffer | undefined {
  const bytes = Buffer.alloc(70_000, 0xee);
  try {
    return bytes.subarray(0, readSync(fd, bytes));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined;
    throw error;
  }
}

function readAll(fd: number): Buffer[] {
  const frames: Buffer[] = [];
  for (let each = read(fd); each !== undefined; each = read(fd)) frames.push(each);
  return frames;
}

/**
 * A device with addresses that is up, and a socket of the kernel's. Both are closed when the test ends,
 * and every descriptor with them.
 */
async function lab(t: TestContext, options: Partial<TapOptions> = {}) {
  if (!(await ownNetwork(t))) return undefined;
  const fds = openFds();
  const tap = openTap({ name: 'vt%d', header: HEADER, ...options });
  const closing: (() => unknown)[] = [() => tap.close(), () => tap.close()];
  t.after(async () => {
    for (const close of closing) await close();
    assert.equal(openFds(), fds);
  });
  tap.setMac(KERNEL_MAC);
  tap.setUp(true);
  await addressDevice(tap.name);
  const socket = new Udp(5000);
  closing.push(() => socket.close());
  return { tap, fd: tap.fds[0]!, socket, closing };
}

async function linkOf(name: string): Promise<Record<string, unknown>> {
  return JSON.parse(await ip(`-d -j link show ${name}`))[0];
}

for (const header of [0, HEADER] as const) {
  test(`the kernel answers ARP over a TAP with ${header} bytes of header`, async (t) => {
    const here = await lab(t, { header });
    if (!here) return;
    const { fd } = here;
    assert.equal(read(fd), undefined);
    writeSync(fd, Buffer.concat([Buffer.alloc(header), arpRequest()]));
    const answer = read(fd)!;
    // The last two bytes, num_buffers, are the reader's to set.
    assert.deepEqual(answer.subarray(0, Math.min(header, 10)), Buffer.alloc(Math.min(header, 10)));
    assert.equal(answer.length, header + ETHERNET + 28);
    const mac = KERNEL_MAC.replaceAll(':', '');
    assert.equal(answer.toString('hex', header + 6, header + 12), mac);
    assert.equal(read(fd), undefined);
  });
}

test('name, address, MTU, up and carrier are as the kernel sees them', async (t) => {
  const here = await lab(t);
  if (!here) return;
  const { tap, fd } = here;
  const second = openTap({ name: 'vt%d', header: 0 });
  assert.match(second.name, /^vt\d$/);
  assert.notEqual(second.name, tap.name);
  assert.equal(second.up, false);
  second.close();

  assert.equal(tap.mtu(), 1500);
  tap.setMtu(9000);
  assert.equal(tap.mtu(), 9000);
  tap.setMac('52:54:00:AA:bb:cc');
  assert.equal(tap.up, true);
  let link = await linkOf(tap.name);
  assert.equal(link['mtu'], 9000);
  assert.equal(link['address'], '52:54:00:aa:bb:cc');
  assert.ok((link['flags'] as string[]).includes('LOWER_UP'));
  tap.setCarrier(false);
  link = await linkOf(tap.name);
  assert.ok((link['flags'] as string[]).includes('NO-CARRIER'));
  tap.setCarrier(true);
  tap.setUp(false);
  assert.equal(tap.up, false);
  assert.throws(() => writeSync(fd, Buffer.alloc(HEADER + 60)), { code: 'EIO' });
  // What somebody renames is found all the same.
  await ip(`link set ${tap.name} name vt-other`);
  tap.setUp(true);
  assert.equal(tap.up, true);

  assert.throws(() => tap.setMtu(10), { name: 'SystemError', code: 'EINVAL' });
  for (const mac of ['52:54:00:00:00', '53:54:00:00:00:01', '']) {
    assert.throws(() => tap.setMac(mac), RangeError);
  }
});

test('sums and segments are left to the reader only where it takes them', async (t) => {
  const here = await lab(t);
  if (!here) return;
  const { tap, fd, socket } = here;
  const payload = Buffer.alloc(5000, 7);

  const whole = (offloads: Parameters<Tap['setOffloads']>[0]) => {
    tap.setOffloads(offloads);
    socket.send(payload.subarray(0, 100), 6000);
    socket.send(payload, 6000, 1000);
    return readAll(fd).map((bytes) => ({ ...readVirtioHeader(bytes), length: bytes.length }));
  };
  const none = { flags: 0, gso: 0, headers: 0, size: 0, start: 0, offset: 0 };
  const sum = { ...none, flags: NEEDS_CSUM, start: ETHERNET + 20, offset: 6 };
  const small = { length: HEADER + HEADERS + 100 };
  const segment = { length: HEADER + HEADERS + 1000 };
  const segments = Array.from({ length: 5 }, () => segment);

  assert.deepEqual(
    whole({}),
    [small, ...segments].map((each) => ({ ...none, ...each })),
  );
  assert.deepEqual(
    whole({ csum: true }),
    [small, ...segments].map((each) => ({ ...sum, ...each })),
  );
  assert.deepEqual(whole({ csum: true, uso: true }), [
    { ...sum, ...small },
    { ...sum, gso: GSO_UDP_L4, headers: HEADERS, size: 1000, length: HEADER + HEADERS + 5000 },
  ]);
  assert.deepEqual(
    whole({}),
    [small, ...segments].map((each) => ({ ...none, ...each })),
  );

  tap.setOffloads({ csum: true, tso4: true, tso6: true, ecn: true, uso: true });
  assert.throws(() => tap.setOffloads({ tso4: true }), RangeError);
  assert.throws(() => tap.setOffloads({ uso: true }), RangeError);
  assert.throws(() => tap.setOffloads({ csum: true, ecn: true }), RangeError);
  const bare = openTap({ name: 'vt%d', header: 0 });
  assert.throws(() => bare.setOffloads({ csum: true }), RangeError);
  bare.close();
});

test('the kernel takes sums that are not made and datagrams that are not cut', async (t) => {
  const here = await lab(t);
  if (!here) return;
  const { fd, socket } = here;
  const csum = { flags: NEEDS_CSUM, start: ETHERNET + 20, offset: 6 };
  const one = udp(6000, 5000, Buffer.alloc(100, 1));
  writeSync(fd, Buffer.concat([virtioHeader(csum), one]));
  assert.deepEqual(socket.receive(), Buffer.alloc(100, 1));
  const gso = { gso: GSO_UDP_L4, headers: HEADERS, size: 1000 };
  const large = udp(6000, 5000, Buffer.alloc(2500, 2));
  writeSync(fd, Buffer.concat([virtioHeader({ ...csum, ...gso }), large]));
  for (const length of [1000, 1000, 500]) {
    assert.deepEqual(socket.receive(), Buffer.alloc(length, 2));
  }
  assert.equal(socket.receive(), undefined);
});

for (const tso4 of [true, false]) {
  test(`TCP comes ${tso4 ? 'uncut with' : 'cut without'} tso4`, async (t) => {
    const here = await lab(t);
    if (!here) return;
    const { tap, fd, closing } = here;
    if (tso4) tap.setOffloads({ csum: true, tso4: true });
    const frames: Buffer[] = [];
    const next = () => {
      frames.push(...readAll(fd));
      return frames.length > 0;
    };
    const client = connect(80, PEER_IP).on('error', () => {});
    closing.push(() => once(client.destroy(), 'close'));
    await waitFor(next, 1000, 'SYN');
    // Answered by hand: the other port's, its sequence number acknowledged, a window of 64 KiB.
    const syn = frames.splice(0)[0]!.subarray(HEADER + ETHERNET + 20);
    const answer = Buffer.alloc(20);
    answer.writeUInt16BE(80, 0);
    answer.writeUInt16BE(syn.readUInt16BE(0), 2);
    answer.writeUInt32BE(1, 4);
    answer.writeUInt32BE((syn.readUInt32BE(4) + 1) >>> 0, 8);
    answer.writeUInt16BE(0x5012, 12);
    answer.writeUInt16BE(65535, 14);
    const csum = { flags: NEEDS_CSUM, start: ETHERNET + 20, offset: 16 };
    writeSync(fd, Buffer.concat([virtioHeader(csum), ipv4(6, answer)]));
    client.write(Buffer.alloc(5000));
    await waitFor(() => next() && frames.some((each) => each.length > 500), 1000, 'data');
    const data = frames.filter((each) => each.length > 500);
    const { flags, gso, size } = readVirtioHeader(data[0]!);
    // Without an option in the answer segments have 536 bytes.
    if (tso4) {
      assert.deepEqual({ flags, gso, size }, { flags: NEEDS_CSUM, gso: GSO_TCPV4, size: 536 });
      assert.ok(data[0]!.length >= HEADER + ETHERNET + 40 + 2 * 536);
    } else {
      assert.deepEqual({ flags, gso, size }, { flags: 0, gso: 0, size: 0 });
      for (const each of data) assert.ok(each.length <= HEADER + ETHERNET + 40 + 536);
    }
  });
}

test('each queue is read and written, and flows are spread over them', async (t) => {
  const here = await lab(t, { queues: 4 });
  if (!here) return;
  const { tap, socket } = here;
  assert.equal(new Set(tap.fds).size, 4);
  for (const fd of tap.fds) {
    writeSync(fd, Buffer.concat([virtioHeader(), udp(6000, 5000, Buffer.from(`${fd}`))]));
    assert.equal(socket.receive()?.toString(), `${fd}`);
  }
  for (const fd of tap.fds) readAll(fd);
  for (let port = 0; port < 64; port++) socket.send(Buffer.alloc(10), 7000 + port);
  const counts = tap.fds.map((fd) => readAll(fd).length);
  assert.equal(
    counts.reduce((sum, each) => sum + each),
    64,
  );
  assert.ok(counts.filter((each) => each > 0).length > 1, `${counts}`);
});

test('a persistent device stays, is used with fewer queues, and has no offloads of before', async (t) => {
  if (!(await ownNetwork(t))) return;
  await ip('tuntap add vt-keep mode tap multi_queue vnet_hdr');
  for (const queues of [2, 1, 8]) {
    const tap = openTap({ name: 'vt-keep', queues, header: HEADER });
    assert.equal(tap.fds.length, queues);
    tap.setMac(KERNEL_MAC);
    tap.setUp(true);
    if (queues === 2) {
      tap.setOffloads({ csum: true });
      await addressDevice('vt-keep');
    }
    const socket = new Udp(5000);
    socket.send(Buffer.alloc(100), 6000);
    const seen = tap.fds.flatMap((fd) => readAll(fd)).map((bytes) => bytes[0]);
    assert.deepEqual(seen, [queues === 2 ? NEEDS_CSUM : 0]);
    socket.close();
    tap.close();
  }
  await ip('link del vt-keep');
});

/** What openTap says, and that it leaves nothing open. */
function refusal(options: TapOptions): string {
  const fds = openFds();
  try {
    openTap(options).close();
    return 'opened';
  } catch (error) {
    assert.ok(error instanceof TapError || error instanceof RangeError, String(error));
    return error.message;
  } finally {
    assert.equal(openFds(), fds);
  }
}

test('what cannot be opened says so in a sentence with the cure', async (t) => {
  if (!(await ownNetwork(t))) return;
  await ip('tuntap add vt-tun mode tun');
  await ip('tuntap add vt-one mode tap');
  await ip('tuntap add vt-many mode tap multi_queue');
  const one = openTap({ name: 'vt-one', header: HEADER });
  const many = openTap({ name: 'vt-many', queues: 2, header: HEADER });
  t.after(() => {
    one.close();
    many.close();
  });
  const noTap = 'there is a device of that name that is no TAP: take another name';
  for (const name of ['lo', 'vt-tun']) {
    assert.equal(refusal({ name, header: 0 }), `TAP ${name}: ${noTap}`);
  }
  assert.equal(
    refusal({ name: 'vt-one', header: HEADER }),
    'TAP vt-one: somebody else has it open: stop that program, or take another name',
  );
  assert.equal(
    refusal({ name: 'vt-one', queues: 2, header: HEADER }),
    'TAP vt-one: is no TAP of many queues: `sudo ip tuntap del vt-one mode tap`, then ' +
      '`sudo ip tuntap add vt-one mode tap user $USER multi_queue vnet_hdr`',
  );
  assert.equal(
    refusal({ name: 'vt-many', header: 0 }),
    'TAP vt-many: somebody else has it open with virtio-net headers: close it there',
  );
  for (const name of [
    '',
    'a234567890123456',
    'a b',
    'a/b',
    'a:b',
    '.',
    '..',
    'a%s',
    '%d%d',
    'a\0',
  ]) {
    assert.match(refusal({ name, header: 0 }), /is no name for a TAP: 1 to 15 bytes/);
  }
  for (const queues of [0, 9, 1.5]) {
    assert.match(refusal({ name: 'vt-q', queues, header: 0 }), /queues; it may have 1 to 8/);
  }
  await ip('link del vt-one');
  const gone = 'TAP vt-one: somebody has deleted the device: close it, and open it anew';
  for (const what of [() => one.up, () => one.setMac(KERNEL_MAC), () => one.setOffloads({})]) {
    assert.throws(what, { name: 'TapError', code: 'EBADFD', message: gone });
  }
  assert.throws(() => readSync(one.fds[0]!, Buffer.alloc(100)), { errno: -EBADFD });
});

test('without a right or the device, the sentence is the cure', async (t) => {
  if (!(await ownNetwork(t))) return;
  await ip('tuntap add vt-user mode tap user 65534 vnet_hdr');
  // In a mount namespace of its own, where /dev/net is not the machine's; and as somebody without a right.
  const source = `
    import { execFileSync } from 'node:child_process';
    import { openTap } from '${import.meta.dirname}/../../src/linux/index.ts';
    const sh = (line) => execFileSync('sh', ['-c', line]);
    const said = [];
    const say = (what) => {
      try {
        what();
        said.push('done');
      } catch (error) {
        said.push(error.message);
      }
    };
    const open = (name, header, queues) => () => openTap({ name, header, queues }).close();
    const asNobody = (what) => {
      process.seteuid(65534);
      what();
      process.seteuid(0);
    };
    asNobody(() => {
      say(open('vt-new', 12, 2));
      say(open('vt-new', 0, 1));
      const tap = openTap({ name: 'vt-user', header: 12 });
      say(() => tap.setMac('52:54:00:00:00:01'));
      say(() => tap.setUp(true));
      say(() => tap.setMtu(9000));
      tap.close();
    });
    sh('mount -t tmpfs none /dev/net');
    say(open('vt-new', 12, 2));
    sh('mknod -m 600 /dev/net/tun c 10 200');
    asNobody(() => say(open('vt-new', 12, 2)));
    console.log(JSON.stringify(said));
  `;
  const argv = ['-m', process.execPath, '--input-type=module', '-e', source];
  assert.deepEqual(
    JSON.parse(await exec('unshare', argv, { cwd: `${import.meta.dirname}/../..` })),
    [
      'TAP vt-new: needs root or CAP_NET_ADMIN: use sudo, or make it once with ' +
        '`sudo ip tuntap add vt-new mode tap user $USER multi_queue vnet_hdr`',
      'TAP vt-new: needs root or CAP_NET_ADMIN: use sudo, or make it once with ' +
        '`sudo ip tuntap add vt-new mode tap user $USER`',
      'done',
      'TAP vt-user: needs root or CAP_NET_ADMIN: `sudo ip link set vt-user up`',
      'TAP vt-user: needs root or CAP_NET_ADMIN: `sudo ip link set vt-user mtu 9000`',
      'TAP vt-new: there is no /dev/net/tun: `sudo modprobe tun`, or give it to the container',
      'TAP vt-new: /dev/net/tun may not be opened: needs root, or `sudo chmod 666 /dev/net/tun`',
    ],
  );
});
