// Where netmap ports of a process live: its linear memory, and what is needed to work on it. A switch
// has one (switch/switch.ts); a tool without a switch makes its own.

import { HEAP_BASE, HEAP_SIZE } from '../abi/layout.ts';
import { EventLoop, signalPeer } from '../linux/index.ts';
import { Control } from '../memory/control.ts';
import { Spans } from '../memory/spans.ts';
import { Window } from '../memory/window.ts';
import { type Datapath, loadDatapath, taps } from '../worker/datapath.ts';

export interface Home {
  readonly control: Control;
  readonly window: Window;
  /** Driver heap. */
  readonly heap: Spans;
  /** This thread's instance of the datapath. */
  readonly datapath: Datapath;
  readonly loop: EventLoop;
}

/** What this thread's datapath calls when it drives rings. */
export function driverHost(memory: WebAssembly.Memory) {
  return {
    call() {},
    latched() {},
    kick(fd: number) {
      if (fd >= 0) signalPeer(fd);
    },
    ...taps(memory),
  };
}

/** A home of its own, for a process without a switch. */
export function openHome(): Home & { close(): Promise<void> } {
  const control = new Control();
  const window = new Window(control);
  const loop = new EventLoop();
  return {
    control,
    window,
    heap: new Spans(HEAP_BASE, HEAP_BASE + HEAP_SIZE),
    datapath: loadDatapath(control.memory, driverHost(control.memory)),
    loop,
    close: () => loop.close(),
  };
}
