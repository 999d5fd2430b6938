import { useEffect, useState } from "react";
import { asProblem, type Problem, type Query } from "./client.ts";
import { useLive } from "./live.tsx";

export interface Reading<T> {
  /** The latest answer; kept while a newer one is on its way, null before the first. */
  value: T | null;
  problem: Problem | null;
}

/**
 * Reads from the API when `path` or `query` change, and again when `version` does (anything that says the answer may be another now).
 * An answer to an older question is dropped.
 */
export function useReading<T>(path: string, query: Query, version: unknown): Reading<T> {
  const { client } = useLive();
  const question = JSON.stringify([path, query]);
  const [reading, setReading] = useState<Reading<T> & { question: string }>({ value: null, problem: null, question });
  useEffect(() => {
    const gone = new AbortController();
    const [path, query] = JSON.parse(question) as [string, Query];
    client.get<T>(path, query, gone.signal).then(
      (value) => setReading({ value, problem: null, question }),
      (error: unknown) => {
        if (!gone.signal.aborted) setReading((now) => ({ ...now, problem: asProblem(error) }));
      },
    );
    return () => gone.abort();
  }, [client, question, version]);
  return reading.question === question ? reading : { value: null, problem: reading.problem };
}
