// The linear memory as the fuzzers write it: three views, little endian, addresses aligned.

export class Memory {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Int32Array;

  constructor(buffer: ArrayBufferLike) {
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.u32 = new Int32Array(buffer);
  }

  /** Whether `bytes` lie at `at`. */
  holds(at: number, bytes: Buffer): boolean {
    return Buffer.from(this.u8.buffer as ArrayBuffer, at, bytes.length).equals(bytes);
  }
}
