// vhost-user messages by hand, for tests that must say what no session would.

/** Bytes for the socket, and the descriptors that go with them. */
export type Message = { bytes: Buffer; fds?: number[] };

/** A vhost-user request as the specification lays it out: 12 bytes of header, then the payload. */
export function message(
  request: number,
  payload: Buffer = Buffer.alloc(0),
  fds: number[] = [],
): Message {
  const header = Buffer.alloc(12);
  header.writeUInt32LE(request, 0);
  header.writeUInt32LE(1, 4);
  header.writeUInt32LE(payload.length, 8);
  return { bytes: Buffer.concat([header, payload]), fds };
}

/** Little-endian u32 or (bigint) u64 words. */
export function words(...values: (number | bigint)[]): Buffer {
  return Buffer.concat(
    values.map((value) => {
      const word = Buffer.alloc(typeof value === 'bigint' ? 8 : 4);
      if (typeof value === 'bigint') word.writeBigUInt64LE(value);
      else word.writeUInt32LE(value);
      return word;
    }),
  );
}
