// The library's surface as a type, so that the CLI and its tests can be written against it.

import type {
  FdbEntry,
  PortEvents,
  PortInfo,
  PortOptions,
  RingInfo,
  Stats,
  SwitchInfo,
} from './types.ts';

export interface SwitchApi {
  info(): SwitchInfo;
  addPort(options: PortOptions): Promise<PortInfo>;
  removePort(name: string): Promise<void>;
  ports(): PortInfo[];
  rings(): RingInfo[];
  fdb(): FdbEntry[];
  stats(): Stats;
  on<K extends keyof PortEvents>(event: K, listener: (value: PortEvents[K]) => void): this;
  close(): Promise<void>;
}
