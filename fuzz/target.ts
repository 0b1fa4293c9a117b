// What every fuzzer is to `npm run fuzz` (fuzz/run.ts) and to its test.

export interface FuzzReport {
  iterations: number;
  seconds: number;
  notes: Record<string, number>;
}

export interface FuzzTarget {
  name: string;
  run(o: {
    seed: number;
    iterations: number;
    onProgress?(done: number): void;
  }): Promise<FuzzReport>;
}
