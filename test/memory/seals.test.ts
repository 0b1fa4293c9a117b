// Files of guest memory are sealed against shrinking where they take seals; `requireSealed` refuses
// those that do not.

import assert from 'node:assert/strict';
import { ftruncateSync, openSync, unlinkSync } from 'node:fs';
import { afterEach, describe, it } from 'node:test';
import koffi from 'koffi';
import { close, memfd, SEAL_GROW, SEAL_SHRINK, seals } from '../../src/linux/index.ts';
import { Control } from '../../src/memory/control.ts';
import { BadRegion, RegionTable } from '../../src/memory/regions.ts';
import { Window } from '../../src/memory/window.ts';
import { Refusal } from '../../src/vhost-user/backend.ts';
import { DeviceBench } from '../virtio/bench.ts';
import { MFD_HUGE_2MB, unsealable } from './unsealable.ts';

const MIB = 2 ** 20;
const SIZE = 4 * MIB;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 1;
const fcntl = koffi.load(null).func('int fcntl(int fd, int command, ...)');

const region = { gpa: 0n, uva: 0n, size: BigInt(SIZE), mmapOffset: 0n };
const EPERM = { code: 'EPERM' };

/** A file on tmpfs, opened as `flags` say; its name is gone. */
function tmpfs(flags: string): number {
  const name = `/dev/shm/vhop-seals-${process.pid}`;
  const fd = openSync(name, 'w+');
  ftruncateSync(fd, SIZE);
  const again = openSync(name, flags);
  close(fd);
  unlinkSync(name);
  return again;
}

const SEALABLE: [string, () => number][] = [
  ['a memfd that allows seals', () => memfd('plain', SIZE)],
  [
    'a memfd of huge pages that allows seals',
    () => unsealable(SIZE, MFD_HUGE_2MB | MFD_ALLOW_SEALING),
  ],
  ['a memfd that its maker sealed', () => memfd('sealed', SIZE, { seal: true })],
];
const UNSEALABLE: [string, () => number][] = [
  ['a memfd that allows none', () => unsealable(SIZE)],
  ['a memfd of huge pages that allows none', () => unsealable(SIZE, MFD_HUGE_2MB)],
  [
    'a memfd that was sealed against seals',
    () => {
      const fd = memfd('no-more', SIZE);
      assert.equal(fcntl(fd, F_ADD_SEALS, 'int', F_SEAL_SEAL), 0);
      return fd;
    },
  ],
  ['a file on tmpfs', () => tmpfs('r+')],
];

describe('class 5: seals', () => {
  const control = new Control();
  const window = new Window(control);
  let table: RegionTable;
  const fds: number[] = [];
  afterEach(() => {
    table?.clear();
    for (const fd of fds.splice(0)) close(fd);
  });

  /** Adds the file as the only region; of huge pages nothing is reserved, and mapping them may fail. */
  function add(make: () => number, requireSealed: boolean): number {
    const fd = make();
    fds.push(fd);
    table = new RegionTable(control, window, 0, { requireSealed });
    try {
      table.add(region, fd);
    } catch (error) {
      if (!/ENOMEM/.test((error as Error).message)) throw error;
    }
    return fd;
  }

  for (const [name, make] of SEALABLE) {
    it(`class 5: ${name} cannot shrink any more once it is guest memory`, () => {
      const fd = add(make, true);
      assert.equal(table.sealed, true);
      assert.equal(seals(fd) & SEAL_SHRINK, SEAL_SHRINK);
      assert.throws(() => ftruncateSync(fd, 2 * MIB), EPERM);
      assert.throws(() => ftruncateSync(fd, 0), EPERM);
    });
  }

  it('class 5: growing is left to the guest', () => {
    const fd = add(() => memfd('grows', SIZE), false);
    assert.equal(seals(fd) & SEAL_GROW, 0);
    ftruncateSync(fd, 2 * SIZE);
  });

  for (const [name, make] of UNSEALABLE) {
    it(`class 5: ${name} is refused where seals are required, and taken elsewhere`, () => {
      assert.throws(
        () => add(make, true),
        (error) =>
          error instanceof BadRegion &&
          /GPA 0x0 \(4194304 bytes\) is in a file that can shrink .* memory-backend-memfd.*DPDK 22.11/.test(
            error.message,
          ),
      );
      assert.equal(table.bytes, 0);
      add(make, false);
      if (table.bytes > 0) assert.equal(table.sealed, false);
    });
  }

  it('class 5: SET_MEM_TABLE and ADD_MEM_REG are refused alike, and their descriptors closed', () => {
    const bench = new DeviceBench();
    const { device } = bench.device(1, undefined, false, true);
    const message = /can shrink while it is mapped, and this port requires sealed memory/;
    const refused = (error: unknown) => error instanceof Refusal && message.test(error.message);
    const [first, second] = [unsealable(SIZE), unsealable(SIZE)];
    assert.throws(() => device.setMemTable([{ ...region, fd: first }]), refused);
    assert.throws(() => device.addMemRegion({ ...region, fd: second }), refused);
    for (const fd of [first, second]) assert.throws(() => close(fd), { code: 'EBADF' });
    device.addMemRegion({ ...region, fd: memfd('sound', SIZE) });
    assert.equal(device.regions.sealed, true);
    device.disconnected('the test ends');
  });
});
