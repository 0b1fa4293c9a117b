// Memory that goes away: zeros within a guarded range, the end of the process elsewhere.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { ftruncateSync } from 'node:fs';
import { after, describe, it } from 'node:test';
import {
  addressOf,
  close,
  drain,
  eventfd,
  guardFaults,
  handlerCode,
  MAX_GUARDED,
  memfd,
  mmapFixed,
  whyUnguarded,
} from '../../src/linux/index.ts';

const MIB = 2 ** 20;
const PAGE = 4096;

/** A file of `size` bytes mapped where 2 MiB pages lie, with everything a range needs; unguarded. */
function mapped(size: number) {
  const memory = new WebAssembly.Memory({ initial: 256, maximum: 256, shared: true });
  const bytes = new Uint8Array(memory.buffer);
  const origin = addressOf(bytes.subarray(0, 65536));
  const at = 2 * MIB - (origin % (2 * MIB));
  const fd = memfd('guarded', size);
  mmapFixed(origin + at, size, fd, 0);
  // Behind what is mapped.
  const faults = 12 * MIB;
  const event = eventfd();
  const range = {
    start: origin + at,
    length: size,
    fine: { start: origin + at, length: 2 * MIB },
    origin,
    faults: origin + faults,
    fd: event,
  };
  const marked = () => {
    const pages: number[] = [];
    for (let page = 0; page < 4096; page++) {
      if (bytes[faults + (page >> 3)]! & (1 << (page & 7))) pages.push(page * PAGE - at);
    }
    return pages;
  };
  return { bytes, at, fd, event, range, marked };
}

/** Runs a script with all of src/linux and koffi at hand in a process of its own. */
function child(script: string) {
  const linux = new URL('../../src/linux/index.ts', import.meta.url);
  const head = `import * as linux from ${JSON.stringify(linux.href)};
    import { ftruncateSync } from 'node:fs';
    const MIB = 2 ** 20;
    /** 2 MiB of a file in memory of its own, and the guard of a range that is elsewhere. */
    function lose(linux, guarded) {
      const memory = new WebAssembly.Memory({ initial: 128, maximum: 128, shared: true });
      const bytes = new Uint8Array(memory.buffer);
      const origin = linux.addressOf(bytes.subarray(0, 65536));
      const at = 2 * MIB - (origin % (2 * MIB));
      const fd = linux.memfd('lost', 2 * MIB);
      linux.mmapFixed(origin + at, 2 * MIB, fd, 0);
      const start = origin + (guarded ? at : 6 * MIB);
      linux.guardFaults({ start, length: MIB, fine: { start, length: MIB }, origin,
        faults: origin + 7 * MIB, fd: linux.eventfd() });
      ftruncateSync(fd, 0);
      return () => bytes[at];
    }\n`;
  const { signal, status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', head + script],
    { encoding: 'utf8', timeout: 20_000 },
  );
  return { signal, status, stdout, stderr };
}

/** Why there is nothing to test. */
const skip = handlerCode(process.arch, 0) ? false : `there is no handler for ${process.arch}`;

