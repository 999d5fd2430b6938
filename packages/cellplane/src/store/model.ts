/** A row as PostgreSQL sends it: int8 and numeric arrive as numbers (our counters stay below 2^53), timestamptz as Date, jsonb parsed. */
export type Row = Record<string, unknown>;

/** What a query can be sent to: the pool (each statement on its own) or an open transaction. */
export interface Queryable {
  /** @throws CellplaneError database_unavailable when the connection is gone; pg.DatabaseError for what SQL refuses */
  query<R = Row>(sql: string, params?: readonly unknown[]): Promise<R[]>;
}

/**
 * What is written at the very end of a transaction, in this order. All but the answers (what repeats of a call are
 * answered with) hold a row that everybody wants: the head of the route log, the event log, the head of the audit chain.
 * Taken last they are held for one commit only, and taken in one order they cannot deadlock.
 */
export const commitRanks = ["answers", "routes", "events", "audit"] as const;
export type CommitRank = (typeof commitRanks)[number];

export interface Tx extends Queryable {
  /** Collects what `flush` will write just before the commit; all items of one rank go to one call of the first `flush` given. */
  atCommit<T>(rank: CommitRank, item: T, flush: (tx: Tx, items: T[]) => Promise<void>): void;
}
