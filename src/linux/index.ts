// System calls, and the only FFI of the house.

export * from './aio.ts';
export { Batch, MAX_BATCH } from './batch.ts';
export { Channel, type ChannelMessage } from './channel.ts';
export * from './epoll.ts';
export * from './errors.ts';
export * from './eventfd.ts';
export * from './fault-guard.ts';
export { handlerCode, MAX_GUARDED } from './fault-handler.ts';
export { EBADFD } from './if-tun.ts';
export { EventLoop, type Watcher } from './loop.ts';
export * from './memory.ts';
export * from './sched.ts';
export * from './socket.ts';
export * from './tap.ts';
export * from './users.ts';