describe('a guarded range', { skip }, () => {
  const { bytes, at, fd, event, range, marked } = mapped(8 * MIB);
  bytes.fill(7, at, at + 8 * MIB);
  const end = guardFaults(range);
  after(() => {
    end();
    close(fd);
    close(event);
  });

  it('this machine can have one', () => {
    assert.equal(whyUnguarded(), undefined);
  });

  it('reads zeros where the file is gone; every page is marked, the eventfd signalled', () => {
    assert.equal(drain(event), false);
    ftruncateSync(fd, 0);
    assert.equal(bytes[at + PAGE + 3], 0);
    assert.equal(drain(event), true);
    assert.deepEqual(marked(), [PAGE]);
    bytes[at + 5 * MIB] = 9;
    assert.equal(bytes[at + 5 * MIB], 9);
    assert.equal(drain(event), true);
    assert.deepEqual(marked(), [PAGE, 5 * MIB]);
  });

  it('is replaced 4 KiB at a time where that is asked, else 2 MiB', () => {
    // The page beside is a fault of its own, the megabyte beside 5 MiB is not.
    assert.equal(bytes[at], 0);
    assert.deepEqual(marked(), [0, PAGE, 5 * MIB]);
    assert.equal(bytes[at + 4 * MIB], 0);
    assert.equal(bytes[at + 6 * MIB - 1], 0);
    assert.deepEqual(marked(), [0, PAGE, 5 * MIB]);
    drain(event);
    assert.equal(bytes[at + 6 * MIB], 0);
    assert.deepEqual(marked(), [0, PAGE, 5 * MIB, 6 * MIB]);
  });

  it('survives an eventfd that cannot be written to', () => {
    const full = mapped(4 * MIB);
    const stop = guardFaults({ ...full.range, fd: -1 });
    ftruncateSync(full.fd, 0);
    assert.equal(full.bytes[full.at], 0);
    assert.deepEqual(full.marked(), [0]);
    stop();
    close(full.fd);
    close(full.event);
  });

  it(`has ${MAX_GUARDED - 1} others beside it, not more`, () => {
    const ends = Array.from({ length: MAX_GUARDED - 1 }, () => guardFaults(range));
    assert.throws(() => guardFaults(range), /63 switches in one process; start another process/);
    ends.pop()!();
    ends.push(guardFaults(range));
    for (const end of ends) end();
  });

  it('an access of Wasm out of bounds is an exception, as before', () => {
    // (memory 1) (func (export "f") (param i32) (result i32) (i32.load (local.get 0)))
    const module = new WebAssembly.Module(
      Uint8Array.from([
        ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
        ...[1, 6, 1, 0x60, 1, 0x7f, 1, 0x7f],
        ...[3, 2, 1, 0],
        ...[5, 3, 1, 0, 1],
        ...[7, 5, 1, 1, 0x66, 0, 0],
        ...[10, 9, 1, 7, 0, 0x20, 0, 0x28, 2, 0, 0x0b],
      ]),
    );
    const { f } = new WebAssembly.Instance(module, {}).exports as { f: (at: number) => number };
    assert.equal(f(65532), 0);
    for (let i = 0; i < 20_000; i++) f(i);
    for (const at of [65533, 65536, 0x7fff_ffff, -4]) {
      assert.throws(() => f(at), WebAssembly.RuntimeError);
    }
  });
});

describe('the handler', { skip }, () => {
  it('holds both addresses, and every line where it says, for each processor', () => {
    const [data, table] = [0x1234_5678_9000n, 0x1234_5678_9040n];
    const x64 = handlerCode('x64', Number(data))!;
    assert.deepEqual([x64.readBigUInt64LE(0x33), x64.readBigUInt64LE(0x12)], [data, table]);
    assert.equal(x64.length, 0xf6);
    const arm64 = handlerCode('arm64', Number(data))!;
    assert.deepEqual([arm64.readBigUInt64LE(0x148), arm64.readBigUInt64LE(0x140)], [data, table]);
    assert.equal(arm64.length, 0x150);
    assert.equal(handlerCode('riscv64', Number(data)), undefined);
  });

  it('lets SIGBUS elsewhere end the process', () => {
    const read =
      'const read = lose(linux, false); console.log("before"); read(); console.log("after");';
    const { signal, stdout } = child(read);
    assert.deepEqual([signal, stdout], ['SIGBUS', 'before\n']);
  });

  it('lets SIGBUS from another process end this one', () => {
    const { signal } = child(
      'lose(linux, true)(); process.kill(process.pid, "SIGBUS"); while (true) {}',
    );
    assert.equal(signal, 'SIGBUS');
  });

  it('passes on to the handler before it what is not its own', () => {
    const first = new URL('../../src/linux/fault-guard.ts?first', import.meta.url).href;
    const both = `const first = await import(${JSON.stringify(first)});
      const reads = [lose({ ...linux, ...first }, true), lose(linux, true), lose(linux, true)];
      console.log(reads.map((read) => read()).join());
      const elsewhere = lose(linux, false);
      console.log("elsewhere");
      elsewhere();`;
    const { signal, stdout } = child(both);
    assert.deepEqual([signal, stdout], ['SIGBUS', '0,0,0\nelsewhere\n']);
  });

  it('a range that ended is guarded no more', () => {
    const { signal, stdout } = child(`let end;
      const read = lose({ ...linux, guardFaults: (range) => { end = linux.guardFaults(range); } }, true);
      end();
      console.log("ended");
      read();`);
    assert.deepEqual([signal, stdout], ['SIGBUS', 'ended\n']);
  });
});
