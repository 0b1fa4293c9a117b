// netmap's rings without root: a generator and a receiver, each with a port of its own on a switch in
// this process, and a monitor that sees what the receiver got. Run: node examples/netmap.ts (after script/setup)

import { openSwitch } from 'vhop';

const FRAMES = 1_000_000;
const lab = await openSwitch();
const source = lab.addNetmapPort({ name: 'source', headers: 'kept' });
const sink = lab.addNetmapPort({ name: 'sink', headers: 'kept' });
const [tx] = source.tx;
const [rx] = sink.rx;
console.log(`${source.features.join(' ')}: ${tx!.slots} TX slots, ${rx!.slots} RX slots`);

// A broadcast, in every buffer once: what is sent comes back unchanged.
const frame = new Uint8Array(60);
frame.set([255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
for (let i = 0; i < tx!.slots; i++) source.memory.bytes.set(frame, tx!.address(i));

let sent = 0;
let received = 0;
const start = performance.now();
while (received < FRAMES) {
  // No more on its way than the receiver has room for: nothing is dropped.
  for (let n = source.txSync(tx!); n > 0 && sent < FRAMES && sent - received < 512; n--, sent++) {
    tx!.setLength(tx!.head, frame.length);
    tx!.head = tx!.cur = tx!.next(tx!.head);
  }
  source.txSync(tx!);
  received += sink.rxSync(rx!);
  rx!.head = rx!.cur = rx!.tail;
}
const seconds = (performance.now() - start) / 1000;
console.log(`received ${received} frames in ${seconds.toFixed(2)} s`);
console.table([source.counters(tx!), sink.counters(rx!)]);
await source.close();
await sink.close();
await lab.close();
