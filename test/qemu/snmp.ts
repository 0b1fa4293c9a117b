// What a guest's kernel counted.

import type { Machine } from '../peers/guest.ts';

/** `Tcp:InCsumErrors` and so on of /proc/net/snmp. */
export async function snmp(machine: Machine): Promise<Record<string, number>> {
  const { stdout } = await machine.run('cat /proc/net/snmp');
  const found: Record<string, number> = {};
  let names: string[] = [];
  for (const line of stdout.trim().split('\n')) {
    const [protocol = '', ...words] = line.trim().split(/\s+/);
    if (words.every((word) => /^-?\d+$/.test(word))) {
      for (const [k, name] of names.entries()) found[`${protocol}${name}`] = Number(words[k]);
    } else {
      names = words;
    }
  }
  return found;
}
