import pg from "pg";
import { assert } from "../base/assert.ts";
import { CellplaneError, fail } from "../base/errors.ts";
import { type CommitRank, commitRanks, type Queryable, type Tx } from "./model.ts";

export interface Store extends Queryable {
  /**
   * Runs `work` in one READ COMMITTED transaction and commits it. With `dryRun` everything is done and then rolled back,
   * so that what a dry run shows is what the real run would have done.
   */
  transaction<T>(work: (tx: Tx) => Promise<T>, options?: { dryRun?: boolean }): Promise<T>;
  /** Calls back on each NOTIFY of the channel, and once with "" after every (re)connect, when notifications may have been missed. */
  listen(channel: string, onNotify: (payload: string) => void): () => void;
  /** A connection outside the pool, for session locks; the caller ends it. */
  connect(): Promise<pg.Client>;
  close(): Promise<void>;
}

const types = {
  getTypeParser: (oid: number, format?: "text" | "binary") =>
    oid === pg.types.builtins.INT8 || oid === pg.types.builtins.NUMERIC ? Number : pg.types.getTypeParser(oid, format as "text"),
};

/** Of every session, from its first statement on. A process that stops in the middle of a transaction must not hold its locks for ever. */
const sessionOptions = "-c search_path=cellplane,public -c idle_in_transaction_session_timeout=15s";
const ignore = (): void => undefined;
const lostConnection = /terminat|ECONNRE|EPIPE|ENOENT|ECONNREFUSED|timeout exceeded when trying to connect|Client has encountered a connection error|not queryable|the database system is/i;

/** Tells a lost or refused connection from what SQL refuses, since only the first is worth a retry. */
export function asStoreError(error: unknown): unknown {
  if (error instanceof CellplaneError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const code = (error as { code?: string }).code ?? "";
  if (code === "53100") return fail("disk_full", { path: "the control plane's database" }, { cause: error });
  if (/^(57P0|08|53300|ECONN|EPIPE|ENOENT)/.test(code) || (code === "" && lostConnection.test(message))) return fail("database_unavailable", { why: message }, { cause: error });
  return error;
}

/**
 * @param url `postgres://…`; a socket directory as `postgres:///db?host=/dir`
 * @param connectionsMax connections of the pool; two more are used for LISTEN and for session locks
 */
export function openStore(url: string, { connectionsMax = 10, applicationName = "cellplane" } = {}): Store {
  const config = { connectionString: url, types, application_name: applicationName, connectionTimeoutMillis: 5000, keepAlive: true, options: sessionOptions };
  const pool = new pg.Pool({ ...config, max: connectionsMax, idleTimeoutMillis: 30_000 });
  // A connection that breaks says so as an event, idle or in use; whoever uses it is told by the query, and the pool replaces it.
  pool.on("error", ignore);
  pool.on("connect", (client) => void client.on("error", ignore));

  const listeners = new Map<string, Set<(payload: string) => void>>();
  let closed = false;
  let listening: Promise<pg.Client | null> | null = null;

  async function openListener(): Promise<pg.Client | null> {
    for (let waitMs = 50; !closed; waitMs = Math.min(waitMs * 2, 2000)) {
      const client = new pg.Client(config);
      try {
        client.on("error", ignore);
        await client.connect();
        client.on("notification", ({ channel, payload }) => listeners.get(channel)?.forEach((call) => call(payload ?? "")));
        client.on("end", () => {
          if (closed) return;
          listening = openListener();
        });
        for (const channel of listeners.keys()) await client.query(`listen ${pg.escapeIdentifier(channel)}`);
        for (const calls of listeners.values()) calls.forEach((call) => call(""));
        return client;
      } catch {
        client.end().catch(() => undefined);
        await new Promise((resolve) => setTimeout(resolve, waitMs));
      }
    }
    return null;
  }

  const run = async <R>(target: pg.Pool | pg.PoolClient, sql: string, params?: readonly unknown[]): Promise<R[]> => {
    try {
      return (await target.query(sql, params as unknown[])).rows as R[];
    } catch (error) {
      throw asStoreError(error);
    }
  };

  return {
    query: (sql, params) => run(pool, sql, params),

    async transaction(work, { dryRun = false } = {}) {
      const client = await pool.connect().catch((error: unknown) => {
        throw asStoreError(error);
      });
      const pending = new Map<CommitRank, { items: unknown[]; flush: (tx: Tx, items: never[]) => Promise<void> }>();
      const tx: Tx = {
        query: (sql, params) => run(client, sql, params),
        atCommit(rank, item, flush) {
          const entry = pending.get(rank) ?? { items: [], flush };
          entry.items.push(item);
          pending.set(rank, entry);
        },
      };
      let broken: Error | undefined;
      try {
        await tx.query("begin");
        const result = await work(tx);
        for (const rank of commitRanks) {
          const entry = pending.get(rank);
          if (entry) await entry.flush(tx, entry.items as never[]);
        }
        await tx.query(dryRun ? "rollback" : "commit");
        return result;
      } catch (error) {
        // A connection that cannot even roll back is thrown away: what it may still hold open must not reach the next user.
        await client.query("rollback").catch((failure: Error) => (broken = failure));
        throw error;
      } finally {
        client.release(broken);
      }
    },

    listen(channel, onNotify) {
      assert(!closed, "a closed store is not listened to");
      const calls = listeners.get(channel) ?? new Set();
      const first = calls.size === 0;
      calls.add(onNotify);
      listeners.set(channel, calls);
      if (!listening) listening = openListener();
      else if (first) void listening.then((client) => client?.query(`listen ${pg.escapeIdentifier(channel)}`)).then(() => onNotify(""), () => undefined);
      return () => void calls.delete(onNotify);
    },

    async connect() {
      const client = new pg.Client(config);
      client.on("error", ignore);
      try {
        await client.connect();
      } catch (error) {
        throw asStoreError(error);
      }
      return client;
    },

    async close() {
      if (closed) return;
      closed = true;
      const listener = await listening;
      await Promise.all([listener?.end().catch(() => undefined), pool.end()]);
    },
  };
}
