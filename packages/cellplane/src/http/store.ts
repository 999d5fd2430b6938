import type { Queryable, Tx } from "../store/model.ts";

/** A mutation that was done: what it was, and what was answered. */
export interface Remembered {
  fingerprint: Buffer;
  /** JSON, word for word. */
  answer: string;
}

/** A call's answer, to be kept when its transaction commits. */
export interface NewAnswer extends Remembered {
  caller: string;
  key: string;
}

/** Keeps the answers of a transaction's calls. A key that another call has answered keeps that answer. */
export async function keepAnswers(tx: Tx, answers: NewAnswer[]): Promise<void> {
  await tx.query(
    `insert into idempotency as known (caller, key, fingerprint, answer)
     select distinct on (caller, key) * from unnest($1::text[], $2::text[], $3::bytea[], $4::text[]) as given (caller, key, fingerprint, answer) order by caller, key
     on conflict (caller, key) do update set answer = excluded.answer where known.answer is null`,
    [answers.map((a) => a.caller), answers.map((a) => a.key), answers.map((a) => a.fingerprint), answers.map((a) => a.answer)],
  );
}

export const openIdempotencyStore = (db: Queryable) => ({
  async find(caller: string, key: string): Promise<Remembered | null> {
    const [row] = await db.query<Remembered>("select fingerprint, answer from idempotency where caller = $1 and key = $2", [caller, key]);
    return row ?? null;
  },

  /**
   * Takes the key for this transaction. Waits while another one that has taken it runs.
   * @returns false when the other one has committed: `find` has its answer
   */
  async take(tx: Tx, caller: string, key: string, fingerprint: Buffer): Promise<boolean> {
    const rows = await tx.query("insert into idempotency (caller, key, fingerprint) values ($1, $2, $3) on conflict do nothing returning 1", [caller, key, fingerprint]);
    return rows.length === 1;
  },

  /** Forgets a batch of the keys older than this. @returns how many */
  async forget(olderThanMs: number, batch = 10_000): Promise<number> {
    const rows = await db.query(
      `delete from idempotency where (caller, key) in (
         select caller, key from idempotency where at < now() - $1::float8 * interval '1 ms' order by at limit $2 for update skip locked) returning 1`,
      [olderThanMs, batch],
    );
    return rows.length;
  },
});
export type IdempotencyStore = ReturnType<typeof openIdempotencyStore>;
