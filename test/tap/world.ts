// A switch with TAP ports whose kernel ends lie in two network namespaces: two hosts on one machine.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import { ip, ownNetwork } from '../linux/network.ts';
import { Child, exec } from '../peers/process.ts';

/** The far end's namespace; the near one is this process's own. */
export const FAR = `vhop-far-${process.pid}`;
export const NEAR_IP = '10.77.0.1';
export const FAR_IP = '10.77.0.2';

export interface World {
  lab: Switch;
  close(): Promise<void>;
}

/** Moves the device to the far namespace and gives it an address there. */
export async function moveFar(device: string): Promise<void> {
  await ip(`link set ${device} netns ${FAR}`);
  await ip(`-n ${FAR} addr add ${FAR_IP}/24 dev ${device}`);
  await ip(`-n ${FAR} link set ${device} up`);
}

/** Makes the far namespace, empty; false, with the test skipped, where there may be none. */
export async function twoHosts(t: { skip(reason: string): void }): Promise<boolean> {
  if (!(await ownNetwork(t))) return false;
  await ip(`netns add ${FAR}`);
  return true;
}

/** Removes the far namespace. */
export const oneHost = (): Promise<string> => ip(`netns del ${FAR}`);

/** A switch with TAP ports `near` and `far`, both addressed. */
export async function openWorld(queues = 1): Promise<World> {
  const lab = await openSwitch();
  await lab.addPort({ type: 'tap', name: 'near', queues });
  await lab.addPort({ type: 'tap', name: 'far', queues });
  await ip(`addr add ${NEAR_IP}/24 dev near`);
  await moveFar('far');
  return { lab, close: () => lab.close() };
}

export const far = (command: string, args: string[]): Child =>
  new Child(command, args, { netns: FAR });

/** What the kernel received on the device: what a TAP's user wrote. `packets`, `bytes`, ... */
export async function kernelCount(device: string, counter: string): Promise<number> {
  // Not from /sys, which shows the namespace it was mounted in.
  const [link] = JSON.parse(await exec('ip', ['-j', '-s', 'link', 'show', 'dev', device]));
  return link.stats64.rx[counter];
}

/** Checksums that the far kernel found wrong, and retransmissions it made, in all. */
export async function farErrors(): Promise<{ checksums: number; retransmitted: number }> {
  const read = far('cat', ['/proc/net/snmp']);
  await read.finish(5000);
  const value = (protocol: string, name: string): number => {
    const [names, values] = read.stdout
      .split('\n')
      .filter((line) => line.startsWith(`${protocol}:`))
      .map((line) => line.split(' '));
    return Number(values![names!.indexOf(name)]);
  };
  return {
    checksums: value('Tcp', 'InCsumErrors') + value('Udp', 'InCsumErrors'),
    retransmitted: value('Tcp', 'RetransSegs'),
  };
}

/** The far host fetches `size` random bytes from here over TCP; its digest must be ours. */
export async function transfer(size: number): Promise<void> {
  const data = randomBytes(1 << 20);
  const hash = createHash('sha256');
  const server = createServer((socket) => {
    let left = size;
    const more = (): void => {
      while (left > 0) {
        const piece = data.subarray(0, Math.min(left, data.length));
        left -= piece.length;
        hash.update(piece);
        if (!socket.write(piece)) {
          socket.once('drain', more);
          return;
        }
      }
      socket.end();
    };
    more();
  });
  await new Promise<void>((done) => server.listen(5001, NEAR_IP, done));
  const program = `const h = require('crypto').createHash('sha256');
    require('net').connect(5001, '${NEAR_IP}').on('data', (d) => h.update(d))
      .on('end', () => console.log(h.digest('hex')))`;
  const client = far(process.execPath, ['-e', program]);
  assert.equal(await client.finish(60_000), 0, client.tail());
  assert.equal(client.stdout.trim(), hash.digest('hex'), 'sha256 of what arrived');
  await new Promise((done) => server.close(done));
}
