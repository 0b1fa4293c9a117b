// A device's rings and the host's beside each other: the device, and a TAP whose other side is the
// kernel's stack. What goes between the two is the application's to say (`vhop bridge`).

import { Port } from './port.ts';
import { openTapRings } from './tap.ts';
import type { NetmapOptions } from './types.ts';

/** `port` with host rings behind its own, on TAP `name`; it closes both. Rejects with NetmapError. */
export async function withHostRings(
  port: Port,
  name: string,
  options: NetmapOptions,
): Promise<Port> {
  const host = openTapRings(name, port.memory, {
    ...options,
    // As many as the device's: ring k of one goes with ring k of the other.
    queues: port.rx.length,
    firstId: port.rx.length,
    host: true,
  });
  const both: Port = new Port(port.name, {
    memory: port.memory,
    headers: port.headers,
    fault: (reason) => port.fail(reason),
    close: async () => {
      both.unwatch();
      await port.close();
      host.close();
    },
  });
  const goUp = () => {
    both.goUp({
      rx: [...port.rx, ...host.rx],
      tx: [...port.tx, ...host.tx],
      wakeFds: [...port.wakeFds, ...host.tap.fds],
      features: port.features,
    });
  };
  port.on('up', goUp);
  port.on('down', (error) => {
    both.unwatch();
    both.goDown(error);
  });
  goUp();
  return both;
}
