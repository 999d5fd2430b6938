/** Counts and times of what clients saw. Latency counts from the moment a request was due, so a stall cannot hide the requests it delayed. */

/** Times in buckets about 2 % wide, from a microsecond to more than an hour, in 5 KiB. */
export interface Histogram {
  add(ms: number): void;
  /** @param share as in 0.99 @returns ms; 0 when nothing was added */
  at(share: number): number;
  count(): number;
}

const bucketsPerOctave = 32;
const octaves = 40;

export function histogram(): Histogram {
  const buckets = new Uint32Array(bucketsPerOctave * octaves);
  let count = 0;
  return {
    add(ms) {
      const bucket = Math.floor(Math.log2(Math.max(ms, 0.001) * 1000) * bucketsPerOctave);
      const index = Math.min(bucket, buckets.length - 1);
      buckets[index] = (buckets[index] ?? 0) + 1;
      count++;
    },
    at(share) {
      let left = Math.ceil(count * share);
      for (const [bucket, n] of buckets.entries()) {
        left -= n;
        if (n > 0 && left <= 0) return 2 ** ((bucket + 0.5) / bucketsPerOctave) / 1000;
      }
      return 0;
    },
    count: () => count,
  };
}

/**
 * The longest time a tenant's clients went without an answer they wanted: from the moment the first request that failed was
 * due (or the one that succeeded, when none had failed) to the next success.
 */
export interface Pauses {
  succeeded(tenant: string, dueMs: number, nowMs: number): void;
  failed(tenant: string, dueMs: number): void;
  /** The longest so far, pauses still going on included. */
  longest(nowMs: number): { tenant: string | null; ms: number };
}

export function pauses(): Pauses {
  const failingSince = new Map<string, number>();
  let worst: { tenant: string | null; ms: number } = { tenant: null, ms: 0 };
  const consider = (tenant: string, ms: number): void => {
    if (ms > worst.ms) worst = { tenant, ms };
  };
  return {
    succeeded(tenant, dueMs, nowMs) {
      const since = failingSince.get(tenant);
      // A success of a request from before the failures does not end them.
      if (since !== undefined && dueMs >= since) failingSince.delete(tenant);
      consider(tenant, nowMs - Math.min(dueMs, since !== undefined && dueMs >= since ? since : dueMs));
    },
    failed(tenant, dueMs) {
      failingSince.set(tenant, Math.min(dueMs, failingSince.get(tenant) ?? Infinity));
    },
    longest(nowMs) {
      for (const [tenant, since] of failingSince) consider(tenant, nowMs - since);
      return worst;
    },
  };
}
