// A switch inside your own program: two in-process guests exchange a million checked frames, while a
// third port waits for a VM. Run: node examples/library.ts (after script/setup)

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSwitch, startTraffic } from 'vhop';

const folder = mkdtempSync(join(tmpdir(), 'lab-'));
const lab = await openSwitch({ name: 'lab' });
lab.on('port-up', (port) => console.log(`${port.name} is up: ${port.features.join(' ')}`));
lab.on('notice', ({ port, message }) => console.log(`${port}: ${message}`));

await lab.addPort({ type: 'vhost-user', name: 'vm', path: join(folder, 'vm.sock') });
const traffic = startTraffic(lab, { frames: 500_000, length: 64 });
while (traffic.counts().some(({ sent }) => sent < 500_000)) {
  await new Promise((resolve) => setTimeout(resolve, 20));
}
const [a, b] = await traffic.drain();
console.log(`a received ${a.received} frames intact, b ${b.received}`);
console.table(lab.fdb());
console.table(lab.stats().ports);

await traffic.stop();
await lab.close();
rmSync(folder, { recursive: true });
