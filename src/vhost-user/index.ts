// The vhost-user protocol: messages, connections, and the device side of a front end.

export * from './backend.ts';
export { Budget, type BudgetOptions } from './budget.ts';
export { Connection, type ConnectionHandlers } from './connection.ts';
export { Endpoint, type EndpointOptions } from './endpoint.ts';
export * from './message.ts';
export * from './names.ts';
export * from './payload.ts';
export { Session, type SessionOptions } from './session.ts';
export { PathError } from './socket-path.ts';
