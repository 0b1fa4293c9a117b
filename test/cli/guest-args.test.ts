import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import {
  cloudHypervisorArgs,
  type GuestPort,
  libvirtXml,
  parseMemory,
  qemuArgs,
  shellLines,
  testpmdArgs,
} from '../../src/cli/guest-args.ts';
import { run } from './fixtures/run.ts';

const PORT: GuestPort = {
  name: 'a',
  path: '/tmp/a.sock',
  mode: 'server',
  mac: '52:54:00:00:00:01',
  queues: 1,
};
const BIG: GuestPort = { ...PORT, mode: 'client', queues: 4, mtu: 9000 };
const lines = (text: string) => text.trimEnd().split('\n');

let folder: string;
before(() => {
  // So that no switch of this machine is found.
  folder = mkdtempSync('/tmp/vhop-args-');
  process.env['XDG_RUNTIME_DIR'] = folder;
});
after(() => rmSync(folder, { recursive: true }));

describe('the arguments of a guest', () => {
  it('for QEMU', () => {
    assert.deepEqual(lines(shellLines(qemuArgs(PORT, { memory: 512 }))), [
      '-m 512M \\',
      '-object memory-backend-memfd,id=mem,size=512M,share=on \\',
      '-numa node,memdev=mem \\',
      '-chardev socket,id=chr-a,path=/tmp/a.sock \\',
      '-netdev type=vhost-user,id=net-a,chardev=chr-a \\',
      '-device virtio-net-pci,netdev=net-a,mac=52:54:00:00:00:01',
    ]);
    assert.deepEqual(lines(shellLines(qemuArgs(BIG, { memory: 4096 }))).slice(3), [
      '-chardev socket,id=chr-a,path=/tmp/a.sock,server=on,wait=off \\',
      '-netdev type=vhost-user,id=net-a,chardev=chr-a,queues=4 \\',
      '-device virtio-net-pci,netdev=net-a,mac=52:54:00:00:00:01,mq=on,vectors=10,host_mtu=9000',
    ]);
    const again = qemuArgs(PORT, { memory: 512, reconnect: 'reconnect=1' });
    assert.ok(again.flat().includes('socket,id=chr-a,path=/tmp/a.sock,reconnect=1'));
  });

  it('for QEMU, from a path that needs quoting twice', () => {
    const args = shellLines(qemuArgs({ ...PORT, path: "/tmp/it's a,b.sock" }, { memory: 512 }));
    assert.match(args, /^-chardev 'socket,id=chr-a,path=\/tmp\/it'\\''s a,,b.sock' \\$/m);
  });

  it('for libvirt', () => {
    assert.equal(
      libvirtXml({ ...BIG, path: "/tmp/<&'>.sock" }, { memory: 512 }),
      `<!-- in <domain> -->
<memory unit='MiB'>512</memory>
<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>

<!-- in <devices> -->
<interface type='vhostuser'>
  <mac address='52:54:00:00:00:01'/>
  <source type='unix' path='/tmp/&lt;&amp;&apos;&gt;.sock' mode='server'/>
  <model type='virtio'/>
  <driver name='vhost' queues='4'/>
  <mtu size='9000'/>
</interface>
`,
    );
    assert.match(
      libvirtXml(PORT, { memory: 512, reconnect: 'reconnect=1' }),
      /mode='client'>\n {4}<reconnect enabled='yes' timeout='1'\/>\n {2}<\/source>/,
    );
  });

  it('for cloud-hypervisor', () => {
    assert.deepEqual(cloudHypervisorArgs(PORT, { memory: 512 }), [
      ['--memory', 'size=512M,shared=on'],
      ['--net', 'vhost_user=true,socket=/tmp/a.sock,mac=52:54:00:00:00:01,num_queues=2'],
    ]);
    assert.equal(
      cloudHypervisorArgs(BIG, { memory: 512 })[1]?.[1],
      'vhost_user=true,socket=/tmp/a.sock,mac=52:54:00:00:00:01,vhost_mode=server,num_queues=8,mtu=9000',
    );
  });

  it('for testpmd, with huge pages and without', () => {
    const small = testpmdArgs(PORT, { memory: 512 }).flat();
    assert.ok(small.includes('--no-huge'));
    assert.ok(
      small.includes('--vdev=net_virtio_user0,path=/tmp/a.sock,mac=52:54:00:00:00:01,queues=1'),
    );
    const big = testpmdArgs(BIG, { memory: 512, hugePages: true }).flat();
    assert.ok(big.includes('--single-file-segments') && !big.includes('--no-huge'));
    assert.ok(big.some((a) => a?.endsWith('queues=4,server=1')));
    assert.deepEqual(big.slice(-2), ['--rxq=4', '--txq=4']);
  });

  it('with packed virtqueues', async () => {
    const packed = { memory: 512, packed: true };
    assert.match(qemuArgs(PORT, packed).at(-1)![1]!, /^virtio-net-pci,.*,packed=on$/);
    assert.match(qemuArgs(BIG, packed).at(-1)![1]!, /,host_mtu=9000,packed=on$/);
    assert.match(libvirtXml(PORT, packed), /^ {2}<driver name='vhost' packed='on'\/>$/m);
    assert.match(libvirtXml(BIG, packed), /^ {2}<driver name='vhost' queues='4' packed='on'\/>$/m);
    const vdevs = testpmdArgs(BIG, packed)
      .flat()
      .filter((word) => word?.startsWith('--vdev'));
    assert.match(vdevs.join(' '), /,queues=4,server=1,packed_vq=1$/);
    assert.match((await run(['args', '/tmp/a.sock', '--packed'])).out, /packed=on$/m);
    assert.doesNotMatch((await run(['args', '/tmp/a.sock'])).out, /packed/);
    assert.deepEqual(await run(['args', '/tmp/a.sock', '--packed', '--cloud-hypervisor']), {
      status: 2,
      out: '',
      err: 'vhop: cloud-hypervisor has no packed virtqueues: leave --packed out\n',
    });
  });

  it('offline, from a socket', async () => {
    const { status, out, err } = await run(['args', '/tmp/x/web.sock', '--json', '-q', '2']);
    assert.deepEqual([status, err], [0, '']);
    const { program, arguments: words } = JSON.parse(out);
    assert.equal(program, 'qemu');
    assert.ok(words.includes('socket,id=chr-web,path=/tmp/x/web.sock'));
    assert.ok(words.includes('type=vhost-user,id=net-web,chardev=chr-web,queues=2'));
    const client = await run(['args', 'client:/tmp/x/web.sock', '--cloud-hypervisor']);
    assert.match(client.out, /vhost_mode=server/);
    const own = await run(['args', '/tmp/a.sock', '--mac', '02:00:00:00:00:0A', '-m', '2G']);
    assert.match(own.out, /size=2048M[\s\S]*mac=02:00:00:00:00:0a$/m);
    const comma = await run(['args', '/tmp/a,b.sock', '--testpmd']);
    assert.deepEqual([comma.status, comma.out], [2, '']);
  });
});

describe('a size of memory', () => {
  it('is read as people write it', () => {
    for (const [text, mib] of [
      ['512', 512],
      ['512M', 512],
      ['4G', 4096],
      ['1GiB', 1024],
      ['0', undefined],
      ['4T', undefined],
      ['', undefined],
      ['-1', undefined],
    ] as const) {
      assert.equal(parseMemory(text), mib, text);
    }
  });
});
