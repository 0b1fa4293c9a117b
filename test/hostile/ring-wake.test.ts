// Notification and the width of index accesses (vm-memory#98, vhost-user-backend#180/#343).

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { RING_ARMED } from '../../src/abi/layout.ts';
import { F_INDIRECT_DESC, F_VERSION_1, WRAP } from '../../src/abi/virtio.ts';
import { BOTH, overRings } from '../datapath/formats.ts';
import { concat, frame, header, mac, send } from '../datapath/frames.ts';
import { features } from '../datapath/rig.ts';
import { DeviceBench, FrontEnd } from '../virtio/bench.ts';
import { PackedFrontEnd } from '../virtio/packed-front-end.ts';
import { rig } from './guard.ts';
import { MODERN, world } from './sender.ts';

const ROOT = join(import.meta.dirname, '../..');
/** Memory accesses in WebAssembly text. */
const ACCESS = /\b[iv]\d+\.(?:atomic\.)?(?:load|store|rmw)[\w.]*/g;

/** The datapath without optimisation, so that every function still has its name; by that. */
function compiled(): Map<string, string> {
  const folder = mkdtempSync(join(tmpdir(), 'vhop-'));
  try {
    const text = join(folder, 'datapath.wat');
    execFileSync(
      process.execPath,
      [
        ...['node_modules/assemblyscript/bin/asc.js', 'src/datapath/index.ts', '-O0'],
        ...['--runtime', 'stub', '--importMemory', '--sharedMemory'],
        ...['--initialMemory', '65536', '--maximumMemory', '65536'],
        ...['--enable', 'simd,threads,bulk-memory', '--textFile', text],
      ],
      { cwd: ROOT },
    );
    const functions = readFileSync(text, 'utf8')
      .split(/^ \(func /m)
      .slice(1);
    return new Map(functions.map((body) => [body.slice(0, body.search(/[\s)]/)), body]));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('index accesses', () => {
  it('class 23: a ring index is read and written by one 16 bit atomic access, and only so', () => {
    const functions = compiled();
    const accesses = (name: string) => {
      const body = functions.get(`$src/datapath/${name}`);
      assert.ok(body, `${name} is not in the compiled text`);
      return body.match(ACCESS) ?? [];
    };
    assert.deepEqual(accesses('layout/acquire'), ['i32.atomic.load16_u']);
    assert.deepEqual(accesses('layout/publish'), ['i32.atomic.store16']);
    for (const name of functions.keys()) {
      if (!/^\$src\/datapath\/(?:split|packed)\//.test(name)) continue;
      const bytes = accesses(name.slice('$src/datapath/'.length)).filter((each) => /8/.test(each));
      assert.deepEqual(bytes, [], `${name} accesses single bytes`);
    }
    // Whatever reads an index of the guest, or shows one to it, does so through those two.
    for (const [name, calls] of [
      ['split/splitReady', ['acquire']],
      ['split/splitPublish', ['publish']],
      ['split/splitWanted', ['acquire', 'acquire']],
      ['split/splitArm', ['publish', 'publish', 'acquire']],
      ['packed/readyAt', ['acquire']],
      ['packed/packedPublish', ['publish']],
      ['packed/packedWanted', ['acquire', 'acquire']],
      ['packed/packedArm', ['publish']],
    ] as const) {
      const body = functions.get(`$src/datapath/${name}`) ?? '';
      const found = [...body.matchAll(/call \$src\/datapath\/layout\/(acquire|publish)/g)];
      assert.deepEqual(
        found.map(([, call]) => call),
        calls,
        name,
      );
      const plain = (body.match(/i32\.(?:load|store)16\w*/g) ?? []).length;
      assert.equal(plain, name === 'packed/packedArm' ? 1 : 0, `${name}: plain 16 bit accesses`);
    }
  });

  it('class 23: what runs has them too', () => {
    const text = readFileSync(join(ROOT, 'build/datapath.wat'), 'utf8');
    assert.ok((text.match(/i32\.atomic\.load16_u/g) ?? []).length > 5);
    assert.ok((text.match(/i32\.atomic\.store16/g) ?? []).length > 5);
    assert.doesNotMatch(text, /atomic\.store8/);
    // The bytes of dirty logs, and nothing else: looked at, and then a bit is set (datapath/log.ts).
    const [looks, marks] = [/atomic\.load8/g, /atomic\.rmw8\.or/g].map((each) => text.match(each));
    assert.equal(looks?.length, marks?.length);
  });
});

overRings(rig, BOTH, 'kicks of a hostile guest', () => {
  for (const acked of [MODERN, features(F_VERSION_1, F_INDIRECT_DESC)]) {
    it(`class 24: no kick is lost, whenever it races the arming (0x${acked.toString(16)})`, () => {
      const w = world(acked, 64);
      rig.settle();
      rig.datapath.armAll();
      for (let round = 0; round < 200; round++) {
        // Asleep: the first frame is asked to kick, and taken for it.
        send(w.tx, frame({ seed: round }));
        assert.equal(w.tx.publish(), true, `round ${round}: asleep and no kick wanted`);
        rig.datapath.activate(w.tx.index);
        // Kicks that nobody needs change nothing.
        for (let i = 0; i < round % 3; i++) rig.datapath.activate(w.tx.index);
        assert.equal(rig.settle(), 1);
        // Published before it is asked: it is seen, and the ring does not go to sleep.
        send(w.tx, frame({ seed: round }));
        w.tx.publish();
        assert.ok(rig.datapath.armAll() >= 1);
        assert.equal(w.tx.get(RING_ARMED), 0);
        assert.equal(rig.settle(), 1);
        assert.equal(rig.datapath.armAll(), 0);
        assert.equal(w.tx.get(RING_ARMED), 1);
        assert.equal(w.tx.used().length, 2);
        w.sink.fill(w.sink.take().length);
      }
      assert.deepEqual([w.tx.drops, rig.latched], [{}, []]);
    });
  }
});

const BYTES = concat(header(), frame({ from: mac(1), to: mac(2), length: 100 }));

for (const packed of [false, true]) {
  describe(`a guest kernel that restarts: ${packed ? 'packed' : 'split'}`, () => {
    const Made = packed ? PackedFrontEnd : FrontEnd;

    function passes(bench: DeviceBench, from: FrontEnd, to: FrontEnd): boolean {
      const before = [from.usedIdx(1), to.usedIdx(0)];
      to.post(0, 2048, true);
      from.post(1, BYTES.length, false, BYTES);
      bench.datapath.activate(from.device.rings[1]!.index);
      bench.settle();
      const after = [from.usedIdx(1), to.usedIdx(0)];
      return after.every((index, i) => index === ((before[i]! + 1) & 0xffff));
    }

    it('class 24: without a socket drop: the used index is read anew, whatever the base says', () => {
      // Split: memory knows better than a base that is left over. Packed: the base is all there is.
      for (const base of packed ? [WRAP, 0x8000_8000] : [0, 5, 1000]) {
        for (const before of [1, 21]) {
          const bench = new DeviceBench();
          const [a, b] = [0, 1].map(() => new Made(bench, bench.device().device).open()) as [
            FrontEnd,
            FrontEnd,
          ];
          for (let i = 0; i < before; i++) assert.ok(passes(bench, a, b));
          // What the driver had posted and never saw used goes with it.
          a.post(1, BYTES.length, false, BYTES);
          for (const queue of [0, 1]) a.device.getVringBase(queue);
          bench.control.bytes.fill(0, a.linear(0), a.linear(0) + 0x8_0000);
          const again = new Made(bench, a.device, 16, a.fd);
          for (const queue of [0, 1]) again.start(queue, base);
          // Wherever the last call was made: the first burst after a start calls.
          bench.calls.length = 0;
          assert.ok(passes(bench, again, b), 'the first frame');
          assert.ok(bench.calls.includes(a.device.rings[1]!.index), 'no call after the restart');
          for (let i = 0; i < 40; i++) assert.ok(passes(bench, again, b), `frame ${i}`);
          for (let i = 0; i < 40; i++) assert.ok(passes(bench, b, again), `frame ${i} back`);
          for (const end of [again, b]) end.close();
        }
      }
    });

    it('class 24: a kick that comes while its ring is set up anew is not lost', () => {
      const bench = new DeviceBench();
      const [a, b] = [
        new Made(bench, bench.device().device),
        new Made(bench, bench.device().device),
      ];
      for (const end of [a, b]) end.open();
      for (let round = 0; round < 20; round++) {
        assert.ok(passes(bench, a, b));
        bench.datapath.armAll();
        assert.equal(bench.datapath.activeRings(), 0);
        // The ring sleeps; its frame and the kick for it come while main has taken the ring away.
        bench.onQuiesce = () => {
          bench.onQuiesce = () => {};
          b.post(0, 2048, true);
          a.post(1, BYTES.length, false, BYTES);
          bench.datapath.activate(a.device.rings[1]!.index);
        };
        const before = b.usedIdx(0);
        a.device.setMemTable([a.region()]);
        bench.settle();
        assert.equal(b.usedIdx(0), (before + 1) & 0xffff, `round ${round}`);
      }
      for (const end of [a, b]) end.close();
    });
  });
}
