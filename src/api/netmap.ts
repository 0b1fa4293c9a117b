// Opens ports of the netmap-like API.

import type { NetmapOptions, NetmapPort } from '../netmap/types.ts';
import { NetmapError } from '../netmap/types.ts';

export function openNetmap(name: string, _options: NetmapOptions = {}): Promise<NetmapPort> {
  return Promise.reject(new NetmapError('name', `'${name}' cannot be opened by this version yet`));
}
