// A front end that never rests: a process of its own that sets up a port in full, then repeats one kind
// of request as fast as the socket takes it. Run: node bench/flood.ts SOCKET KIND; `set up` on stdout.

import * as vu from '../src/abi/vhost-user.ts';
import { F_PROTOCOL_FEATURES, F_VERSION_1 } from '../src/abi/virtio.ts';
import {
  close,
  connectUnix,
  EPOLLIN,
  EPOLLOUT,
  Epoll,
  eventfd,
  memfd,
  recvWithFds,
  sendWithFds,
} from '../src/linux/index.ts';
import { encodeMessage, type PayloadKind, type Payloads } from '../src/vhost-user/index.ts';

/** What it repeats; `rest`: nothing. */
export type Kind =
  | 'rest'
  | 'features'
  | 'enable'
  | 'call'
  | 'restart'
  | 'memory'
  | 'refused'
  | 'connect';

const RINGS = 16;
const SIZE = 256;
const UVA = 0x7f00_0000_0000n;
const BYTES = 64 << 20;

const [path, kind] = process.argv.slice(2) as [string, Kind];
const memory = memfd('flood', BYTES, { seal: true });
const event = eventfd();
const epoll = new Epoll();
const replies = Buffer.alloc(65536);
let fd = -1;

function connect(): void {
  for (;;) {
    try {
      fd = connectUnix(path);
      break;
    } catch {
      epoll.wait(1);
    }
  }
  epoll.add(fd, EPOLLIN | EPOLLOUT, 0);
}

function send<K extends PayloadKind>(
  request: number,
  payload: K,
  value: Payloads[K],
  fds: number[] = [],
  flags = 0,
): void {
  const bytes = encodeMessage(request, vu.VERSION | flags, payload, value);
  for (let sent = 0; sent < bytes.length; ) {
    const n = sendWithFds(fd, bytes.subarray(sent), sent === 0 ? fds : []);
    // Replies that nobody reads would end the flood by themselves.
    while (recvWithFds(fd, replies, 0) !== 'again');
    if (n === 'again') epoll.wait(-1);
    else sent += n;
  }
}

function start(index: number): void {
  const at = UVA + BigInt(index) * 0x1_0000n;
  send(vu.VU_SET_VRING_NUM, 'state', { index, num: SIZE });
  send(vu.VU_SET_VRING_BASE, 'state', { index, num: 0 });
  const parts = { desc: at, avail: at + 0x2000n, used: at + 0x4000n };
  send(vu.VU_SET_VRING_ADDR, 'addr', { index, flags: 0, logGpa: 0n, ...parts });
  send(vu.VU_SET_VRING_CALL, 'ringFd', { index, noFd: false }, [event]);
  send(vu.VU_SET_VRING_KICK, 'ringFd', { index, noFd: false }, [event]);
  send(vu.VU_SET_VRING_ENABLE, 'state', { index, num: 1 });
}

function table(): void {
  const region = { gpa: 0n, size: BigInt(BYTES), uva: UVA, mmapOffset: 0n };
  send(vu.VU_SET_MEM_TABLE, 'table', [region], [memory]);
}

function setUp(): void {
  connect();
  send(vu.VU_SET_PROTOCOL_FEATURES, 'u64', (1n << 3n) | 1n);
  send(
    vu.VU_SET_FEATURES,
    'u64',
    (1n << BigInt(F_VERSION_1)) | (1n << BigInt(F_PROTOCOL_FEATURES)),
  );
  table();
  for (let index = 0; index < RINGS; index++) start(index);
}

const ROUNDS: Record<Kind, (i: number) => void> = {
  rest: () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000),
  features: () => send(vu.VU_GET_FEATURES, 'none', null),
  enable: (i) => send(vu.VU_SET_VRING_ENABLE, 'state', { index: i % RINGS, num: (i / RINGS) & 1 }),
  call: (i) => send(vu.VU_SET_VRING_CALL, 'ringFd', { index: i % RINGS, noFd: false }, [event]),
  restart(i) {
    send(vu.VU_GET_VRING_BASE, 'state', { index: i % RINGS, num: 0 });
    start(i % RINGS);
  },
  memory: table,
  // Answered: a refusal that nobody asked about ends the connection.
  refused: () => send(99, 'none', null, [], vu.FLAG_NEED_REPLY),
  connect() {
    epoll.remove(fd);
    close(fd);
    setUp();
  },
};

setUp();
console.log('set up');
for (let i = 0; ; i++) ROUNDS[kind](i);
