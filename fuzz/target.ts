// What a fuzz target is.

export interface FuzzTarget {
  name: string;
  run(o: {
    seed: number;
    iterations: number;
    onProgress?(done: number): void;
  }): Promise<{ iterations: number; seconds: number; notes: Record<string, number> }>;
}
