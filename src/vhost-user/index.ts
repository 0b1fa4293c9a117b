// The vhost-user protocol: messages, connections, and both ends of them.

export * from './backend.ts';
export { Budget, type BudgetOptions } from './budget.ts';
export { Connection, type ConnectionHandlers } from './connection.ts';
export { Endpoint, type EndpointOptions } from './endpoint.ts';
export { Frontend, type FrontendOptions } from './frontend.ts';
export * from './frontend-driver.ts';
export * from './message.ts';
export * from './names.ts';
export * from './payload.ts';
export { Session, type SessionOptions } from './session.ts';
export { PathError } from './socket-path.ts';
